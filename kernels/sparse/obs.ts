/**
 * SparseGPT's solver (Frantar, Alistarh, 2023, https://arxiv.org/abs/2301.00774): columns are pruned from left to right, and what the
 * pruned weights did is made up for by those to the right, as Optimal Brain Surgeon would.
 *
 *   err = w_i / U_ii for a pruned w_i;   w_j -= err U_ij for j > i   (H^-1 = U^T U, U upper)
 * Updates are lazy twice over: within a step of STEP columns row by row, over the rest of a block and over the rest of the matrix by GEMM.
 */
import type { MatrixOps, Real } from '../linalg/matrix-ops.js';
import { MAGNITUDE, Selector } from './select.js';
import type { Sparsity } from './sparsity.js';
import { wordsOf } from './top-k.js';

/** Columns within which rows are worked on their own. */
const STEP = 16;

export interface ObsProblem {
  readonly m: number;
  readonly n: number;
  /** (m, n), overwritten; +0 where it is pruned. */
  readonly w: Real;
  /** (n, n) row-major, upper triangle: see linalg/spd-inverse. */
  readonly u: Real;
  /** (m, n): 1 keeps. Given, or filled in by `target`. */
  readonly mask: Uint8Array;
  /** How the mask is chosen on the way; undefined: it is given. */
  readonly target: Sparsity | undefined;
  /** Columns of a block: a mask that is not N:M is chosen for all of a block at once, by w^2 / U_ii^2 (128 in the paper). */
  readonly block: number;
}

/** Answers sum err^2 / 2: what the removal costs of the layer's output, in the units of H. */
export function solveObs(p: ObsProblem, ops: MatrixOps, between: () => void): number {
  const { m, n, w, u } = p;
  const of = p.target?.group === 'n:m' ? p.target.of : 1;
  const step = of * Math.max(1, Math.floor(STEP / of));
  const width = Math.min(n, step * Math.max(1, Math.floor(p.block / step)));
  const make = (length: number): Real => (w instanceof Float32Array ? new Float32Array(length) : new Float64Array(length));
  const panel: Panel = { w: make(m * width), errors: make(m * width), mask: new Uint8Array(m * width), width };
  const triangle = make(step * step);
  const selector = new Selector(MAGNITUDE);
  let loss = 0;
  for (let from = 0; from < n; from += width) {
    between();
    const to = Math.min(n, from + width);
    takeColumns(p, panel, from, to);
    if (p.target !== undefined && p.target.group !== 'n:m') chooseBlock(p, panel, from, to, selector);
    for (let s = from; s < to; s += step) {
      const end = Math.min(to, s + step);
      for (let i = s; i < end; i++) for (let j = i; j < end; j++) triangle[(i - s) * step + j - s] = u[i * n + j]!;
      const groups = p.target?.group === 'n:m' ? p.target : undefined;
      loss += pruneRows(panel, m, s - from, end - from, triangle, step, groups);
      if (end < to) {
        const at = end - from;
        ops.panels(m, to - end, end - s, -1, panel.errors.subarray(s - from), width, u.subarray(s * n + end), n, 1, panel.w.subarray(at), width);
      }
    }
    if (to < n) ops.panels(m, n - to, to - from, -1, panel.errors, width, u.subarray(from * n + to), n, 1, w.subarray(to), n);
    putColumns(p, panel, from, to);
  }
  return loss / 2;
}

/** The columns of a block, packed: (m, width) row-major. */
interface Panel {
  readonly w: Real;
  readonly errors: Real;
  readonly mask: Uint8Array;
  readonly width: number;
}

function takeColumns({ m, n, w, mask }: ObsProblem, panel: Panel, from: number, to: number): void {
  for (let r = 0; r < m; r++) {
    panel.w.set(w.subarray(r * n + from, r * n + to), r * panel.width);
    panel.mask.set(mask.subarray(r * n + from, r * n + to), r * panel.width);
  }
}

function putColumns({ m, n, w, mask }: ObsProblem, panel: Panel, from: number, to: number): void {
  for (let r = 0, at = 0; r < m; r++, at += panel.width) {
    w.set(panel.w.subarray(at, at + to - from), r * n + from);
    mask.set(panel.mask.subarray(at, at + to - from), r * n + from);
  }
}

/** The block's share of what goes: so much that the blocks up to here together have floor(ratio of their weights). */
function chooseBlock({ m, n, u, target }: ObsProblem, panel: Panel, from: number, to: number, selector: Selector): void {
  if (target === undefined || target.group === 'n:m') return;
  const { ratio, group } = target;
  const columns = to - from;
  const scores = new Float32Array(m * columns);
  for (let j = 0; j < columns; j++) {
    const scale = 1 / u[(from + j) * (n + 1)]!;
    for (let r = 0; r < m; r++) scores[r * columns + j] = Math.abs(panel.w[r * panel.width + j]! * scale);
  }
  const words = wordsOf(scores);
  const chosen = panel.width === columns ? panel.mask : new Uint8Array(m * columns);
  const rows = group === 'row' ? 1 : m;
  const count = Math.floor(ratio * rows * to) - Math.floor(ratio * rows * from);
  for (let r = 0; r < m; r += rows) selector.removeSmallest(words, r * columns, (r + rows) * columns, count, chosen);
  if (chosen !== panel.mask) for (let r = 0; r < m; r++) panel.mask.set(chosen.subarray(r * columns, (r + 1) * columns), r * panel.width);
}

/** Columns [from, to) of every row; answers sum err^2. `triangle`: U of those columns, rows `ld` long. */
function pruneRows(panel: Panel, m: number, from: number, to: number, triangle: Real, ld: number, groups: { keep: number; of: number } | undefined): number {
  const { w, errors, mask, width } = panel;
  const columns = to - from;
  let loss = 0;
  for (let r = 0, at = from; r < m; r++, at += width) {
    for (let i = 0; i < columns; i++) {
      if (groups !== undefined && i % groups.of === 0) chooseGroup(w, mask, at + i, i, columns, triangle, ld, groups);
      if (mask[at + i] !== 0) {
        errors[at + i] = 0;
        continue;
      }
      const err = w[at + i]! / triangle[i * ld + i]!;
      w[at + i] = 0;
      errors[at + i] = err;
      loss += err * err;
      for (let j = i + 1, t = i * ld + i + 1; j < columns; j++, t++) w[at + j] = w[at + j]! - err * triangle[t]!;
    }
  }
  return loss;
}

/** The mask of `of` columns from their weights as they are now; a tail that fills no group is kept. */
function chooseGroup(
  w: Real,
  mask: Uint8Array,
  at: number,
  i: number,
  columns: number,
  triangle: Real,
  ld: number,
  { keep, of }: { keep: number; of: number },
): void {
  if (i + of > columns) return void mask.fill(1, at, at + columns - i);
  for (let a = 0; a < of; a++) {
    const score = Math.abs(w[at + a]! / triangle[(i + a) * (ld + 1)]!);
    let below = 0;
    for (let b = 0; b < of; b++) {
      const other = Math.abs(w[at + b]! / triangle[(i + b) * (ld + 1)]!);
      if (other < score || (other === score && b < a)) below++;
    }
    mask[at + a] = below < of - keep ? 0 : 1;
  }
}
