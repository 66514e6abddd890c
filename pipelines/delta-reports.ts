/** What restore and verify are asked and answer, for deltas of every kind. */
import type { Quality } from '../formats/delta/schema.js';
import type { RemoteAccess } from './delta-locate.js';
import type { RunOptions } from './run-options.js';

export interface RestoreOptions extends RunOptions, RemoteAccess {
  /** undefined: the base that the delta names, found beside it. */
  readonly base: string | undefined;
  /** A file, or a URL. */
  readonly delta: string;
  /** Of a delta of two layers: what the lossy one restores to, or the original. The best that it holds by default. */
  readonly quality?: Quality;
  /** A folder; for a delta of one file without side files also a `.safetensors` path. */
  readonly out: string;
  readonly force: boolean;
  readonly dryRun: boolean;
  readonly resume: boolean;
}

export interface RestoreReport {
  readonly out: string;
  readonly bytes: number;
  readonly tensors: number;
  /** True when the files are those of the original, false for a lossy result. */
  readonly exact: boolean;
  /** False for a diff of BitDelta's release: it names no base and holds no hashes. */
  readonly proven: boolean;
  /** Of what was restored, where it is proven. */
  readonly contentHash?: string;
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
}

export interface VerifyOptions extends RunOptions, RemoteAccess {
  readonly base: string | undefined;
  /** A file, or a URL. */
  readonly delta: string;
  /** The original, to compare with as well. */
  readonly tuned: string | undefined;
}

export interface Mismatch {
  readonly tensor: string;
  /** `exact`: the exact layer's data are damaged, the lossy layer is whole. */
  readonly what: 'base' | 'restored' | 'tuned' | 'data' | 'exact';
  readonly expected: string;
  readonly got: string;
}

export interface VerifyReport {
  readonly ok: boolean;
  readonly checked: number;
  readonly exact: boolean;
  /** False for a diff of BitDelta's release: that names, types and shapes fit the base is all that can be said. */
  readonly proven: boolean;
  readonly mismatches: readonly Mismatch[];
}
