/**
 * Inverses of damped covariances, in place, f32 or f64 by the array: LAPACK, or TypeScript in f64 where there is none.
 * A matrix that does not factor is damped more, tenfold each time.
 */
import { PithError } from '../../core/errors.js';
import { invertLower } from './cholesky.js';
import { factorLower, invertFactor } from './lower-factor.js';
import { mirror, type MatrixOps, type Real } from './matrix-ops.js';

/** Where damping begins when none was asked for and the matrix needs it. */
const LEAST = { f32: 1e-6, f64: 1e-10 } as const;
/** Rounding takes far less: beyond it the matrix is no covariance. */
const MOST = 1e3;

/**
 * a: (n, n) symmetric, becomes the upper U, row-major, with U^T U = (A + d mean(diag A) I)^-1; what is below its diagonal has no meaning.
 * With J the reversal of rows and columns, J A J = L L^T gives U = J L^-1 J: one factorization and one triangular inverse, and an error
 * of the square root of the condition number, where inverting A and factoring that costs twice as much and squares it. Answers d.
 */
export function inverseFactor(a: Real, n: number, damping: number, ops: MatrixOps): number {
  a.reverse();
  const d = factorDamped(a, n, damping, ops);
  invertFactor(a, n, ops);
  a.reverse();
  requireInverse(a, n);
  return d;
}

/** a: (n, n) symmetric, becomes (A + d mean(diag A) I)^-1, both triangles. Answers d. */
export function invertDamped(a: Real, n: number, damping: number, ops: MatrixOps): number {
  const d = factorDamped(a, n, damping, ops);
  const lapack = ops.blas?.lapack;
  if (lapack !== undefined) {
    lapack.potri('U', n, a);
    mirrorLower(a, n);
  } else {
    const inverse = invertLower(new Float64Array(a), n);
    a.set(ops.multiply64(true, false, n, n, n, inverse, inverse));
  }
  requireInverse(a, n);
  return d;
}

/** The lower factor L, row-major, over the lower triangle of a; the strictly upper one stays. */
function factorDamped(a: Real, n: number, damping: number, ops: MatrixOps): number {
  const diagonal = Float64Array.from({ length: n }, (_, i) => a[i * n + i]!);
  const mean = diagonal.reduce((sum, v) => sum + v, 0) / Math.max(1, n);
  const unit = mean > 0 ? mean : 1;
  const least = a instanceof Float32Array ? LEAST.f32 : LEAST.f64;
  for (let d = damping; ; d = Math.max(least, 10 * d)) {
    for (let i = 0; i < n; i++) a[i * n + i] = diagonal[i]! + d * unit;
    if (factorLower(a, n, ops)) return d;
    if (!(d < MOST)) throw new PithError('NOT_FINITE', { message: `a Gram matrix (${n}, ${n}) is not positive semidefinite` });
    mirror(a, n);
  }
}

/** Lower triangle -> upper: as `mirror` does of the reversed matrix, in place. */
function mirrorLower(a: Real, n: number): void {
  a.reverse();
  mirror(a, n);
  a.reverse();
}

function requireInverse(a: Real, n: number): void {
  for (let i = 0; i < n; i++) {
    if (!Number.isFinite(a[i * n + i]!)) throw new PithError('NOT_FINITE', { message: `the inverse of a Gram matrix (${n}, ${n})` });
  }
}
