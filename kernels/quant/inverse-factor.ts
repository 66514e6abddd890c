/**
 * The factor that error feedback reads ("GPTQ", Frantar et al., 2022, arXiv 2210.17323, step 3): upper triangular U with
 *   U^T U = (H + d mean(diag H) I)^-1
 * With J the reversal of rows, J (H + ..) J = L L^T gives U = J L^-1 J: one Cholesky factorization and one triangular inverse.
 */
import { PithError } from '../../core/errors.js';
import { cholesky, invertLower } from '../linalg/cholesky.js';
import type { MatrixOps } from '../linalg/matrix-ops.js';

export interface InverseFactor {
  /** (n, n) row-major, zeros below the diagonal. */
  readonly u: Float32Array;
  /** What it took, as a share of the mean of the diagonal. */
  readonly damping: number;
}

/** Added to the damping when the matrix does not factor (GPTQModel), twice as much each time. */
const STEP = 0.01;

/** h: (n, n) symmetric, left as it is. NOT_FINITE (65) when it is not finite or far from positive semidefinite. */
export function inverseFactor(h: ArrayLike<number>, n: number, damping: number, ops: MatrixOps): InverseFactor {
  let mean = 0;
  for (let i = 0; i < n; i++) mean += h[i * (n + 1)]! / n;
  if (!Number.isFinite(mean) || mean < 0) throw new PithError('NOT_FINITE', { message: `a Gram matrix (${n}, ${n})` });
  const unit = mean > 0 ? mean : 1;
  for (let [d, step] = [damping, STEP]; ; [d, step] = [d + step, 2 * step]) {
    const inverse = reversedInverse(h, n, d * unit, ops);
    if (inverse !== undefined) return { u: Float32Array.from(inverse).reverse(), damping: d };
    if (d > 1) throw new PithError('NOT_FINITE', { message: `a Gram matrix (${n}, ${n}) is not positive semidefinite` });
  }
}

/** L^-1, lower triangular; undefined when the matrix is not positive definite. */
function reversedInverse(h: ArrayLike<number>, n: number, shift: number, ops: MatrixOps): Float64Array | undefined {
  const a = Float64Array.from(h).reverse();
  for (let i = 0; i < n; i++) a[i * (n + 1)] = a[i * (n + 1)]! + shift;
  const lapack = ops.blas?.lapack;
  if (lapack === undefined) {
    const l = cholesky(a, n);
    return l === undefined ? undefined : invertLower(l, n);
  }
  // the upper triangle by columns is the lower one by rows
  if (lapack.dpotrf('U', n, a, n) !== 0 || lapack.dtrtri('U', n, a, n) !== 0) return undefined;
  for (let i = 0; i < n; i++) a.fill(0, i * n + i + 1, (i + 1) * n);
  for (let i = 0; i < n; i++) if (!Number.isFinite(a[i * (n + 1)]!)) return undefined;
  return a;
}
