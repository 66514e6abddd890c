/**
 * Low-rank factors from one pass over a matrix (generalized Nystrom: Nakatsukasa, "Fast and stable randomized low-rank matrix approximation", 2020,
 * arXiv 2009.11392):   Y = W Omega (m, k),  Z = Psi^T W (l, n), l = 1.5 k,  W ~ Y (Psi^T Y)^+ Z
 * Panels of rows are looked at once and forgotten. The error is a multiple of the randomized SVD's: for what cannot be read twice.
 */
import type { Rng } from '../../core/rng.js';
import type { MatrixOps } from './matrix-ops.js';
import { leastSquares } from './solve.js';

export interface OnePassFactors {
  /** (m, k) */
  readonly left: Float32Array;
  /** (k, n) */
  readonly right: Float32Array;
  readonly k: number;
}

/** Rows of the second sketch for a column of the first. */
const WIDER = 1.5;

export class OnePassSketch {
  readonly #omega: Float32Array;
  readonly #y: Float32Array;
  readonly #z: Float32Array;
  readonly #l: number;
  readonly #psi: Float32Array;

  /** A matrix of (m, n), sketched by k columns. */
  constructor(
    private readonly m: number,
    private readonly n: number,
    private readonly k: number,
    private readonly ops: MatrixOps,
    rng: Rng,
  ) {
    this.#l = Math.min(m, Math.ceil(WIDER * k));
    this.#omega = rng.fork('omega').normals(n * k);
    this.#psi = rng.fork('psi').normals(m * this.#l);
    this.#y = new Float32Array(m * k);
    this.#z = new Float32Array(this.#l * n);
  }

  /** Rows [start, start + rows) of the matrix; each is given once, in any order. */
  add(panel: Float32Array, start: number): void {
    const { ops, n, k } = this;
    const rows = panel.length / n;
    this.#y.set(ops.multiply(false, false, rows, k, n, panel, this.#omega), start * k);
    const psi = this.#psi.subarray(start * this.#l, (start + rows) * this.#l);
    ops.gemm(true, false, this.#l, n, rows, 1, psi, panel, 1, this.#z);
  }

  /** undefined: the matrix has a smaller rank than the sketch. */
  factors(): OnePassFactors | undefined {
    const { ops, m, n, k } = this;
    const core = ops.multiply(true, false, this.#l, k, m, this.#psi, this.#y);
    // (Psi^T Y)^+ Z by Householder reflections: its pseudoinverse is never formed
    const right = leastSquares(new Float64Array(core), this.#l, k, new Float64Array(this.#z), n);
    return right && { left: this.#y, right: new Float32Array(right), k };
  }
}
