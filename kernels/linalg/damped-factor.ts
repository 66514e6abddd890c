/** Lower Cholesky factor of a covariance, damped as little as it takes. */
import { PithError } from '../../core/errors.js';
import { clearUpper, factorLower } from './lower-factor.js';
import type { MatrixOps } from './matrix-ops.js';
import { solveLower } from './solve.js';

export interface DampedFactor {
  /** (n, n) row-major, zeros above the diagonal: L L^T = G + damping mean(diag G) I. */
  readonly l: Float64Array;
  /** What it took, as a share of the mean of the diagonal. */
  readonly damping: number;
}

/** The first damping that is tried for a matrix that is not positive definite; each next one is ten times as large. */
const FIRST_DAMPING = 1e-8;

/** g: (n, n) symmetric, finite (NOT_FINITE), left as it is. A matrix of zeros gives the identity. */
export function dampedFactor(g: Float32Array, n: number, damping: number, ops: MatrixOps): DampedFactor {
  let mean = 0;
  for (let i = 0; i < n; i++) mean += g[i * n + i]! / n;
  if (!g.every(Number.isFinite)) throw new PithError('NOT_FINITE', { message: `a statistic (${n}, ${n})` });
  const unit = mean > 0 ? mean : 1;
  for (let d = mean > 0 ? damping : 1; ; d = Math.max(FIRST_DAMPING, 10 * d)) {
    const l = lowerFactor(g, n, d * unit, ops);
    if (l !== undefined) return { l, damping: d };
    // rounding takes far less: G is no covariance
    if (d >= 1) throw new PithError('NOT_FINITE', { message: `a statistic (${n}, ${n}) is not positive semidefinite` });
  }
}

/** Of G + shift I; undefined when that is not positive definite. */
function lowerFactor(g: Float32Array, n: number, shift: number, ops: MatrixOps): Float64Array | undefined {
  const a = new Float64Array(g);
  for (let i = 0; i < n; i++) a[i * n + i] = a[i * n + i]! + shift;
  if (!factorLower(a, n, ops)) return undefined;
  clearUpper(a, n);
  return a.every(Number.isFinite) ? a : undefined;
}

/** Solves L^T X = B in place; b: (n, columns). */
export function solveTransposed(l: Float64Array, n: number, b: Float64Array, columns: number, ops: MatrixOps): void {
  if (ops.blas === undefined) solveLower(l, n, b, columns, true);
  else ops.blas.solveLowerTransposed(n, columns, l, b);
}
