/** How far a layer's outputs move: sqrt(tr(D G D^T) / tr(W G W^T)), D = What - W. */
import type { MatrixOps } from '../linalg/matrix-ops.js';
import { panelRows } from './row-panels.js';

/** (m, n) f32 each, gram: (n, n); products in f32, sums in f64. 0 where the layer's outputs are 0. */
export function layerError(w: Float32Array, what: Float32Array, m: number, n: number, gram: Float32Array, ops: MatrixOps): number {
  const rows = panelRows(m, n);
  let [left, all] = [0, 0];
  for (let i = 0; i < m; i += rows) {
    const [from, to] = [i * n, Math.min(m, i + rows) * n];
    const dense = w.subarray(from, to);
    all += energy(dense, (to - from) / n, n, gram, ops);
    left += energy(
      what.subarray(from, to).map((v, k) => v - dense[k]!),
      (to - from) / n,
      n,
      gram,
      ops,
    );
  }
  return all > 0 ? Math.sqrt(Math.max(0, left) / all) : 0;
}

function energy(x: Float32Array, rows: number, n: number, gram: Float32Array, ops: MatrixOps): number {
  const product = ops.multiply(false, false, rows, n, n, x, gram);
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += product[i]! * x[i]!;
  return sum;
}
