/** The sheet's F1: correlated activations with outlier channels, a Gaussian weight; and the output error it is judged by. */
import type { Rng } from '../../core/rng.js';
import type { MatrixOps } from '../../kernels/linalg/matrix-ops.js';
import { orthonormalize } from '../../kernels/linalg/qr.js';

export interface QuantF1 {
  readonly m: number;
  readonly n: number;
  readonly tokens: number;
  /** (m, n) */
  readonly w: Float32Array;
  /** (tokens, n) */
  readonly x: Float32Array;
  /** X^T X / tokens */
  readonly gram: Float32Array;
  /** Ascending. */
  readonly outliers: readonly number[];
}

export function f1(rng: Rng, ops: MatrixOps, m = 256, n = 512, tokens = 2048): QuantF1 {
  const raw = Array.from({ length: n }, (_, i) => 1 / (i + 1));
  const mean = raw.reduce((a, b) => a + b, 0) / n;
  const q = orthonormalize(rng.normals(n * n), n, n, ops);
  const z = rng.normals(tokens * n);
  for (let i = 0; i < z.length; i++) z[i] = z[i]! * Math.sqrt(raw[i % n]! / mean);
  const x = ops.multiply(false, true, tokens, n, n, z, q);
  const chosen = new Set<number>();
  while (chosen.size < 5) chosen.add(rng.integer(n));
  for (let t = 0; t < tokens; t++) for (const j of chosen) x[t * n + j] = 10 * x[t * n + j]!;
  const gram = ops.gram(x, tokens, n, false).map((v) => v / tokens);
  const w = rng.normals(m * n).map((v) => v / Math.sqrt(n));
  return { m, n, tokens, w, x, gram, outliers: [...chosen].sort((a, b) => a - b) };
}

/** E(What) = sqrt(tr(D G D^T) / tr(W G W^T)), D = What - W */
export function outputError(what: Float32Array, w: Float32Array, gram: Float32Array, m: number, n: number, ops: MatrixOps): number {
  const energy = (d: Float32Array): number => ops.multiply(false, false, m, n, n, d, gram).reduce((sum, v, i) => sum + v * d[i]!, 0);
  return Math.sqrt(Math.max(0, energy(what.map((v, i) => v - w[i]!))) / energy(w));
}
