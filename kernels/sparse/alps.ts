/**
 * ALPS (Meng et al., 2024, https://arxiv.org/abs/2406.07831): ADMM with the l0 projection in every iteration and a penalty rho that grows as
 * the support settles, so that one eigendecomposition serves every rho; then conjugate gradients on the support.
 */
import { eigh32 } from '../linalg/eigh.js';
import type { MatrixOps } from '../linalg/matrix-ops.js';
import { damp, precondition, undo } from './admm.js';
import { clearColumns, dropDeadInputs } from './dead-inputs.js';
import { polish } from './masked-cg.js';
import { MAGNITUDE, Selector } from './select.js';
import { removedCount, type Sparsity } from './sparsity.js';
import { gatherSum, scaleDual, solveSplit, startSplitting, type ApplyInverse, type Splitting } from './splitting.js';
import { wordsOf } from './top-k.js';

export interface AlpsOptions {
  readonly iterations: number;
  readonly damping: number;
  readonly cgSteps: number;
}

/** The authors' code: the first rho and its limit, how often the support is looked at, and by how much rho moves for what change of it. */
const RHO = { start: 0.1, most: 1e6, every: 3, raise: { much: 1.3, some: 1.2, little: 1.1 }, lower: 5 } as const;
/** Shares of the support that change. */
const CHANGE = { much: 0.1, some: 0.005, settled: 3e-4 } as const;
/** Not settled before. */
const LEAST_ITERATIONS = 30;

export interface AlpsResult {
  readonly mask: Uint8Array;
  readonly dead: number;
  readonly iterations: number;
  readonly rho: number;
}

/** w: (m, n) dense, becomes the sparse one; gram: (n, n), used up. */
export function solveAlps(
  w: Float32Array,
  gram: Float32Array,
  m: number,
  n: number,
  target: Sparsity,
  options: AlpsOptions,
  ops: MatrixOps,
  between: () => void,
): AlpsResult {
  const dead = dropDeadInputs(w, gram, m, n);
  damp(gram, n, options.damping);
  const d = precondition(w, gram, m, n);
  const { values, vectors } = eigh32(gram, n, { blas: ops.blas });
  const state = startSplitting(m, n, w, ops.multiply(false, false, m, n, n, w, gram));
  const selector = new Selector(MAGNITUDE);
  const project = (x: Float32Array): void => selector.select(wordsOf(x), m, n, target, state.mask);
  project(state.s);
  scaleDual(state, 0);
  const search = new PenaltySearch(state, m * n - removedCount(target, m, n));
  let done = 0;
  while (done < options.iterations && !search.ended) {
    solveSplit(state, search.rho, byEigenvectors(values, vectors, n, search.rho, ops), between);
    gatherSum(state);
    project(state.s);
    if (++done % RHO.every === 0) search.look(done);
  }
  project(w);
  polish(w, state.t, state.mask, gram, m, n, options.cgSteps, ops, between);
  undo(w, state.mask, d, m, n);
  clearColumns(w, dead, m, n);
  return { mask: state.mask, dead: dead.length, iterations: done, rho: search.rho };
}

/** R Q diag(1 / (l + rho)) Q^T; vectors: rows of Q^T. */
function byEigenvectors(values: Float32Array, vectors: Float32Array, n: number, rho: number, ops: MatrixOps): ApplyInverse {
  const scale = values.map((l) => 1 / (Math.max(0, l) + rho));
  return (r, rows, out) => {
    const rotated = ops.multiply(false, true, rows, n, n, r, vectors);
    for (let at = 0; at < rotated.length; at += n) for (let j = 0; j < n; j++) rotated[at + j] = rotated[at + j]! * scale[j]!;
    ops.gemm(false, false, rows, n, n, 1, rotated, vectors, 0, out);
  };
}

/** rho by how much of the support changed since the last look; before it was ever raised it is lowered instead, from the start again. */
class PenaltySearch {
  rho: number = RHO.start;
  ended = false;
  #before: Uint8Array;
  /** What to start again from; given up with the first raise. */
  #first: { readonly s: Float32Array; readonly mask: Uint8Array } | undefined;

  constructor(
    private readonly state: Splitting,
    private readonly kept: number,
  ) {
    this.#before = state.mask.slice();
    this.#first = { s: state.s.slice(), mask: this.#before };
  }

  look(iterations: number): void {
    const { mask, s } = this.state;
    let changed = 0;
    for (let i = 0; i < mask.length; i++) if (mask[i] !== this.#before[i]) changed++;
    const share = changed / Math.max(1, this.kept);
    const raise = share > CHANGE.much ? RHO.raise.much : share > CHANGE.some ? RHO.raise.some : this.#first === undefined ? RHO.raise.little : 0;
    this.#before = mask.slice();
    if (changed === 0 && this.#first === undefined) this.ended = true;
    else if (raise > 0) {
      this.#first = undefined;
      this.#change(Math.min(RHO.most, this.rho * raise));
    } else {
      this.#change(this.rho / RHO.lower);
      if (changed > 0 && this.#first !== undefined) {
        s.set(this.#first.s);
        mask.set(this.#first.mask);
      }
    }
    if (iterations >= LEAST_ITERATIONS && share < CHANGE.settled) this.ended = true;
  }

  #change(rho: number): void {
    scaleDual(this.state, this.rho / rho);
    this.rho = rho;
  }
}
