/** Low-rank adapters: out of a fine-tune, into a checkpoint, to a smaller rank. */
import type { DType } from '../../core/dtype.js';
import type { RunSettings, TensorRef } from './refs.js';

export interface LeadingVector {
  /** From 0. */
  readonly index: number;
  /** The singular value. */
  readonly value: number;
  /** The largest cosine with a left singular vector of the base. */
  readonly cosine: number;
}

/** How many components of a difference an adapter keeps. */
export interface RankRule {
  readonly maxRank: number;
  /** The least rank with this share of ||D||_F^2, at most maxRank. */
  readonly energy?: number;
  /** Singular values at or below it are dropped. */
  readonly svEpsilon?: number;
}

/** Factors of W1 - W0 for an adapter; A and B go to `spool`, one after the other. */
export interface ExtractTask {
  readonly type: 'extract';
  readonly settings: RunSettings;
  readonly base: TensorRef;
  readonly tuned: TensorRef;
  readonly rule: RankRule;
  readonly dtype: 'BF16' | 'F16' | 'F32';
  /** Weights that lie as (in, out): embeddings and Conv1D. Their factors are those of the transpose. */
  readonly transposed: boolean;
  /** sqrt(s) in both factors instead of s in A. */
  readonly distributeScale: boolean;
  /** absent: only the curve of errors is wanted. */
  readonly spool?: string;
}

export interface ExtractResult {
  /** 0: nothing to keep, no factors were written. */
  readonly rank: number;
  /** ||D - B A||_F / ||D||_F before the factors are rounded. */
  readonly residual: number;
  /** ||D||_F^2 */
  readonly deltaSq: number;
  /** Squared error that r + 1 components leave, without a spool. */
  readonly errorSq?: readonly number[];
}

/** W' of one tensor of a merged model, in its output type, at `position` of `file`. */
export interface FuseTask {
  readonly type: 'fuse';
  readonly settings: RunSettings;
  readonly base: TensorRef;
  readonly dtype: DType;
  /** The adapter's folder; absent: only the type changes. */
  readonly adapter?: string;
  /** Module whose factors are added. */
  readonly module?: string;
  /** Key of a full copy that replaces the tensor. */
  readonly saved?: string;
  /** The weight lies as (in, out). */
  readonly transposed?: boolean;
  /** The tensor is the module's bias. */
  readonly bias?: boolean;
  readonly target: { readonly file: string; readonly position: number };
}

export interface FuseResult {
  /** max |stored - W'|, from the rounding to the output type. */
  readonly maxError: number;
  /** max |W'| */
  readonly maxAbs: number;
}

/** Best approximation of one module's B A by fewer components; A and B go to `spool`, one after the other. */
export interface ResizeTask {
  readonly type: 'resize';
  readonly settings: RunSettings;
  readonly adapter: string;
  readonly module: string;
  readonly rule: RankRule;
  /** Zero components up to this rank. */
  readonly padTo?: number;
  /** B is multiplied by it. */
  readonly scaling: number;
  readonly dtype: 'BF16' | 'F16' | 'F32';
  /** (in, r) and (r, out), as mlx has them, instead of (r, in) and (out, r). */
  readonly transposed?: boolean;
  readonly spool: string;
}

export interface ResizeResult {
  readonly rank: number;
  /** ||B A - B' A'||_F / ||B A||_F before rounding. */
  readonly error: number;
  /** ||B A||_F^2 with the scaling. */
  readonly normSq: number;
}
