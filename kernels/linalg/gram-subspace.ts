/**
 * The leading eigenvectors of a Gram matrix by Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago, Chelikowsky,
 * "Self-consistent-field calculations using Chebyshev-filtered subspace iteration", J. Comput. Phys. 219, 2006).
 */
import { eigh } from './eigh.js';
import type { MatrixOps } from './matrix-ops.js';
import { conditionedBasis, orthonormalize } from './qr.js';

/** What a filter may raise s_1 above the cutoff: the other columns keep their own directions in f32 beside it. */
const FILTER_SPAN = 1e9;

/**
 * X (side, k), an orthonormal basis near the k leading eigenvectors of g (side, side); omega: the start, (side, k).
 *   X = Ritz vectors, c = smallest Ritz value;  Y_0 = X, Y_1 = 2/c G X - X, Y_j+1 = 4/c G Y_j - 2 Y_j - Y_j-1;  X = orth(Y_d)
 * Values below c stay within [-1, 1], a value c (1 + t) grows as exp(2 d sqrt(t)): a flat spectrum needs a fifth of the products
 * that powers of G need. Where the spectrum falls so steeply that f32 would not hold the filter, a plain power step is enough.
 */
export function gramSubspace(g: Float32Array, side: number, k: number, steps: number, omega: Float32Array, ops: MatrixOps): Float32Array {
  const times = (x: Float32Array): Float32Array => ops.multiply(false, false, side, k, side, g, x);
  let { q: x } = conditionedBasis(times(omega), side, k, ops);
  for (let left = steps; left > 0;) {
    const gx = times(x);
    const { values, vectors } = eigh(symmetric(ops.multiply(true, false, k, k, side, x, gx), k), k, { blas: ops.blas });
    const degree = filterDegree(values[k - 1]! / Math.max(values[0]!, 0), left);
    if (degree < 2) {
      x = conditionedBasis(gx, side, k, ops).q;
      left--;
      continue;
    }
    const rotation = new Float32Array(vectors);
    const rotated = (y: Float32Array): Float32Array => ops.multiply(false, true, side, k, k, y, rotation);
    x = conditionedBasis(unitColumns(chebyshev(rotated(x), rotated(gx), values[0]!, degree, times), side, k), side, k, ops).q;
    left -= degree;
  }
  return orthonormalize(x, side, k, ops);
}

/** The highest degree up to `most` at which T_d(2 span - 1) is below FILTER_SPAN; span: largest Ritz value over the cutoff. */
function filterDegree(span: number, most: number): number {
  if (!Number.isFinite(span)) return 1;
  const perDegree = Math.acosh(Math.max(1, 2 * span - 1));
  return perDegree === 0 ? 1 : Math.min(most, Math.floor(Math.log(2 * FILTER_SPAN) / perDegree));
}

/** T_d(2 G / c - 1) X; x is used up. gx: G X. */
function chebyshev(x: Float32Array, gx: Float32Array, c: number, degree: number, times: (y: Float32Array) => Float32Array): Float32Array {
  let [before, y] = [x, gx];
  for (let i = 0; i < y.length; i++) y[i] = (2 / c) * y[i]! - x[i]!;
  for (let j = 1; j < degree; j++) {
    const next = times(y);
    for (let i = 0; i < next.length; i++) next[i] = (4 / c) * next[i]! - 2 * y[i]! - before[i]!;
    [before, y] = [y, next];
  }
  return y;
}

/** In place: every column of y (rows, k) divided by its length. */
function unitColumns(y: Float32Array, rows: number, k: number): Float32Array {
  const scale = new Float64Array(k);
  for (let i = 0; i < rows; i++) for (let j = 0; j < k; j++) scale[j] = scale[j]! + y[i * k + j]! * y[i * k + j]!;
  for (let j = 0; j < k; j++) scale[j] = scale[j]! > 0 ? 1 / Math.sqrt(scale[j]!) : 0;
  for (let i = 0; i < rows; i++) for (let j = 0; j < k; j++) y[i * k + j] = y[i * k + j]! * scale[j]!;
  return y;
}

/** (H + H^T) / 2 in f64, for the f32 product h (k, k) of a symmetric matrix. */
export function symmetric(h: Float32Array, k: number): Float64Array {
  const out = new Float64Array(h);
  for (let i = 0; i < k; i++) for (let j = 0; j < i; j++) out[i * k + j] = out[j * k + i] = (h[i * k + j]! + h[j * k + i]!) / 2;
  return out;
}
