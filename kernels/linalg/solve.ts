/** Linear systems in f64: triangular, symmetric positive definite, least squares. Right-hand sides are row-major, rows worked as vectors. */
import { cholesky } from './cholesky.js';

/** Solves L X = B in place, or L^T X = B with `transpose`. l: (n, n) lower triangular, b: (n, columns). */
export function solveLower(l: Float64Array, n: number, b: Float64Array, columns: number, transpose = false): void {
  for (let step = 0; step < n; step++) {
    const i = transpose ? n - 1 - step : step;
    const row = i * columns;
    const scale = 1 / l[i * n + i]!;
    for (let c = 0; c < columns; c++) b[row + c] = b[row + c]! * scale;
    // what row i owes to the rows not yet solved
    for (let rest = step + 1; rest < n; rest++) {
      const r = transpose ? n - 1 - rest : rest;
      subtractRow(b, r * columns, row, columns, transpose ? l[i * n + r]! : l[r * n + i]!);
    }
  }
}

function subtractRow(b: Float64Array, to: number, from: number, columns: number, factor: number): void {
  if (factor === 0) return;
  for (let c = 0; c < columns; c++) b[to + c] = b[to + c]! - factor * b[from + c]!;
}

/** X with A X = B for a symmetric positive definite (n, n), b: (n, columns); undefined when A is not positive definite. */
export function solveSpd(a: Float64Array, n: number, b: Float64Array, columns: number): Float64Array | undefined {
  const l = cholesky(a, n);
  if (l === undefined) return undefined;
  const x = b.slice();
  solveLower(l, n, x, columns);
  solveLower(l, n, x, columns, true);
  return x;
}

/** Columns of R below this share of the longest column are dependent on those before. */
const DEPENDENT = 1e-13;

/**
 * X (n, columns) that minimizes ||A X - B||_F for a: (m, n), m >= n, b: (m, columns), by Householder reflections (error cond(A),
 * not its square); undefined when the columns of A are linearly dependent or not finite.
 */
export function leastSquares(a: Float64Array, m: number, n: number, b: Float64Array, columns: number): Float64Array | undefined {
  // [A B] as rows, one per column, so that every inner loop is contiguous
  const rows = transposed(a, m, n);
  const right = transposed(b, m, columns);
  const diagonal = new Float64Array(n);
  let longest = 0;
  for (let j = 0; j < n; j++) longest = Math.max(longest, norm(rows, j * m, (j + 1) * m));
  if (!(longest > 0 && longest < Infinity)) return n === 0 ? new Float64Array(0) : undefined;
  // A / longest: no square overflows or vanishes
  for (let i = 0; i < rows.length; i++) rows[i] = rows[i]! / longest;
  for (let j = 0; j < n; j++) {
    const length = norm(rows, j * m + j, (j + 1) * m);
    if (!(length > DEPENDENT)) return undefined;
    const alpha = rows[j * m + j]! > 0 ? -length : length;
    // v = x - alpha e_1 in place, |v|^2 = 2 alpha (alpha - x_1)
    const half = alpha * (alpha - rows[j * m + j]!);
    rows[j * m + j] = rows[j * m + j]! - alpha;
    diagonal[j] = alpha;
    for (let c = j + 1; c < n; c++) reflect(rows, c * m, rows, j, m, half);
    for (let c = 0; c < columns; c++) reflect(right, c * m, rows, j, m, half);
  }
  // R X = Q^T B
  const x = new Float64Array(n * columns);
  for (let c = 0; c < columns; c++) {
    for (let i = n - 1; i >= 0; i--) {
      let sum = right[c * m + i]!;
      for (let j = i + 1; j < n; j++) sum -= rows[j * m + i]! * x[j * columns + c]!;
      x[i * columns + c] = sum / diagonal[i]!;
    }
  }
  return x.map((v) => v / longest);
}

/** target[at..] -= v (v^T target) / half, v = rows[j, j..] */
function reflect(target: Float64Array, at: number, rows: Float64Array, j: number, m: number, half: number): void {
  let dot = 0;
  for (let i = j; i < m; i++) dot += rows[j * m + i]! * target[at + i]!;
  dot /= half;
  for (let i = j; i < m; i++) target[at + i] = target[at + i]! - dot * rows[j * m + i]!;
}

/** Scaled, so that no square overflows or vanishes. */
function norm(a: Float64Array, from: number, to: number): number {
  let top = 0;
  for (let i = from; i < to; i++) top = Math.max(top, Math.abs(a[i]!));
  if (!(top > 0)) return top;
  let sum = 0;
  for (let i = from; i < to; i++) sum += (a[i]! / top) ** 2;
  return top * Math.sqrt(sum);
}

/** a: (rows, columns) -> (columns, rows) */
function transposed(a: Float64Array, rows: number, columns: number): Float64Array {
  const out = new Float64Array(a.length);
  for (let i = 0; i < rows; i++) for (let c = 0; c < columns; c++) out[c * rows + i] = a[i * columns + c]!;
  return out;
}
