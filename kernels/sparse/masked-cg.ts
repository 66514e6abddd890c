/** Least squares on a fixed support, from a good start: conjugate gradients, each row a system of its own. */
import type { MatrixOps } from '../linalg/matrix-ops.js';
import { panelRows } from '../linalg/row-panels.js';

/**
 * Minimizes tr(X A X^T) - 2 tr(X T^T) over the X whose zeros the mask says, in place; x, t: (m, n), a: (n, n) symmetric positive definite.
 * No step makes any row worse.
 */
export function polish(
  x: Float32Array,
  t: Float32Array,
  mask: Uint8Array,
  a: Float32Array,
  m: number,
  n: number,
  steps: number,
  ops: MatrixOps,
  between: () => void,
): void {
  const rows = panelRows(m, n);
  for (let i = 0; i < x.length; i++) if (mask[i] === 0) x[i] = 0;
  for (let i = 0; i < m; i += rows) {
    between();
    const [from, to] = [i * n, Math.min(m, i + rows) * n];
    polishRows(x.subarray(from, to), t.subarray(from, to), mask.subarray(from, to), a, n, steps, ops);
  }
}

function polishRows(x: Float32Array, t: Float32Array, mask: Uint8Array, a: Float32Array, n: number, steps: number, ops: MatrixOps): void {
  const rows = x.length / n;
  const product = ops.multiply(false, false, rows, n, n, x, a);
  const residual = t.map((v, i) => (mask[i] === 1 ? v - product[i]! : 0));
  const p = residual.slice();
  let square = rowDots(residual, residual, n);
  for (let step = 0; step < steps; step++) {
    ops.gemm(false, false, rows, n, n, 1, p, a, 0, product);
    const curvature = rowDots(p, product, n);
    const alpha = square.map((v, r) => (curvature[r]! > 0 ? v / curvature[r]! : 0));
    for (let r = 0; r < rows; r++) {
      for (let at = r * n, end = at + n; at < end; at++) {
        x[at] = x[at]! + alpha[r]! * p[at]!;
        residual[at] = mask[at] === 1 ? residual[at]! - alpha[r]! * product[at]! : 0;
      }
    }
    const next = rowDots(residual, residual, n);
    for (let r = 0; r < rows; r++) {
      const beta = square[r]! > 0 ? next[r]! / square[r]! : 0;
      for (let at = r * n, end = at + n; at < end; at++) p[at] = residual[at]! + beta * p[at]!;
    }
    square = next;
  }
}

/** sum_j a_rj b_rj of every row, f64. */
function rowDots(a: Float32Array, b: Float32Array, n: number): Float64Array {
  const out = new Float64Array(a.length / n);
  for (let r = 0; r < out.length; r++) {
    let sum = 0;
    for (let at = r * n, end = at + n; at < end; at++) sum += a[at]! * b[at]!;
    out[r] = sum;
  }
  return out;
}
