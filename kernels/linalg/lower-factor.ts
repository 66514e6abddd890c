/** Cholesky factors and their triangular inverses in place, f32 or f64 by the array: LAPACK, or TypeScript in f64 where there is none. */
import { cholesky, invertLower } from './cholesky.js';
import type { MatrixOps, Real } from './matrix-ops.js';

/** a: (n, n) symmetric; its lower factor L, row-major, comes over the lower triangle, the strictly upper one stays. false: not positive definite. */
export function factorLower(a: Real, n: number, ops: MatrixOps): boolean {
  const lapack = ops.blas?.lapack;
  // the upper triangle by columns is the lower one by rows
  if (lapack !== undefined) return lapack.potrf('U', n, a) === 0 && Number.isFinite(a[n * n - 1] ?? 0);
  const l = cholesky(new Float64Array(a), n);
  if (l === undefined) return false;
  for (let i = 0; i < n; i++) a.set(l.subarray(i * n, i * n + i + 1), i * n);
  return true;
}

/** L^-1 over the lower triangle; what is above the diagonal has no meaning. false: L is singular. */
export function invertFactor(a: Real, n: number, ops: MatrixOps): boolean {
  const lapack = ops.blas?.lapack;
  if (lapack !== undefined) return lapack.trtri('U', n, a) === 0;
  a.set(invertLower(new Float64Array(a), n));
  return true;
}

/** Zeros above the diagonal. */
export function clearUpper(a: Real, n: number): void {
  for (let i = 0; i < n; i++) a.fill(0, i * n + i + 1, (i + 1) * n);
}
