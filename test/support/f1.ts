/** F1 (pruning.ts) as the quantization kernels are given it, and the output error they are judged by. */
import type { Rng } from '../../core/rng.js';
import type { MatrixOps } from '../../kernels/linalg/matrix-ops.js';
import { f1 as layerF1 } from './pruning.js';

export interface QuantF1 {
  readonly m: number;
  readonly n: number;
  /** (m, n) */
  readonly w: Float32Array;
  /** X^T X */
  readonly gram: Float32Array;
}

export function f1(rng: Rng, m = 256, n = 512, tokens = 2048): QuantF1 {
  const { layer, stats } = layerF1(rng, m, n, tokens);
  return { m, n, w: layer.w, gram: stats.inputGram };
}

/** E(What) = sqrt(tr(D G D^T) / tr(W G W^T)), D = What - W */
export function outputError(what: Float32Array, w: Float32Array, gram: Float32Array, m: number, n: number, ops: MatrixOps): number {
  const energy = (d: Float32Array): number => ops.multiply(false, false, m, n, n, d, gram).reduce((sum, v, i) => sum + v * d[i]!, 0);
  const off = what.map((v, i) => v - w[i]!);
  return Math.sqrt(Math.max(0, energy(off)) / energy(w));
}
