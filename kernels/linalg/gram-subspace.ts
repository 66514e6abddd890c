/**
 * The leading eigenvectors of W^T W by Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago, Chelikowsky,
 * "Self-consistent-field calculations using Chebyshev-filtered subspace iteration", J. Comput. Phys. 219, 2006).
 */
import { floatBuffer } from '../../core/panel-buffer.js';
import { eigh } from './eigh.js';
import type { MatrixOps } from './matrix-ops.js';
import { conditionedBasis, orthonormalize } from './qr.js';

/** What a filter may raise s_1 above the cutoff: the other columns keep their own directions in f32 beside it. */
const FILTER_SPAN = 1e9;

/** A filter of this degree is worth its Ritz vectors. */
const LEAST_FILTER = 2;

/** C = alpha (G - shift) Y + beta C for a symmetric G (side, side); y, c: (side, k) f32. */
export interface GramOperator {
  readonly side: number;
  shift: number;
  apply(alpha: number, y: Float32Array, k: number, beta: number, c: Float32Array): void;
}

/** A Gram matrix in memory; its diagonal holds the shift meanwhile. */
export function explicitGram(g: Float32Array, side: number, ops: MatrixOps): GramOperator {
  const diagonal = Float32Array.from({ length: side }, (_, i) => g[i * side + i]!);
  let shift = 0;
  return {
    side,
    get shift() {
      return shift;
    },
    set shift(value) {
      shift = value;
      for (let i = 0; i < side; i++) g[i * side + i] = diagonal[i]! - value;
    },
    apply: (alpha, y, k, beta, c) => ops.gemm(false, false, side, k, side, alpha, g, y, beta, c),
  };
}

/** W^T W, or W W^T where w (m, n) is wide, as two products. */
export function productGram(w: Float32Array, m: number, n: number, ops: MatrixOps): GramOperator {
  const tall = m >= n;
  const [long, side] = tall ? [m, n] : [n, m];
  return {
    side,
    shift: 0,
    apply(alpha, y, k, beta, c) {
      const t = floatBuffer(long * k, 'gram product');
      ops.gemm(!tall, false, long, k, side, 1, w, y, 0, t);
      ops.gemm(tall, false, side, k, long, alpha, w, t, beta, c);
      const back = alpha * this.shift;
      if (back !== 0) for (let i = 0; i < y.length; i++) c[i] = c[i]! - back * y[i]!;
    },
  };
}

/**
 * X (side, k), an orthonormal basis near the k leading eigenvectors of G; omega: the start, (side, k).
 *   X = Ritz vectors, c = smallest Ritz value;  Y_0 = X, Y_1 = 2/c G X - X, Y_j+1 = 4/c G Y_j - 2 Y_j - Y_j-1;  X = orth(Y_d)
 * Values below c stay within [-1, 1], a value c (1 + t) grows as exp(2 d sqrt(t)): a flat spectrum needs a fifth of the products
 * that powers of G need. Where the spectrum falls so steeply that f32 would not hold the filter, a plain power step is enough.
 */
export function gramSubspace(g: GramOperator, k: number, steps: number, omega: Float32Array, ops: MatrixOps): Float32Array {
  const { side } = g;
  const buffer = (use: string): Float32Array => floatBuffer(side * k, `subspace ${use}`);
  const [x, gx] = [buffer('x'), buffer('gx')];
  const filtered: [Float32Array, Float32Array] = [buffer('even'), buffer('odd')];
  g.apply(1, omega, k, 0, gx);
  conditionedBasis(gx, side, k, ops, x);
  let left = steps;
  if (steps > LEAST_FILTER) {
    // the first cutoff would be a poor one: a plain power step before it
    g.apply(1, x, k, 0, gx);
    conditionedBasis(gx, side, k, ops, x);
    left--;
  }
  while (left > 0) {
    g.apply(1, x, k, 0, gx);
    const { values, vectors } = eigh(symmetric(ops.multiply(true, false, k, k, side, x, gx), k), k, { blas: ops.blas });
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
    conditionedBasis(chebyshev(g, k, filtered, values[0]!, degree), side, k, ops, x);
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

/** T_d(2 G / c - 1) X in one of two buffers that come with Y_0 and Y_1. */
function chebyshev(g: GramOperator, k: number, [even, odd]: [Float32Array, Float32Array], c: number, degree: number): Float32Array {
  let [before, y] = [even, odd];
  g.shift = c / 2;
  for (let j = 1; j < degree; j++) {
    // 4/c (G - c/2) Y_j - Y_j-1
    g.apply(4 / c, y, k, -1, before);
    [before, y] = [y, before];
  }
  g.shift = 0;
  return y;
}

/** (H + H^T) / 2 in f64, for the f32 product h (k, k) of a symmetric matrix. */
export function symmetric(h: Float32Array, k: number): Float64Array {
  const out = new Float64Array(h);
  for (let i = 0; i < k; i++) for (let j = 0; j < i; j++) out[i * k + j] = out[j * k + i] = (h[i * k + j]! + h[j * k + i]!) / 2;
  return out;
}
