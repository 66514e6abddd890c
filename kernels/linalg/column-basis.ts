/**
 * Orthonormal basis of the directions that the columns of a tall matrix really have: CholeskyQR2, and where the Gram matrix
 * is (nearly) singular its eigenvectors, the directions that are rounding noise left out. In f64; no Householder pass, whose
 * time would be a hundred times that of the products.
 */
import { PithError } from '../../core/errors.js';
import { cholesky, invertLower } from './cholesky.js';
import { eigh } from './eigh.js';
import type { MatrixOps } from './matrix-ops.js';

export interface ColumnBasis {
  /** (rows, k) orthonormal columns. */
  readonly q: Float64Array;
  readonly k: number;
}

export interface ColumnBasisOptions {
  /** (rows, width) orthonormal columns that the basis shall be orthogonal to. */
  readonly against?: Float64Array;
  readonly width?: number;
  /** Largest k; the strongest directions are kept. */
  readonly most?: number;
}

/** Largest span of diag(R) for one pass (error cond^2 2^-53, 4e-11 measured at worst: far below the rounding to f32); and for two. */
const ONE_PASS_SPAN = 1e2;
const TWO_PASS_SPAN = 1e6;
/** Directions of y below this share of its largest are rounding of f32. */
const NOISE = 1e-6;

/** y: (rows, k), finite (NOT_FINITE otherwise), changed when `against` is given. */
export function columnBasis(y: Float64Array, rows: number, k: number, ops: MatrixOps, options: ColumnBasisOptions = {}): ColumnBasis {
  const { against, width = 0, most = Infinity } = options;
  const scale = Math.sqrt(largestColumn(y, k));
  if (!Number.isFinite(scale)) throw new PithError('NOT_FINITE', { message: `a product of ${rows} rows overflows` });
  if (scale === 0) return { q: new Float64Array(0), k: 0 };
  if (against === undefined || width === 0) return most < k ? strongest(y, rows, k, scale, most, ops) : basisOf(y, rows, k, scale, ops);
  // twice: the first projection leaves rounding of the part that it takes away
  project(y, against, rows, k, width, ops);
  const first = most < k ? strongest(y, rows, k, scale, most, ops) : basisOf(y, rows, k, scale, ops);
  if (first.k === 0) return first;
  project(first.q, against, rows, first.k, width, ops);
  return basisOf(first.q, rows, first.k, 1, ops);
}

/** y -= A A^T y */
function project(y: Float64Array, a: Float64Array, rows: number, k: number, width: number, ops: MatrixOps): void {
  const inside = ops.multiply64(false, false, rows, k, width, a, ops.multiply64(true, false, width, k, rows, a, y));
  for (let i = 0; i < y.length; i++) y[i] = y[i]! - inside[i]!;
}

/** Squared norm of the longest column. */
function largestColumn(y: Float64Array, k: number): number {
  const sums = new Float64Array(k);
  for (let i = 0; i < y.length; i += k) for (let j = 0; j < k; j++) sums[j] = sums[j]! + y[i + j]! * y[i + j]!;
  return Math.max(0, ...sums);
}

/** R^T R = Y^T Y, Q = Y R^-1, twice unless one pass keeps enough digits. */
function basisOf(y: Float64Array, rows: number, k: number, scale: number, ops: MatrixOps): ColumnBasis {
  const gram = ops.multiply64(true, false, k, k, rows, y, y);
  const l = cholesky(gram, k);
  if (l === undefined) return fromEigen(gram, y, rows, k, scale, k, ops);
  let [low, high] = [Infinity, 0];
  for (let i = 0; i < k; i++) [low, high] = [Math.min(low, l[i * k + i]!), Math.max(high, l[i * k + i]!)];
  if (high > TWO_PASS_SPAN * low || low < NOISE * scale) return fromEigen(gram, y, rows, k, scale, k, ops);
  // Q = Y L^-T
  const q = ops.multiply64(false, true, rows, k, k, y, invertLower(l, k));
  return high < ONE_PASS_SPAN * low ? { q, k } : { q: secondPass(q, rows, k, ops), k };
}

function strongest(y: Float64Array, rows: number, k: number, scale: number, most: number, ops: MatrixOps): ColumnBasis {
  return fromEigen(ops.multiply64(true, false, k, k, rows, y, y), y, rows, k, scale, most, ops);
}

/** Y^T Y = V diag(l) V^T, Q = Y V l^-1/2 over l > (noise scale)^2, then a CholeskyQR pass. */
function fromEigen(gram: Float64Array, y: Float64Array, rows: number, k: number, scale: number, most: number, ops: MatrixOps): ColumnBasis {
  const { values, vectors } = eigh(gram, k, { blas: ops.blas });
  let first = Math.max(0, k - most);
  while (first < k && !(Math.sqrt(Math.max(0, values[first]!)) > NOISE * scale)) first++;
  const kept = k - first;
  if (kept === 0) return { q: new Float64Array(0), k: 0 };
  const scaled = vectors.slice(first * k);
  for (let i = 0; i < kept; i++) for (let j = 0; j < k; j++) scaled[i * k + j] = scaled[i * k + j]! / Math.sqrt(values[first + i]!);
  return { q: secondPass(ops.multiply64(false, true, rows, kept, k, y, scaled), rows, kept, ops), k: kept };
}

/** q: nearly orthonormal. */
function secondPass(q: Float64Array, rows: number, k: number, ops: MatrixOps): Float64Array {
  const l = cholesky(ops.multiply64(true, false, k, k, rows, q, q), k);
  return l === undefined ? q : ops.multiply64(false, true, rows, k, k, q, invertLower(l, k));
}
