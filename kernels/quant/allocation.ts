/** Bit widths of many layers under one budget: the least total error by water-filling (kernels/lowrank/water-fill.ts) over the widths of each. */
import { withinBytes, type RateCurve } from '../lowrank/water-fill.js';

export interface LayerWidths {
  readonly weights: number;
  /** Bits of a weight at each width, scales included; ascending. */
  readonly bitsPerWeight: readonly number[];
  /** What each width costs the loss, or the layer's squared output error. */
  readonly cost: readonly number[];
}

export interface WidthAllocation {
  /** Chosen width of every layer, as a place in its lists. */
  readonly widths: readonly number[];
  /** Over all layers. */
  readonly bitsPerWeight: number;
  readonly cost: number;
}

/** Every layer has its first width at least, also where that is more than the budget: bits of a weight on average. */
export function allocateWidths(layers: readonly LayerWidths[], budget: number): WidthAllocation {
  const weights = layers.reduce((sum, l) => sum + l.weights, 0);
  const curves = layers.map((l): RateCurve => ({ bytes: l.bitsPerWeight.map((b) => b * l.weights), errorSq: l.cost, deltaSq: l.cost[0]! }));
  const { points, bytes, errorSq } = withinBytes(curves, budget * weights);
  return { widths: points, bitsPerWeight: weights === 0 ? 0 : bytes / weights, cost: errorSq };
}
