/** What a store holds, from headers: its models, its objects' heads, and what depends on what. */
import { PithError } from '../core/errors.js';
import type { StoreFolder } from '../formats/store/folder.js';
import { ObjectFile, SKETCH } from '../formats/store/object.js';
import type { ObjectHead, StoredModel } from '../formats/store/schema.js';

export interface Head extends ObjectHead {
  /** Of the object's file. */
  readonly bytes: number;
}

export class StoreIndex {
  readonly #heads = new Map<string, Head | PithError>();
  readonly #sketches = new Map<string, Uint8Array | undefined>();

  constructor(readonly store: StoreFolder) {}

  /** A model that another process removes meanwhile is left out; a damaged record is STORE_MALFORMED, unless it is to be left out too. */
  models(options: { readonly skipDamaged?: boolean } = {}): StoredModel[] {
    return this.store.modelNames().flatMap((name) => {
      try {
        return [this.store.readModel(name)];
      } catch (error) {
        if (error instanceof PithError && (error.code === 'NOT_FOUND' || (options.skipDamaged === true && error.exitCode === 65))) return [];
        throw error;
      }
    });
  }

  /** The head, or why there is none (OBJECT_MISSING, OBJECT_DAMAGED). */
  head(hash: string): Head | PithError {
    let head = this.#heads.get(hash);
    if (head === undefined) {
      head = this.#open(hash);
      this.#heads.set(hash, head);
    }
    return head;
  }

  #open(hash: string): Head | PithError {
    try {
      using file = ObjectFile.open(this.store.object(hash));
      return { ...file.head, bytes: file.bytes };
    } catch (error) {
      if (error instanceof PithError && error.exitCode === 65) return error;
      throw error;
    }
  }

  /** The sample of an object's words; undefined where it has none that can be read. */
  sketch(hash: string): Uint8Array | undefined {
    if (!this.#sketches.has(hash)) this.#sketches.set(hash, this.#readSketch(hash));
    return this.#sketches.get(hash);
  }

  #readSketch(hash: string): Uint8Array | undefined {
    try {
      using file = ObjectFile.open(this.store.object(hash));
      return file.head.parts[SKETCH] === undefined ? undefined : file.read(SKETCH);
    } catch (error) {
      if (error instanceof PithError && error.exitCode === 65) return undefined;
      throw error;
    }
  }

  /** The stored bytes of an object and of its bases are those that were written. */
  isWhole(hash: string): boolean {
    try {
      for (const h of this.closure([hash])) {
        using file = ObjectFile.open(this.store.object(h));
        file.checkAll();
      }
      return true;
    } catch (error) {
      if (error instanceof PithError && error.exitCode === 65) return false;
      throw error;
    }
  }

  /** Objects and their bases, all the way down. What cannot be opened is in it too. */
  closure(roots: Iterable<string>): Set<string> {
    const seen = new Set<string>();
    for (const root of roots) {
      for (let hash: string | undefined = root; hash !== undefined && !seen.has(hash);) {
        seen.add(hash);
        const head: Head | PithError = this.head(hash);
        hash = head instanceof PithError ? undefined : head.base?.object;
      }
    }
    return seen;
  }
}
