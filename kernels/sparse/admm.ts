/**
 * Masked least squares by ADMM (Boza, 2024, https://arxiv.org/abs/2401.02938): one inverse, then a GEMM an iteration; the mask given, or
 * tightened over the first iterations from the scores |V + U|.
 */
import { invertDamped } from '../linalg/spd-inverse.js';
import type { MatrixOps } from '../linalg/matrix-ops.js';
import { clearColumns, dropDeadInputs } from './dead-inputs.js';
import { applyMask, MAGNITUDE, Selector } from './select.js';
import type { Sparsity } from './sparsity.js';
import { gatherSum, solveSplit, startSplitting } from './splitting.js';
import { wordsOf } from './top-k.js';

export interface AdmmOptions {
  readonly iterations: number;
  /** Iterations in which the mask tightens, by a cubic schedule. */
  readonly maskIterations: number;
  /** Added to the diagonal, as a share of its mean. */
  readonly damping: number;
}

/** rho of the augmented Lagrangian, in units of the preconditioned diagonal; of the paper. */
const RHO = 1;

/**
 * Unit diagonal: G becomes D^-1 G D^-1 and w W D, in place, D = diag(sqrt(G_jj)), or 1 where that is 0. Then |w_ij| is Wanda's score.
 * Answers D.
 */
export function precondition(w: Float32Array, gram: Float32Array, m: number, n: number): Float32Array {
  const d = Float32Array.from({ length: n }, (_, j) => Math.sqrt(Math.max(0, gram[j * (n + 1)]!)) || 1);
  const inverse = d.map((v) => 1 / v);
  for (let i = 0; i < n; i++) for (let j = 0, at = i * n; j < n; j++, at++) gram[at] = gram[at]! * inverse[i]! * inverse[j]!;
  for (let i = 0; i < m; i++) for (let j = 0, at = i * n; j < n; j++, at++) w[at] = w[at]! * d[j]!;
  return d;
}

/** w = V D^-1 where the mask is 1, else +0. */
export function undo(w: Float32Array, mask: Uint8Array, d: Float32Array, m: number, n: number): void {
  const inverse = d.map((v) => 1 / v);
  for (let i = 0; i < m; i++) for (let j = 0, at = i * n; j < n; j++, at++) w[at] = w[at]! * inverse[j]!;
  applyMask(w, mask);
}

/** A += damping mean(diag A) I, in place. */
export function damp(a: Float32Array, n: number, damping: number): void {
  let mean = 0;
  for (let i = 0; i < n; i++) mean += a[i * n + i]! / n;
  for (let i = 0; i < n; i++) a[i * n + i] = a[i * n + i]! + damping * mean;
}

export interface AdmmResult {
  readonly mask: Uint8Array;
  readonly dead: number;
  /** What had to be added to A + rho I for it to factor, as a share of its mean diagonal: 0 as a rule. */
  readonly raised: number;
}

/** w: (m, n) dense, becomes the sparse one; gram: (n, n), used up. `mask`: given, or what to choose. */
export function solveAdmm(
  w: Float32Array,
  gram: Float32Array,
  m: number,
  n: number,
  mask: Uint8Array | Sparsity,
  options: AdmmOptions,
  ops: MatrixOps,
  between: () => void,
): AdmmResult {
  const dead = dropDeadInputs(w, gram, m, n);
  const d = precondition(w, gram, m, n);
  damp(gram, n, options.damping);
  const state = startSplitting(m, n, w, ops.multiply(false, false, m, n, n, w, gram));
  for (let i = 0; i < n; i++) gram[i * n + i] = gram[i * n + i]! + RHO;
  const raised = invertDamped(gram, n, 0, ops);
  const refresh = mask instanceof Uint8Array ? undefined : gradualMask(mask, m, n, options.maskIterations);
  if (mask instanceof Uint8Array) state.mask.set(mask);
  const words = wordsOf(state.s);
  for (let t = 1; t <= options.iterations; t++) {
    if (t > 1) gatherSum(state);
    if (t <= options.maskIterations) refresh?.(t, words, state.mask);
    solveSplit(state, RHO, (r, rows, out) => ops.gemm(false, false, rows, n, n, 1, r, gram, 0, out), between);
  }
  undo(w, state.mask, d, m, n);
  clearColumns(w, dead, m, n);
  return { mask: state.mask, dead: dead.length, raised };
}

/**
 * p_t = p - p (1 - t / T)^3; exact at t = T. N:M: the N largest of a group always stay, and the floor(p_t n) smallest of each row's others
 * are gone so far.
 */
function gradualMask(target: Sparsity, m: number, n: number, last: number): (t: number, words: Uint32Array, mask: Uint8Array) => void {
  const selector = new Selector(MAGNITUDE);
  return (t, words, mask) => {
    const share = 1 - (1 - t / last) ** 3;
    if (t >= last) selector.select(words, m, n, target, mask);
    else if (target.group !== 'n:m') selector.select(words, m, n, { group: target.group, ratio: share * target.ratio }, mask);
    else {
      const row = new Uint32Array(n);
      const count = Math.floor(share * Math.floor(n / target.of) * (target.of - target.keep));
      for (let at = 0; at < m * n; at += n) {
        selector.removeInGroups(words, at, at + n, target.keep, target.of, mask, at);
        // what stays in any case compares as the largest
        for (let j = 0; j < n; j++) row[j] = mask[at + j] === 1 ? MAGNITUDE : words[at + j]!;
        selector.removeSmallest(row, 0, n, count, mask, at);
      }
    }
  };
}
