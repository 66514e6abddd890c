/** A linear layer replaced: factors in its place, weights removed. */
import type { Sparsity } from '../../methods/kinds.js';
import type { CheckpointRef, FilePlace, LayerRef, MethodRef, RunSettings, Written } from './refs.js';

/** Two factors in place of one layer's weight, written in the weight's own type. */
export interface FactorizeTask {
  readonly type: 'factorize';
  readonly settings: RunSettings;
  readonly method: MethodRef;
  readonly layer: LayerRef;
  /** Absent: only the singular values are wanted. */
  readonly rank?: number;
  /** Where ALinear (out, rank) and BLinear (rank, in) go; or their product, in the weight's own orientation. */
  readonly target?: { readonly a: FilePlace; readonly b: FilePlace } | { readonly dense: FilePlace };
}

export interface FactorizeResult {
  /** Singular values in the method's metric, falling; without a target. */
  readonly s?: Float64Array;
  /** What the rank leaves in the method's metric, as a share: sqrt(sum_{i >= r} s_i^2 / sum s_i^2). */
  readonly error: number;
  /** ||What - W||_F / ||W||_F of what was stored. */
  readonly weightError: number;
  /** sqrt(tr(D G D^T) / tr(W G W^T)), D = What - W, G = X^T X, where the statistics have it. */
  readonly outputError?: number;
  readonly facts: Readonly<Record<string, number | string>>;
  /** In the order of the target's places. */
  readonly written: readonly Written[];
}

/** Where the scores of all layers together are cut: a weight goes when its key (kernels/sparse/score-keys.ts) is below `key`, and the first `ties` of those that have it. */
export interface ScoreCut {
  readonly group: 'cut';
  readonly key: number;
  readonly ties: number;
}

/** Removes weights of one layer: by a method, or by masks that are there; then the kept ones may be set anew. */
export interface PruneTask {
  readonly type: 'prune';
  readonly settings: RunSettings;
  readonly layer: LayerRef;
  readonly choose:
    { readonly method: MethodRef; readonly target: Sparsity | ScoreCut } | { readonly masks: readonly CheckpointRef[]; readonly combine: MaskRule };
  /** Sets the kept weights. */
  readonly update?: MethodRef;
  /** Where the weight goes, in its own type and orientation; the same bytes to each. */
  readonly places: readonly FilePlace[];
  /** Where the mask goes: a byte a weight, as the weight lies. */
  readonly mask?: FilePlace;
}

export type MaskRule = 'and' | 'or';

export interface PruneResult {
  /** Of m n weights. */
  readonly zeros: number;
  readonly values: number;
  /** What the layer's output loses, as a share: of all inputs' products, of their squares alone, or of the weight itself. */
  readonly error: number;
  readonly errorOf: 'output' | 'diagonal' | 'weight';
  readonly ms: number;
  readonly facts: Readonly<Record<string, number | string>>;
  /** In the order of the places. */
  readonly written: readonly Written[];
  readonly maskWritten?: Written;
}

/** How often each key occurs among a layer's scores: its upper 16 bits; or the lower ones of the keys that begin with `high`. */
export interface PruneScoresTask {
  readonly type: 'prune-scores';
  readonly settings: RunSettings;
  readonly layer: LayerRef;
  readonly method: MethodRef;
  readonly high?: number;
}

export interface PruneScoresResult {
  readonly counts: Uint32Array;
}
