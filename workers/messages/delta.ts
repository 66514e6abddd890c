/** Coding tensors against a base, and back. */
import type { EncodeInfo } from '../../methods/kinds.js';
import type { Quality } from '../../formats/delta/schema.js';
import type { LayerStatsRef, MethodRef, RunSettings, SpooledPart, TensorRef } from './refs.js';

/** Codes one tensor; parts go to files `<spool>.<part>`. */
export interface EncodeTask {
  readonly type: 'encode';
  readonly settings: RunSettings;
  readonly method: MethodRef;
  readonly base?: TensorRef;
  readonly tuned: TensorRef;
  /** Only the first rows are common with the base; the others are coded standalone. */
  readonly commonRows?: number;
  /** A point of the codec's own rate curve, when a budget was shared. */
  readonly point?: number;
  readonly stats?: LayerStatsRef;
  readonly spool: string;
}

export interface EncodeResult {
  readonly info: EncodeInfo;
  readonly parts: readonly SpooledPart[];
  readonly baseSha256?: string;
  readonly tunedSha256: string;
  readonly restoredSha256: string;
  /** False when the method declined the tensor and it is stored losslessly. */
  readonly byMethod: boolean;
  /** ||What - W1||_F^2 and ||W1 - W0||_F^2 of a lossy result. */
  readonly squares?: readonly [error: number, delta: number];
}

/** What codecs with a budget would take and leave at each of their points. */
export interface RatesTask {
  readonly type: 'rates';
  readonly settings: RunSettings;
  /** Asked in this order, each told what those before it reach. */
  readonly methods: readonly MethodRef[];
  readonly base: TensorRef;
  readonly tuned: TensorRef;
  readonly commonRows?: number;
  readonly share: number;
}

export interface RatesResult {
  readonly bytes: readonly number[];
  readonly errorSq: readonly number[];
  /** ||W1 - W0||_F^2 */
  readonly deltaSq: number;
}

/** Codes what is left between a tensor and what its lossy delta restores to; the part goes to a file `<spool>.residual`. */
export interface RemainderTask {
  readonly type: 'remainder';
  readonly settings: RunSettings;
  /** A delta of one layer. */
  readonly delta: string;
  readonly base?: TensorRef;
  readonly tuned: TensorRef;
  readonly spool: string;
}

export interface RemainderResult {
  readonly bytes: number;
  readonly sha256: string;
}

/** Decodes one tensor; the bytes go to `position` in `file` (absent: hashed only). */
export interface DecodeTask {
  readonly type: 'decode';
  readonly settings: RunSettings;
  readonly delta: string;
  /** What errors call the delta, where it is not its path. */
  readonly deltaName?: string;
  readonly quality: Quality;
  readonly tensor: string;
  readonly base?: TensorRef;
  readonly target?: { readonly file: string; readonly position: number };
  /** Damaged data is reported in the result instead of thrown: what verify wants. */
  readonly lenient?: boolean;
}

export interface DecodeResult {
  readonly sha256: string;
  /** Of the base tensor as it was read; absent when there is none. */
  readonly baseSha256?: string;
  /** Why the tensor's own data could not be decoded (`lenient`), and in which layer. */
  readonly damaged?: string;
  readonly layer?: Quality;
}

export interface HashTask {
  readonly type: 'hash';
  readonly tensor: TensorRef;
}

export interface HashResult {
  readonly sha256: string;
}
