/**
 * The whole singular value decomposition in f64: LAPACK's dgesdd, or one-sided Jacobi rotations (Hestenes, 1958; stopping
 * rule of Demmel and Veselic, "Jacobi's Method is More Accurate than QR", 1992), meant for short sides up to about 1000.
 *
 *   rows p, q of B (k, long):  zeta = (q.q - p.p) / (2 p.q),  t = sign(zeta) / (|zeta| + sqrt(1 + zeta^2)),  rotate by atan t
 * until all rows are orthogonal: B = J A, so A = J^T diag(s) B', s_i the norms, B' the rows divided by them.
 */
import { PithError } from '../../core/errors.js';
import type { Blas } from '../backend/blas.js';
import { householderQ } from './qr.js';

export interface ExactSvd {
  /** (m, k), k = min(m, n), orthonormal columns; the largest entry of each is positive. */
  readonly u: Float64Array;
  /** k values, falling. */
  readonly s: Float64Array;
  /** (k, n), orthonormal rows. */
  readonly vt: Float64Array;
}

/** a: (m, n) row-major, finite (NOT_FINITE otherwise), left as it is. */
export function exactSvd(a: Float64Array, m: number, n: number, options: { readonly blas?: Blas | undefined } = {}): ExactSvd {
  if (!a.every(Number.isFinite)) throw new PithError('NOT_FINITE', { message: `(${m}, ${n})` });
  const k = Math.min(m, n);
  if (k === 0) return { u: new Float64Array(m * k), s: new Float64Array(0), vt: new Float64Array(k * n) };
  const { lapack } = options.blas ?? {};
  const [u, s, vt] = [new Float64Array(m * k), new Float64Array(k), new Float64Array(k * n)];
  // row-major A is column-major A^T = V S U^T: LAPACK's left vectors are the rows of vt, its right ones the rows of u
  if (lapack?.dgesdd(n, m, a.slice(), s, vt, u) === 0) return fixSigns({ u, s, vt }, m, n);
  return fixSigns(jacobiSvd(a, m, n), m, n);
}

/** Two rows are orthogonal when their cosine is below this. */
const ORTHOGONAL = 2 ** -52;
const MAX_SWEEPS = 40;
/** Rows shorter than this share of the longest are rounding: their direction is completed, not computed. */
const NULL_SHARE = 1e-15;

function jacobiSvd(a: Float64Array, m: number, n: number): ExactSvd {
  const tall = m >= n;
  const [long, k] = tall ? [m, n] : [n, m];
  // rows of b: columns of a tall matrix, rows of a wide one
  const b = tall ? transposed(a, m, n) : a.slice();
  const j = new Float64Array(k * k);
  for (let i = 0; i < k; i++) j[i * k + i] = 1;
  for (let sweep = 0; rotateAll(b, j, k, long); sweep++) {
    if (sweep === MAX_SWEEPS) throw new PithError('INTERNAL', { message: `the singular values of a (${m}, ${n}) matrix did not converge` });
  }
  const norms = Float64Array.from({ length: k }, (_, i) => rowNorm(b, i, long));
  const order = Array.from(norms.keys()).sort((x, y) => norms[y]! - norms[x]! || x - y);
  const s = Float64Array.from(order, (i) => norms[i]!);
  const [longRows, shortRows] = [new Float64Array(k * long), new Float64Array(k * k)];
  for (const [to, from] of order.entries()) {
    shortRows.set(j.subarray(from * k, (from + 1) * k), to * k);
    if (s[to]! > NULL_SHARE * s[0]!) for (let c = 0; c < long; c++) longRows[to * long + c] = b[from * long + c]! / s[to]!;
  }
  completeRows(longRows, k, long, s.filter((v) => v > NULL_SHARE * s[0]!).length);
  return tall ? { u: transposed(longRows, k, long), s, vt: shortRows } : { u: transposed(shortRows, k, k), s, vt: longRows };
}

/** Norm of row i, scaled so that no square overflows. */
function rowNorm(b: Float64Array, i: number, long: number): number {
  let top = 0;
  for (let c = i * long; c < (i + 1) * long; c++) top = Math.max(top, Math.abs(b[c]!));
  if (top === 0) return 0;
  let sum = 0;
  for (let c = i * long; c < (i + 1) * long; c++) sum += (b[c]! / top) ** 2;
  return top * Math.sqrt(sum);
}

/** One sweep over all pairs of rows; false when nothing was left to rotate. */
function rotateAll(b: Float64Array, j: Float64Array, k: number, long: number): boolean {
  let rotated = false;
  for (let p = 0; p < k - 1; p++) {
    for (let q = p + 1; q < k; q++) {
      let [pp, qq, pq] = [0, 0, 0];
      for (let x = p * long, y = q * long, c = 0; c < long; c++, x++, y++) {
        pp += b[x]! * b[x]!;
        qq += b[y]! * b[y]!;
        pq += b[x]! * b[y]!;
      }
      if (pq === 0 || Math.abs(pq) <= long * ORTHOGONAL * Math.sqrt(pp) * Math.sqrt(qq)) continue;
      rotated = true;
      const zeta = (qq - pp) / (2 * pq);
      const t = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.hypot(1, zeta));
      const cos = 1 / Math.hypot(1, t);
      rotate(b, p * long, q * long, long, cos, cos * t);
      rotate(j, p * k, q * k, k, cos, cos * t);
    }
  }
  return rotated;
}

function rotate(a: Float64Array, x: number, y: number, count: number, cos: number, sin: number): void {
  for (let c = 0; c < count; c++, x++, y++) {
    const [p, q] = [a[x]!, a[y]!];
    a[x] = cos * p - sin * q;
    a[y] = sin * p + cos * q;
  }
}

/** Rows [rank, k) become orthonormal to the first `rank`. */
function completeRows(rows: Float64Array, k: number, long: number, rank: number): void {
  if (rank === k) return;
  const q = householderQ(transposed(rows, k, long), long, k);
  for (let i = rank; i < k; i++) for (let c = 0; c < long; c++) rows[i * long + c] = q[c * k + i]!;
}

/** a: (rows, columns) -> (columns, rows) */
function transposed(a: Float64Array, rows: number, columns: number): Float64Array {
  const out = new Float64Array(a.length);
  for (let i = 0; i < rows; i++) for (let c = 0; c < columns; c++) out[c * rows + i] = a[i * columns + c]!;
  return out;
}

function fixSigns({ u, s, vt }: ExactSvd, m: number, n: number): ExactSvd {
  const k = s.length;
  for (let i = 0; i < k; i++) {
    let top = 0;
    for (let r = 0; r < m; r++) if (Math.abs(u[r * k + i]!) > Math.abs(top)) top = u[r * k + i]!;
    if (top >= 0) continue;
    for (let r = 0; r < m; r++) u[r * k + i] = -u[r * k + i]!;
    for (let c = 0; c < n; c++) vt[i * n + c] = -vt[i * n + c]!;
  }
  return { u, s, vt };
}
