/**
 * GPTQ: "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", Elias Frantar, Saleh Ashkboos, Torsten
 * Hoefler, Dan Alistarh, 2022, arXiv 2210.17323.
 *
 *   U^T U = (H + d mean(diag H) I)^-1;  for each column i:  q_i = Q(w_i),  e_i = (w_i - q_i) / U_ii,  W[:, i+1:] -= e_i U[i, i+1:]
 *
 * What a column's grid is, is the caller's (ColumnGrid). The weight is worked on transposed, so that a column is contiguous; the errors
 * of a few columns go to the rest of their block by one product, those of a block to the rest of the matrix by another.
 */
import { transposed, type MatrixOps } from '../linalg/matrix-ops.js';
import { inverseFactor, type DampingShare } from './inverse-factor.js';

/** The values that columns may take. */
export interface ColumnGrid {
  /** Columns from whose current values parameters are fitted together; 1 when nothing is fitted on the way. */
  readonly group: number;
  /**
   * Before column `j`, the `at`-th in order, when `at` is a multiple of `group`: `columns` holds the current values of that one and of those
   * that follow it in the group, (count, m).
   */
  fit?(columns: Float32Array, j: number, at: number): void;
  /** q: what column j with the current values x (m) is stored as. */
  quantize(x: Float32Array, j: number, q: Float32Array, at: number): void;
}

export interface GptqOptions {
  readonly ops: MatrixOps;
  /** d: added to the diagonal, as a share of its mean; raised when H does not factor. */
  readonly damping: number;
  readonly dampingShare?: DampingShare;
  /** Columns in the order of falling H_jj instead of as they stand. */
  readonly actOrder?: boolean;
  /** Columns that come last in any order and keep their values, with the errors of the others added. */
  readonly kept?: readonly number[];
  /** What becomes of inputs that never fire: rounded by themselves, or zeros (as the release). Rounded by default. */
  readonly dead?: 'round' | 'zero';
  readonly checkpointCancel?: () => void;
}

export interface GptqResult {
  /** (m, n) quantized; kept columns in full precision. */
  readonly w: Float32Array;
  /** order[at] = column. */
  readonly order: Int32Array;
  readonly damping: number;
  readonly deadInputs: number;
}

const BLOCK = 128;
/** Columns whose errors are passed on one by one. */
const INNER = 16;

/** w: (m, n), h: (n, n) proportional to X^T X; both left as they are. NOT_FINITE (65). */
export function gptq(w: Float32Array, m: number, n: number, h: ArrayLike<number>, grid: ColumnGrid, options: GptqOptions): GptqResult {
  const kept = new Set(options.kept);
  const order = columnOrder(h, n, kept, options.actOrder === true);
  const wt = gathered(transposed(w, m, n), order, m);
  const ho = new Float64Array(n * n);
  let deadInputs = 0;
  for (let i = 0; i < n; i++) {
    const row = order[i]! * n;
    for (let j = 0; j < n; j++) ho[i * n + j] = h[row + order[j]!]!;
    if (ho[i * n + i] !== 0) continue;
    ho[i * n + i] = 1;
    deadInputs++;
    if (options.dead === 'zero') wt.fill(0, i * m, (i + 1) * m);
  }
  const { u, damping } = inverseFactor(ho, n, options.damping, options.ops, options.dampingShare);
  feedForward(wt, m, n, n - kept.size, u, order, grid, options);
  const back = new Float32Array(wt.length);
  for (let i = 0; i < n; i++) back.set(wt.subarray(i * m, (i + 1) * m), order[i]! * m);
  return { w: transposed(back, n, m), order, damping, deadInputs };
}

/** Kept columns last; ties as they stand. */
function columnOrder(h: ArrayLike<number>, n: number, kept: ReadonlySet<number>, byActivation: boolean): Int32Array {
  const order = Int32Array.from({ length: n }, (_, j) => j);
  const diagonal = (j: number): number => (byActivation ? h[j * (n + 1)]! : 0);
  return order.sort((a, b) => Number(kept.has(a)) - Number(kept.has(b)) || diagonal(b) - diagonal(a) || a - b);
}

function gathered(wt: Float32Array, order: Int32Array, m: number): Float32Array {
  const out = new Float32Array(wt.length);
  for (const [i, j] of order.entries()) out.set(wt.subarray(j * m, (j + 1) * m), i * m);
  return out;
}

/** Largest divisor of `count` up to `most`: groups begin where every earlier error has been passed on. */
function divisor(count: number, most: number): number {
  for (let d = Math.min(count, most); d > 1; d--) if (count % d === 0) return d;
  return 1;
}

/** wt: (n, m) in order; its first `last` rows become the quantized columns. */
function feedForward(wt: Float32Array, m: number, n: number, last: number, u: Float32Array, order: Int32Array, grid: ColumnGrid, o: GptqOptions): void {
  const { group } = grid;
  const block = group === 1 ? BLOCK : group <= BLOCK ? group * Math.floor(BLOCK / group) : group;
  const inner = group === 1 ? INNER : divisor(group, INNER);
  const errors = new Float32Array(block * m);
  const q = new Float32Array(m);
  for (let first = 0; first < last; first += block) {
    o.checkpointCancel?.();
    const end = Math.min(last, first + block);
    for (let part = first; part < end; part += inner) {
      const partEnd = Math.min(end, part + inner);
      for (let i = part; i < partEnd; i++) {
        const x = wt.subarray(i * m, (i + 1) * m);
        if (i % group === 0) grid.fit?.(wt.subarray(i * m, Math.min(last, i + group) * m), order[i]!, i);
        grid.quantize(x, order[i]!, q, i);
        const e = errors.subarray((i - first) * m, (i - first + 1) * m);
        const scale = 1 / u[i * n + i]!;
        for (let r = 0; r < m; r++) e[r] = (x[r]! - q[r]!) * scale;
        x.set(q);
        for (let j = i + 1; j < partEnd; j++) subtract(wt, j * m, e, u[i * n + j]!);
      }
      passOn(wt, m, u, n, part, partEnd, partEnd, end, errors.subarray((part - first) * m, (partEnd - first) * m), o.ops);
    }
    passOn(wt, m, u, n, first, end, end, n, errors.subarray(0, (end - first) * m), o.ops);
  }
}

function subtract(wt: Float32Array, at: number, e: Float32Array, factor: number): void {
  if (factor === 0) return;
  for (let r = 0; r < e.length; r++) wt[at + r] = wt[at + r]! - factor * e[r]!;
}

/** wt[from:to] -= U[first:end, from:to]^T E */
function passOn(
  wt: Float32Array,
  m: number,
  u: Float32Array,
  n: number,
  first: number,
  end: number,
  from: number,
  to: number,
  e: Float32Array,
  ops: MatrixOps,
): void {
  if (from >= to) return;
  const width = to - from;
  const part = new Float32Array((end - first) * width);
  for (let i = first; i < end; i++) part.set(u.subarray(i * n + from, i * n + to), (i - first) * width);
  ops.gemm(true, false, width, m, end - first, -1, part, e, 1, wt.subarray(from * m, to * m));
}
