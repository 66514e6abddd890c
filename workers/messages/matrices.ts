/** Looking at matrices and at what a fine-tune did to them. */
import type { LeadingVector } from './adapters.js';
import type { RunSettings, TensorRef } from './refs.js';

/** Compares one tensor with its counterpart, element by element. */
export interface DiffTask {
  readonly type: 'diff';
  readonly settings: RunSettings;
  readonly base: TensorRef;
  readonly tuned: TensorRef;
}

export interface DiffResult {
  readonly changed: number;
  readonly elements: number;
  readonly deltaNorm: number;
  readonly baseNorm: number;
  readonly maxAbs: number;
}

/** Singular values of one matrix, or of its difference to the base's. */
export interface SpectrumTask {
  readonly type: 'spectrum';
  readonly settings: RunSettings;
  readonly tensor: TensorRef;
  readonly base?: TensorRef;
}

export interface SpectrumResult {
  /** ||W||_F */
  readonly norm: number;
  /** min(m, n) */
  readonly side: number;
  readonly finite: boolean;
  /** Every singular value was computed, not only the leading ones. */
  readonly complete: boolean;
  /** The leading singular values, falling. */
  readonly values: readonly number[];
  /** Least rank that keeps the share of ||W||_F^2; absent when more values than were computed are needed. */
  readonly rank90?: number;
  readonly rank95?: number;
  readonly rank99?: number;
  /** exp of the entropy of s / sum s (Roy and Vetterli, 2007). */
  readonly effectiveRank?: number;
  /** Values above the Gavish-Donoho threshold (arXiv 1305.5870). */
  readonly noiseRank?: number;
}

/** Leading left singular vectors of a fine-tuned matrix against all of its base's (arXiv 2410.21228). */
export interface IntrudersTask {
  readonly type: 'intruders';
  readonly settings: RunSettings;
  readonly base: TensorRef;
  readonly tuned: TensorRef;
  /** k: how many leading vectors are looked at. */
  readonly top: number;
  /** epsilon: a largest cosine below it makes an intruder. */
  readonly cosine: number;
}

export interface IntrudersResult {
  /** Why the matrix was not looked at. */
  readonly left?: 'too large' | 'not finite';
  readonly leading: readonly LeadingVector[];
  readonly intruders: readonly LeadingVector[];
  /** Of the matrix in the base and in the fine-tune. */
  readonly effectiveRank?: { readonly base: number; readonly tuned: number };
}
