/** What the methods that weigh a layer's error on one side or both share. */
import { matrixOps, type MatrixOps } from '../kernels/linalg/matrix-ops.js';
import { weightedSvd, weightedSvdBytes, type Weighting } from '../kernels/lowrank/weighted-svd.js';
import type { FactorStat, FactorStats, Factorizer, LayerWeight } from './kinds.js';

export interface Weights {
  /** Of the m rows (outputs) and of the n columns (inputs). */
  readonly rows: Weighting;
  readonly columns: Weighting;
  readonly facts?: Readonly<Record<string, number | string>>;
}

export interface WeightedMethod {
  readonly needs: readonly FactorStat[];
  /** Bytes of the weightings, and of what they are made from. */
  readonly memoryBytes?: (m: number, n: number) => number;
  readonly weigh: (layer: LayerWeight, stats: FactorStats, ops: MatrixOps) => Weights;
}

/** A truncated SVD under the weights. */
export function weightedFactorizer({ needs, memoryBytes, weigh }: WeightedMethod): Factorizer {
  return {
    needs,
    memoryBytes: (m, n) => weightedSvdBytes(m, n) + (memoryBytes?.(m, n) ?? 0),
    async decompose(c, layer, stats) {
      const ops = await matrixOps(c);
      const { rows, columns, facts = {} } = weigh(layer, stats, ops);
      c.checkpointCancel();
      const { s, factors } = weightedSvd(layer.w, layer.m, layer.n, rows, columns, ops);
      return { s, facts, factors };
    },
  };
}
