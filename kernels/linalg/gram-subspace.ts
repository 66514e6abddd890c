/**
 * The leading eigenvectors of a Gram matrix by Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago, Chelikowsky,
 * "Self-consistent-field calculations using Chebyshev-filtered subspace iteration", J. Comput. Phys. 219, 2006).
 */
import { floatBuffer } from '../../core/panel-buffer.js';
import { eigh, type Eigen } from './eigh.js';
import type { MatrixOps } from './matrix-ops.js';
import { conditionedBasis, orthonormalize } from './qr.js';

/** What a filter may raise s_1 above the cutoff: the other columns keep their own directions in f32 beside it. */
const FILTER_SPAN = 1e9;

/**
 * X (side, k), an orthonormal basis near the k leading eigenvectors of g (side, side); omega: the start, (side, k).
 *   X = Ritz vectors, c = smallest Ritz value;  Y_0 = X, Y_1 = 2/c G X - X, Y_j+1 = 4/c G Y_j - 2 Y_j - Y_j-1;  X = orth(Y_d)
 * Values below c stay within [-1, 1], a value c (1 + t) grows as exp(2 d sqrt(t)): a flat spectrum needs a fifth of the products
 * that powers of G need. Where the spectrum falls so steeply that f32 would not hold the filter, a plain power step is enough.
 * The diagonal of g is changed meanwhile and put back.
 */
export function gramSubspace(g: Float32Array, side: number, k: number, steps: number, omega: Float32Array, ops: MatrixOps): Float32Array {
  const buffer = (use: string): Float32Array => floatBuffer(side * k, `subspace ${use}`);
  const [x, gx] = [buffer('x'), buffer('gx')];
  const filtered: [Float32Array, Float32Array] = [buffer('even'), buffer('odd')];
  ops.gemm(false, false, side, k, side, 1, g, omega, 0, gx);
  conditionedBasis(gx, side, k, ops, x);
  for (let left = steps; left > 0;) {
    const { values, vectors } = ritz(g, side, k, x, gx, ops);
    const degree = filterDegree(values[k - 1]! / Math.max(values[0]!, 0), left);
    if (degree < 2) {
      conditionedBasis(gx, side, k, ops, x);
      left--;
      continue;
    }
    const rotation = new Float32Array(vectors);
    ops.gemm(false, true, side, k, k, 1, x, rotation, 0, filtered[0]);
    filtered[1].set(filtered[0]);
    ops.gemm(false, true, side, k, k, 2 / values[0]!, gx, rotation, -1, filtered[1]);
    conditionedBasis(chebyshev(g, side, k, filtered, values[0]!, degree, ops), side, k, ops, x);
    left -= degree;
  }
  return orthonormalize(x, side, k, ops);
}

/** gx = G X, and the eigenvalues (ascending) and eigenvectors (rows) of X^T G X, x: (side, k) orthonormal. */
export function ritz(g: Float32Array, side: number, k: number, x: Float32Array, gx: Float32Array, ops: MatrixOps): Eigen {
  ops.gemm(false, false, side, k, side, 1, g, x, 0, gx);
  return eigh(symmetric(ops.multiply(true, false, k, k, side, x, gx), k), k, { blas: ops.blas });
}

/** The highest degree up to `most` at which T_d(2 span - 1) is below FILTER_SPAN; span: largest Ritz value over the cutoff. */
function filterDegree(span: number, most: number): number {
  if (!Number.isFinite(span)) return 1;
  const perDegree = Math.acosh(Math.max(1, 2 * span - 1));
  return perDegree === 0 ? 1 : Math.min(most, Math.floor(Math.log(2 * FILTER_SPAN) / perDegree));
}

/** T_d(2 G / c - 1) X in one of two buffers that come with Y_0 and Y_1: each next one is a single product with G - c/2. */
function chebyshev(
  g: Float32Array,
  side: number,
  k: number,
  [even, odd]: [Float32Array, Float32Array],
  c: number,
  degree: number,
  ops: MatrixOps,
): Float32Array {
  const diagonal = Float32Array.from({ length: side }, (_, i) => g[i * side + i]!);
  for (let i = 0; i < side; i++) g[i * side + i] = diagonal[i]! - c / 2;
  let [before, y] = [even, odd];
  for (let j = 1; j < degree; j++) {
    // 4/c (G - c/2) Y_j - Y_j-1
    ops.gemm(false, false, side, k, side, 4 / c, g, y, -1, before);
    [before, y] = [y, before];
  }
  for (let i = 0; i < side; i++) g[i * side + i] = diagonal[i]!;
  return y;
}

/** (H + H^T) / 2 in f64, for the f32 product h (k, k) of a symmetric matrix. */
function symmetric(h: Float32Array, k: number): Float64Array {
  const out = new Float64Array(h);
  for (let i = 0; i < k; i++) for (let j = 0; j < i; j++) out[i * k + j] = out[j * k + i] = (h[i * k + j]! + h[j * k + i]!) / 2;
  return out;
}
