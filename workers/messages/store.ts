/** Objects of a store. */
import type { RunSettings, TensorRef } from './refs.js';

/** Learns an object's name and takes its sketch. */
export interface StoreScanTask {
  readonly type: 'store-scan';
  readonly tensor: TensorRef;
}

export interface StoreScanResult {
  readonly object: string;
  readonly sketch: Uint8Array;
  /** Estimated bytes of the tensor coded alone. */
  readonly aloneBytes: number;
}

/** Codes one tensor as an object of a store and puts it in its place. */
export interface StorePutTask {
  readonly type: 'store-put';
  readonly settings: RunSettings;
  readonly store: string;
  readonly tensor: TensorRef;
  /** Its name, from the scan: FILE_CHANGED when it is another one now. */
  readonly object: string;
  readonly base?: { readonly object: string; readonly rows?: number };
  /** An object of this name is there and cannot be decoded. */
  readonly replace: boolean;
  /** Temporary files start with it. */
  readonly spool: string;
}

export interface StorePutResult {
  /** Of the object's file; 0 when another process put it there meanwhile. */
  readonly bytes: number;
  readonly base?: string;
  readonly depth: number;
}

/** Decodes one object and writes it to each target; without targets it is only proven. */
export interface StoreGetTask {
  readonly type: 'store-get';
  readonly store: string;
  readonly object: string;
  readonly targets: readonly { readonly file: string; readonly position: number }[];
  /** Type and shape that the model has it for, as in its hash (formats/store/schema.ts, contentPrefix). */
  readonly expected?: string;
  /** `stored`: the stored bytes are hashed, nothing is decoded. */
  readonly check: 'content' | 'stored';
  /** Damage is reported in the result instead of thrown. */
  readonly lenient: boolean;
}

export interface StoreGetResult {
  readonly damaged?: { readonly file: string; readonly message: string };
}

export type StoreTask = StoreScanTask | StorePutTask | StoreGetTask;
