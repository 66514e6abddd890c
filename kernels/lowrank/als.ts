/**
 * Low-rank factors by alternating least squares, for matrices of which only some entries are known, or with ridges on the factors
 * (Lu, "Low-Rank Approximation, Adaptation, and Other Tales", 2024, arXiv 2408.05883):
 *   min ||M o (A - W Z)||_F^2 + lw ||W||_F^2 + lz ||Z||_F^2,   Z = (W^T W + lz I)^-1 W^T A,   W = A Z^T (Z Z^T + lw I)^-1
 * With a mask each column (row) is solved over what is known of it. No half step raises the loss; without mask and ridges it ends at the truncated SVD.
 */
import type { Rng } from '../../core/rng.js';
import { dampedCholesky, choleskySolve } from '../linalg/cholesky.js';
import { transposed64, transposedBytes, type MatrixOps } from '../linalg/matrix-ops.js';

export interface AlsOptions {
  readonly rank: number;
  readonly sweeps: number;
  readonly ops: MatrixOps;
  readonly rng: Rng;
  /** lw and lz */
  readonly ridge?: readonly [left: number, right: number];
  /** (m, n): 1 where A is known; everywhere by default. */
  readonly known?: Uint8Array;
}

export interface AlsFactors {
  /** (m, rank) */
  readonly left: Float64Array;
  /** (rank, n) */
  readonly right: Float64Array;
  /** The loss after every half step. */
  readonly losses: Float64Array;
}

/** a: (m, n), finite where it is known. */
export function alternatingLeastSquares(a: Float64Array, m: number, n: number, options: AlsOptions): AlsFactors {
  const { rank, sweeps, ops, known, ridge: [lw, lz] = [0, 0] } = options;
  const at = transposed64(a, m, n);
  const knownT = known && transposedBytes(known, m, n);
  let left: Float64Array = new Float64Array(options.rng.normals(m * rank));
  let right: Float64Array = new Float64Array(rank * n);
  const losses = new Float64Array(2 * sweeps);
  for (let sweep = 0; sweep < sweeps; sweep++) {
    // both halves solve for rows: Z^T from W, then W from Z^T
    const rightT = solveRows(at, n, m, left, rank, lz, ops, knownT);
    losses[2 * sweep] = loss(a, m, n, left, rightT, options);
    left = solveRows(a, m, n, rightT, rank, lw, ops, known);
    losses[2 * sweep + 1] = loss(a, m, n, left, rightT, options);
    right = transposed64(rightT, n, rank);
  }
  return { left, right, losses };
}

/** X (rows, r) with X F^T ~ a, F: (columns, r), row by row. */
function solveRows(
  a: Float64Array,
  rows: number,
  columns: number,
  f: Float64Array,
  r: number,
  ridge: number,
  ops: MatrixOps,
  known?: Uint8Array,
): Float64Array {
  if (known === undefined) {
    const x = transposed64(ops.multiply64(false, false, rows, r, columns, a, f), rows, r);
    choleskySolve(factor(ops.multiply64(true, false, r, r, columns, f, f), r, ridge), r, x, rows);
    return transposed64(x, r, rows);
  }
  const x = new Float64Array(rows * r);
  for (let i = 0; i < rows; i++) {
    const seen = [...known.subarray(i * columns, (i + 1) * columns).keys()].filter((j) => known[i * columns + j] === 1);
    const part = Float64Array.from(seen.flatMap((j) => [...f.subarray(j * r, (j + 1) * r)]));
    const values = Float64Array.from(seen, (j) => a[i * columns + j]!);
    const solved = ops.multiply64(true, false, r, 1, seen.length, part, values);
    choleskySolve(factor(ops.multiply64(true, false, r, r, seen.length, part, part), r, ridge), r, solved, 1);
    x.set(solved, i * r);
  }
  return x;
}

/** Lower factor of G + ridge I; a little more where G is singular. */
function factor(g: Float64Array, r: number, ridge: number): Float64Array {
  for (let k = 0; k < r; k++) g[k * r + k] = g[k * r + k]! + ridge;
  return dampedCholesky(g, r, 0).l;
}

function loss(
  a: Float64Array,
  m: number,
  n: number,
  left: Float64Array,
  rightT: Float64Array,
  { rank, ops, known, ridge: [lw, lz] = [0, 0] }: AlsOptions,
): number {
  const product = ops.multiply64(false, true, m, n, rank, left, rightT);
  let sum = 0;
  for (let i = 0; i < a.length; i++) if (known === undefined || known[i] === 1) sum += (a[i]! - product[i]!) ** 2;
  const squares = (x: Float64Array): number => x.reduce((s, v) => s + v * v, 0);
  return sum + lw * squares(left) + lz * squares(rightT);
}
