/** Gram matrices in f64, for spectra whose small values must keep their digits. */
import type { MatrixOps } from './matrix-ops.js';

/** Values of a panel that is widened to f64 at a time. */
const PANEL_VALUES = 1 << 20;

/** W^T W (n, n), or W W^T (m, m) with `rows`, of w (m, n); both triangles. */
export function gram64(w: Float32Array, m: number, n: number, rows: boolean, ops: MatrixOps): Float64Array {
  if (ops.blas === undefined) return rows ? plainRows(w, m, n) : plainColumns(w, m, n);
  if (rows) {
    const all = new Float64Array(w);
    return ops.multiply64(false, true, m, m, n, all, all);
  }
  const g = new Float64Array(n * n);
  const step = Math.max(1, Math.floor(PANEL_VALUES / n));
  for (let i = 0; i < m; i += step) {
    const panel = new Float64Array(w.subarray(i * n, Math.min(m, i + step) * n));
    ops.blas.dgemm(true, false, n, n, panel.length / n, 1, panel, n, panel, n, 1, g, n);
  }
  return g;
}

function plainRows(w: Float32Array, m: number, n: number): Float64Array {
  const g = new Float64Array(m * m);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0;
      for (let x = i * n, y = j * n, c = 0; c < n; c++, x++, y++) sum += w[x]! * w[y]!;
      g[i * m + j] = g[j * m + i] = sum;
    }
  }
  return g;
}

function plainColumns(w: Float32Array, m: number, n: number): Float64Array {
  const g = new Float64Array(n * n);
  for (let r = 0; r < m; r++) {
    for (let i = 0; i < n; i++) {
      const v = w[r * n + i]!;
      if (v === 0) continue;
      for (let j = 0; j <= i; j++) g[i * n + j] = g[i * n + j]! + v * w[r * n + j]!;
    }
  }
  for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) g[j * n + i] = g[i * n + j]!;
  return g;
}
