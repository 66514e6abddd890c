/**
 * The best low-rank approximation where errors are weighted on both sides:
 *   min || P^T (W - A B) Q ||_F      (P P^T weighs rows, Q Q^T columns)
 * T = P^T W Q = U S V^T (Eckart and Young), A = P^-T U_r sqrt(S_r), B = sqrt(S_r) V_r^T Q^-1. Triangular systems are solved, nothing is inverted.
 *
 * In f64: S and the vectors of the short side from the eigenvectors of its Gram matrix, the long side as a product with T. So the error of rank r is
 * sqrt(sum_{i >= r} s_i^2) down to 1e-8 of s_1, whatever the condition of the weights.
 */
import { PithError } from '../../core/errors.js';
import { eigh } from '../linalg/eigh.js';
import { solveTransposed } from '../linalg/damped-factor.js';
import { transposed64, type MatrixOps } from '../linalg/matrix-ops.js';

/** How one side is weighted: not, by a positive number each, or by a lower triangular (n, n). */
export type Weighting =
  { readonly kind: 'none' } | { readonly kind: 'diagonal'; readonly d: Float64Array } | { readonly kind: 'lower'; readonly l: Float64Array };

export const UNWEIGHTED: Weighting = { kind: 'none' };

export interface WeightedSvd {
  /** min(m, n) values, falling. */
  readonly s: Float64Array;
  /** a: (m, rank), b: (rank, n); components beyond the matrix's own rank are zero. */
  readonly factors: (rank: number) => { readonly a: Float32Array; readonly b: Float32Array };
}

/** Components below this share of s_1 are rounding. */
const NOISE = 1e-7;

/** Host memory beside W and the weightings. */
export function weightedSvdBytes(m: number, n: number): number {
  const side = Math.min(m, n);
  // T and its source, or the factors in f64 and f32; Gram matrix, eigenvectors and LAPACK's workspace
  return 8 * (3 * m * n + 6 * side * side);
}

/** w: (m, n) f32, finite (NOT_FINITE), left as it is; rows: the weighting P of m, columns: Q of n. */
export function weightedSvd(w: Float32Array, m: number, n: number, rows: Weighting, columns: Weighting, ops: MatrixOps): WeightedSvd {
  const t = weighted(w, m, n, rows, columns, ops);
  const side = Math.min(m, n);
  const tall = m >= n;
  const gram = tall ? ops.multiply64(true, false, n, n, m, t, t) : ops.multiply64(false, true, m, m, n, t, t);
  if (!gram.every(Number.isFinite)) throw new PithError('NOT_FINITE', { message: `a weight (${m}, ${n})` });
  const { values, vectors } = eigh(gram, side, { blas: ops.blas });
  const s = Float64Array.from({ length: side }, (_, i) => Math.sqrt(Math.max(0, values[side - 1 - i]!)));
  return {
    s,
    factors(rank) {
      const r = Math.min(rank, s.filter((v) => v > NOISE * s[0]!).length);
      const short = leading(vectors, side, r);
      const roots = s.subarray(0, r).map(Math.sqrt);
      // (m, r) or (n, r): the long side's vectors times s; every one over, every short one times the root
      const long = tall ? ops.multiply64(false, true, m, r, n, t, short) : ops.multiply64(true, true, n, r, m, t, short);
      for (let i = 0; i < long.length; i++) long[i] = long[i]! / roots[i % r]!;
      const shortT = transposed64(short, r, side);
      for (let i = 0; i < shortT.length; i++) shortT[i] = shortT[i]! * roots[i % r]!;
      const [a, bT] = tall ? [long, shortT] : [shortT, long];
      undo(rows, a, m, r, ops);
      undo(columns, bT, n, r, ops);
      return { a: widened(a, m, r, rank), b: tallToRows(bT, n, r, rank) };
    },
  };
}

/** P^T W Q */
function weighted(w: Float32Array, m: number, n: number, rows: Weighting, columns: Weighting, ops: MatrixOps): Float64Array {
  let t = new Float64Array(w);
  if (columns.kind === 'lower') t = ops.multiply64(false, false, m, n, n, t, columns.l) as Float64Array<ArrayBuffer>;
  else if (columns.kind === 'diagonal') for (let i = 0; i < t.length; i++) t[i] = t[i]! * columns.d[i % n]!;
  if (rows.kind === 'lower') return ops.multiply64(true, false, m, n, m, rows.l, t);
  if (rows.kind === 'diagonal') for (let i = 0; i < t.length; i++) t[i] = t[i]! * rows.d[Math.floor(i / n)]!;
  return t;
}

/** The r leading eigenvectors as rows (r, side); the largest entry of each is positive, so that libraries agree. */
function leading(vectors: Float64Array, side: number, r: number): Float64Array {
  const out = new Float64Array(r * side);
  for (let k = 0; k < r; k++) {
    const row = vectors.subarray((side - 1 - k) * side, (side - k) * side);
    let top = 0;
    for (const v of row) if (Math.abs(v) > Math.abs(top)) top = v;
    for (let i = 0; i < side; i++) out[k * side + i] = top < 0 ? -row[i]! : row[i]!;
  }
  return out;
}

/** x (n, r) -> P^-T x, in place. */
function undo(weighting: Weighting, x: Float64Array, n: number, r: number, ops: MatrixOps): void {
  if (weighting.kind === 'lower') solveTransposed(weighting.l, n, x, r, ops);
  else if (weighting.kind === 'diagonal') for (let i = 0; i < x.length; i++) x[i] = x[i]! / weighting.d[Math.floor(i / r)]!;
}

/** (m, r) -> (m, rank), with columns of zeros */
function widened(a: Float64Array, m: number, r: number, rank: number): Float32Array {
  if (r === rank) return new Float32Array(a);
  const out = new Float32Array(m * rank);
  for (let i = 0; i < m; i++) out.set(a.subarray(i * r, (i + 1) * r), i * rank);
  return out;
}

/** (n, r) -> (rank, n), with rows of zeros */
function tallToRows(x: Float64Array, n: number, r: number, rank: number): Float32Array {
  const out = new Float32Array(rank * n);
  out.set(transposed64(x, n, r));
  return out;
}
