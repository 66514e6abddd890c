/** A GGUF model: one file, or all files of a split set (`<prefix>-00001-of-0000N.gguf`); any of them names the set. */
import { dirname, basename, join } from 'node:path';
import { PithError } from '../../core/errors.js';
import * as io from '../io.js';
import { GgufFile } from './file.js';
import type { GgufEntry } from './header.js';

const PART = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/;

/** Of a split set: what its files have in common, the part's number (from 1) and how many there are. */
export function splitName(path: string): { readonly prefix: string; readonly part: number; readonly count: number } | undefined {
  const m = PART.exec(basename(path));
  return m === null ? undefined : { prefix: m[1]!, part: Number(m[2]), count: Number(m[3]) };
}

export interface PlacedEntry extends GgufEntry {
  readonly file: GgufFile;
}

export class GgufSet implements Disposable {
  /** In the order of the files and of their tables. */
  readonly entries: ReadonlyMap<string, PlacedEntry>;

  private constructor(readonly files: readonly GgufFile[]) {
    const entries = new Map<string, PlacedEntry>();
    for (const file of files) {
      for (const e of file.tensors.values()) {
        const other = entries.get(e.name);
        if (other !== undefined) throw new PithError('DUPLICATE_TENSOR', { file: file.path, tensor: e.name, expected: other.file.path, got: file.path });
        entries.set(e.name, { ...e, file });
      }
    }
    this.entries = entries;
  }

  /** The header's errors, SHARD_MISSING (66), GGUF_SPLIT or DUPLICATE_TENSOR (65). */
  static open(path: string): GgufSet {
    const files: GgufFile[] = [];
    try {
      for (const p of parts(path)) files.push(GgufFile.open(p));
      const set = new GgufSet(files);
      set.#check();
      return set;
    } catch (error) {
      for (const f of files) f.close();
      throw error;
    }
  }

  /** The file that holds the metadata. */
  get first(): GgufFile {
    return this.files[0]!;
  }

  #check(): void {
    const expect = (file: GgufFile, key: string, expected: number): void => {
      const got = file.number(key);
      if (got !== undefined && got !== expected) throw new PithError('GGUF_SPLIT', { file: file.path, key, expected, got });
    };
    // a lone file must not be a part of something
    const count = this.files.length;
    this.files.forEach((file, i) => {
      if (count > 1 && !file.has('split.no')) throw new PithError('GGUF_SPLIT', { file: file.path, key: 'split.no', expected: i, got: 'no such key' });
      expect(file, 'split.no', i);
      if (file.number('split.count') !== 0) expect(file, 'split.count', count);
      if (count > 1) expect(file, 'split.tensors.count', this.entries.size);
    });
  }

  [Symbol.dispose](): void {
    for (const f of this.files) f.close();
  }
}

function parts(path: string): string[] {
  const name = splitName(path);
  if (name === undefined || name.count < 2) return [path];
  return Array.from({ length: name.count }, (_, i) => {
    const shard = `${name.prefix}-${String(i + 1).padStart(5, '0')}-of-${String(name.count).padStart(5, '0')}.gguf`;
    const p = join(dirname(path), shard);
    if (io.stat(p) === undefined) throw new PithError('SHARD_MISSING', { file: path, shard });
    return p;
  });
}
