/**
 * The factor that error feedback reads ("GPTQ", Frantar et al., 2022, arXiv 2210.17323, step 3): upper triangular U with
 *   U^T U = (H + d mean(diag H) I)^-1, or (H + d diag H)^-1 where columns are of very different sizes
 * With J the reversal of rows, J (H + ..) J = L L^T gives U = J L^-1 J: one Cholesky factorization and one triangular inverse.
 */
import { PithError } from '../../core/errors.js';
import { clearUpper, factorLower, invertFactor } from '../linalg/lower-factor.js';
import type { MatrixOps } from '../linalg/matrix-ops.js';

export interface InverseFactor {
  /** (n, n) row-major, zeros below the diagonal. */
  readonly u: Float32Array;
  /** What it took, as a share of the mean of the diagonal. */
  readonly damping: number;
}

/** Added to the damping when the matrix does not factor (GPTQModel), twice as much each time. */
const STEP = 0.01;
/** A column's own share counts as at least this much of the mean. */
const LEAST = 1e-9;

/** What the damping is a share of: the mean of the diagonal, or each column's own place on it. */
export type DampingShare = 'mean' | 'own';

/** h: (n, n) symmetric, left as it is. NOT_FINITE (65) when it is not finite or far from positive semidefinite. */
export function inverseFactor(h: ArrayLike<number>, n: number, damping: number, ops: MatrixOps, share: DampingShare = 'mean'): InverseFactor {
  let mean = 0;
  for (let i = 0; i < n; i++) mean += h[i * (n + 1)]! / n;
  if (!Number.isFinite(mean) || mean < 0) throw new PithError('NOT_FINITE', { message: `a Gram matrix (${n}, ${n})` });
  const diagonal = Float64Array.from({ length: n }, (_, i) => (mean === 0 ? 1 : share === 'mean' ? mean : Math.max(h[i * (n + 1)]!, LEAST * mean)));
  for (let [d, step] = [damping, STEP]; ; [d, step] = [d + step, 2 * step]) {
    const inverse = reversedInverse(h, n, diagonal, d, ops);
    if (inverse !== undefined) return { u: Float32Array.from(inverse).reverse(), damping: d };
    if (d > 1) throw new PithError('NOT_FINITE', { message: `a Gram matrix (${n}, ${n}) is not positive semidefinite` });
  }
}

/** L^-1, lower triangular; undefined when the matrix is not positive definite. */
function reversedInverse(h: ArrayLike<number>, n: number, diagonal: Float64Array, damping: number, ops: MatrixOps): Float64Array | undefined {
  const a = Float64Array.from(h).reverse();
  for (let i = 0; i < n; i++) a[i * (n + 1)] = a[i * (n + 1)]! + damping * diagonal[n - 1 - i]!;
  if (!factorLower(a, n, ops) || !invertFactor(a, n, ops)) return undefined;
  clearUpper(a, n);
  for (let i = 0; i < n; i++) if (!Number.isFinite(a[i * (n + 1)]!)) return undefined;
  return a;
}
