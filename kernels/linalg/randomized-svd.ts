/**
 * The leading singular triplets of a matrix of any size, read in panels of rows, by a randomized block Krylov iteration
 * (Halko, Martinsson, Tropp, "Finding Structure with Randomness", 2011, arXiv 0909.4061; Musco, Musco, "Randomized Block
 * Krylov Methods for Stronger and Faster Approximate Singular Value Decomposition", 2015, arXiv 1504.05477).
 *
 *   Y = W Omega, Q_0 = orth(Y);  q times: Z_j = W^T Q_j, Q_{j+1} = orth(W orth(Z_j)), orthogonal to all Q before it
 *   K = [Q_0 .. Q_q],  C = W^T K = [Z_0 .. Z_q] = V S L^T,  U = K L
 * Every Z_j has been computed on the way, so the larger space costs no further pass over W: 2 (q + 1) passes, as many as plain
 * subspace iteration takes for q power steps. On W^T where m < n, so that the short side carries the random start.
 * Deviation: Omega is uniform in [-1, 1), not normal: a tenth of the time, the same accuracy.
 */
import { PithError } from '../../core/errors.js';
import type { Rng } from '../../core/rng.js';
import { eigh } from './eigh.js';
import { columnBasis } from './column-basis.js';
import { transposed, type MatrixOps } from './matrix-ops.js';

/** A matrix that need not be in memory at once. */
export interface MatrixSource {
  readonly rows: number;
  readonly columns: number;
  /** Rows of a panel; the last may be shorter. */
  readonly panelRows: number;
  /** Rows [start, end) as (end - start, columns) f32, valid until the next call. */
  panel(start: number, end: number): Float32Array | Promise<Float32Array>;
}

/** The products with panels of W, nearly all of the work: MatrixOps, or a tfjs backend (tf-products.ts). */
export interface PanelProducts {
  /** op(A) B: (m, k) by (k, n) -> (m, n). `keep`: the same array will come again, unchanged. */
  multiply(transA: boolean, m: number, n: number, k: number, a: Float32Array, b: Float32Array, keep: boolean): Float32Array | Promise<Float32Array>;
}

export interface RandomizedSvdOptions {
  readonly rank: number;
  /** The small f64 work, and the products unless `products` does them. */
  readonly ops: MatrixOps;
  readonly products?: PanelProducts;
  /** Names the random start: the same stream gives the same bytes on the same library. */
  readonly rng: Rng;
  /** Columns of a block; half the rank, at least 16. Rank + 10 and two steps is the classical choice. */
  readonly block?: number;
  /** q; 4, and as many as the rank needs. */
  readonly powerSteps?: number;
  /** Gaussian probes for `spectralBound`; 0: none. */
  readonly probes?: number;
  /** ||W||_F^2 where the caller has it; it is summed in the first pass otherwise. */
  readonly frobeniusSq?: number;
}

export interface RandomizedSvd {
  /** (m, r) */
  readonly u: Float32Array;
  /** r values, falling; fewer than asked for when the matrix has a smaller rank. */
  readonly s: Float64Array;
  /** (r, n) */
  readonly vt: Float32Array;
  /** ||W||_F^2 */
  readonly frobeniusSq: number;
  /** ||W - U S V^T||_F = sqrt(||W||_F^2 - sum s^2) */
  readonly residualFro: number;
  /** With probes: ||W - U S V^T||_2 is at most this, with failure probability 10^-probes. */
  readonly spectralBound?: number;
}

/** Below this share of s_1 a direction is rounding noise of f32. */
const NOISE = 1e-6;
/**
 * Many narrow blocks reach deeper for the same work than a few wide ones. 4096 x 4096 at rank 64, excess over the optimum with
 * singular values i^-0.5: block 74 and 2 steps 0.11 % in 172 ms, block 32 and 4 steps 0.12 % in 137 ms (block 74, plain power steps: 0.47 %).
 */
const DEFAULT_STEPS = 4;
const MIN_BLOCK = 16;
/** Directions beyond the rank that the space has at least. */
const OVERSAMPLING = 10;
const defaultBlock = (rank: number): number => Math.max(MIN_BLOCK, 8 * Math.ceil(rank / 16));

/** A matrix in memory; in panels when `panelRows` is given. */
export function wholeMatrix(w: Float32Array, rows: number, columns: number, panelRows = Math.max(1, rows)): MatrixSource {
  return { rows, columns, panelRows, panel: (start, end) => w.subarray(start * columns, end * columns) };
}

/** w: finite (NOT_FINITE otherwise). */
export async function randomizedSvd(w: MatrixSource, options: RandomizedSvdOptions): Promise<RandomizedSvd> {
  const { ops, rng } = options;
  const [m, n] = [w.rows, w.columns];
  const [long, side] = m >= n ? [m, n] : [n, m];
  const rank = Math.min(options.rank, side);
  const width = Math.min(side, options.block ?? defaultBlock(rank));
  const steps = Math.max(options.powerSteps ?? DEFAULT_STEPS, Math.ceil((rank + OVERSAMPLING) / Math.max(1, width)) - 1);
  const passes = new Passes(w, ops, options.products ?? hostProducts(ops), options.frobeniusSq);
  const space = await krylovSpace(passes, rng.symmetric(side * width), width, steps);
  const frobeniusSq = passes.frobeniusSq;
  const { k, c, left, s } = project(space, side, ops);
  const r = Math.min(rank, s.findLastIndex((v) => v > NOISE * s[0]!) + 1);
  // U = K L_r, V = C L_r S_r^-1
  const top = left.subarray(0, r * k);
  const longSide = ops.multiply64(false, true, long, r, k, space.basis, top);
  const shortSide = ops.multiply64(false, true, side, r, k, c, top);
  for (let i = 0; i < side; i++) for (let j = 0; j < r; j++) shortSide[i * r + j] = shortSide[i * r + j]! / s[j]!;
  const [u, v] = m >= n ? [longSide, shortSide] : [shortSide, longSide];
  fixSigns(u, m, v, n, r);
  const kept = s.slice(0, r);
  const result = {
    u: new Float32Array(u),
    s: kept,
    vt: transposed(new Float32Array(v), n, r),
    frobeniusSq,
    residualFro: Math.sqrt(Math.max(0, frobeniusSq - kept.reduce((sum, x) => sum + x * x, 0))),
  };
  if (options.probes === undefined || options.probes === 0) return result;
  const outside = await probe(passes, space.basis, k, rng.fork('probes'), options.probes);
  return { ...result, spectralBound: Math.hypot(outside, s[r] ?? 0) };
}

const hostProducts = (ops: MatrixOps): PanelProducts => ({ multiply: (ta, m, n, k, a, b) => ops.multiply(ta, false, m, n, k, a, b) });

/** Products with W and its transpose, the long side called `long`, panel by panel. */
class Passes {
  readonly long: number;
  readonly side: number;
  readonly #tall: boolean;
  #frobeniusSq: number | undefined;
  /** W, where one panel is all of it. */
  #whole: Float32Array | undefined;

  constructor(
    private readonly w: MatrixSource,
    readonly ops: MatrixOps,
    private readonly products: PanelProducts,
    frobeniusSq: number | undefined,
  ) {
    this.#tall = w.rows >= w.columns;
    [this.long, this.side] = this.#tall ? [w.rows, w.columns] : [w.columns, w.rows];
    this.#frobeniusSq = frobeniusSq;
    if (frobeniusSq !== undefined) this.#check();
  }

  get frobeniusSq(): number {
    return this.#frobeniusSq ?? 0;
  }

  /** W x (or W^T x where W is wide), x: (side, k) -> (long, k) */
  toLong(x: Float32Array, k: number): Promise<Float32Array> {
    return this.#tall ? this.#timesColumns(x, k) : this.#timesRows(x, k);
  }

  /** The other way: (long, k) -> (side, k) */
  toSide(q: Float32Array, k: number): Promise<Float32Array> {
    return this.#tall ? this.#timesRows(q, k) : this.#timesColumns(q, k);
  }

  /** W x: (n, k) -> (m, k) */
  async #timesColumns(x: Float32Array, k: number): Promise<Float32Array> {
    const { columns: n } = this.w;
    const y = new Float32Array(this.w.rows * k);
    for await (const { start, rows, panel } of this.#panels()) {
      y.set(await this.products.multiply(false, rows, k, n, panel, x, this.#whole !== undefined), start * k);
    }
    return y;
  }

  /** W^T q: (m, k) -> (n, k), summed over the panels */
  async #timesRows(q: Float32Array, k: number): Promise<Float32Array> {
    const { columns: n } = this.w;
    let sum: Float32Array | undefined;
    for await (const { start, rows, panel } of this.#panels()) {
      const part = q.subarray(start * k, (start + rows) * k);
      const z = await this.products.multiply(true, n, k, rows, panel, part, this.#whole !== undefined);
      if (sum === undefined) sum = z;
      else for (let i = 0; i < z.length; i++) sum[i] = sum[i]! + z[i]!;
    }
    return sum ?? new Float32Array(n * k);
  }

  async *#panels(): AsyncGenerator<{ start: number; rows: number; panel: Float32Array }> {
    const first = this.#frobeniusSq === undefined;
    let total = 0;
    for (let start = 0; start < this.w.rows; start += this.w.panelRows) {
      const end = Math.min(this.w.rows, start + this.w.panelRows);
      const panel = this.#whole ?? (await this.w.panel(start, end));
      if (end - start === this.w.rows) this.#whole = panel;
      if (first) total += squares(panel);
      yield { start, rows: end - start, panel };
    }
    if (!first) return;
    this.#frobeniusSq = total;
    this.#check();
  }

  #check(): void {
    if (Number.isFinite(this.#frobeniusSq)) return;
    throw new PithError('NOT_FINITE', { message: `(${this.w.rows}, ${this.w.columns}) with squared norm ${this.#frobeniusSq ?? NaN}` });
  }
}

interface Space {
  /** K: (long, k) f64, orthonormal columns. */
  readonly basis: Float64Array;
  /** W^T K by blocks: (side, k_j) each. */
  readonly images: readonly { readonly z: Float32Array; readonly k: number }[];
  readonly k: number;
}

/** omega: (side, width). The last block is cut where the space would outgrow the short side. */
async function krylovSpace(passes: Passes, omega: Float32Array, width: number, steps: number): Promise<Space> {
  const { long, side, ops } = passes;
  const images: { z: Float32Array; k: number }[] = [];
  let basis: Float64Array = new Float64Array(0);
  let k = 0;
  let [x, columns] = [omega, width];
  for (let j = 0; ; j++) {
    const y = new Float64Array(await passes.toLong(x, columns));
    const block = columnBasis(y, long, columns, ops, { against: basis, width: k, most: side - k });
    if (block.k === 0) break;
    const z = await passes.toSide(new Float32Array(block.q), block.k);
    images.push({ z, k: block.k });
    basis = beside(basis, k, block.q, block.k, long);
    k += block.k;
    if (j === steps || k === side) break;
    const next = columnBasis(new Float64Array(z), side, block.k, ops);
    [x, columns] = [new Float32Array(next.q), next.k];
    if (columns === 0) break;
  }
  return { basis, images, k };
}

/** [a, b]: (rows, ka) and (rows, kb) -> (rows, ka + kb) */
function beside(a: Float64Array, ka: number, b: Float64Array, kb: number, rows: number): Float64Array {
  if (ka === 0) return b;
  const out = new Float64Array(rows * (ka + kb));
  for (let i = 0; i < rows; i++) {
    out.set(a.subarray(i * ka, (i + 1) * ka), i * (ka + kb));
    out.set(b.subarray(i * kb, (i + 1) * kb), i * (ka + kb) + ka);
  }
  return out;
}

/** C = V S L^T through the eigenvalues of C^T C in f64; row i of `left` (k, k) is the i-th column of L, s falling. */
function project(space: Space, side: number, ops: MatrixOps): { k: number; c: Float64Array; left: Float64Array; s: Float64Array } {
  const { k } = space;
  let [c, width]: [Float64Array, number] = [new Float64Array(0), 0];
  for (const { z, k: more } of space.images) {
    c = beside(c, width, new Float64Array(z), more, side);
    width += more;
  }
  const { values, vectors } = eigh(ops.multiply64(true, false, k, k, side, c, c), k, { blas: ops.blas });
  const left = new Float64Array(k * k);
  for (let i = 0; i < k; i++) left.set(vectors.subarray((k - 1 - i) * k, (k - i) * k), i * k);
  return { k, c, left, s: Float64Array.from({ length: k }, (_, i) => Math.sqrt(Math.max(0, values[k - 1 - i]!))) };
}

/** ||(I - K K^T) W||_2 <= 10 sqrt(2 / pi) max_i ||(I - K K^T) W g_i||  (Halko et al., Lemma 4.1), g_i normal */
async function probe(passes: Passes, basis: Float64Array, k: number, rng: Rng, probes: number): Promise<number> {
  const { long, side, ops } = passes;
  const y = new Float64Array(await passes.toLong(rng.normals(side * probes), probes));
  const inside = ops.multiply64(false, false, long, probes, k, basis, ops.multiply64(true, false, k, probes, long, basis, y));
  const sums = new Float64Array(probes);
  for (let i = 0; i < y.length; i++) sums[i % probes] = sums[i % probes]! + (y[i]! - inside[i]!) ** 2;
  return 10 * Math.sqrt(2 / Math.PI) * Math.sqrt(Math.max(...sums));
}

/** u: (m, r), v: (n, r). The largest entry of every u_i becomes positive, so that libraries agree. */
function fixSigns(u: Float64Array, m: number, v: Float64Array, n: number, r: number): void {
  const top = new Float64Array(r);
  for (let i = 0, p = 0; i < m; i++) for (let j = 0; j < r; j++, p++) if (Math.abs(u[p]!) > Math.abs(top[j]!)) top[j] = u[p]!;
  const sign = top.map((t) => (t < 0 ? -1 : 1));
  for (let i = 0, p = 0; i < m; i++) for (let j = 0; j < r; j++, p++) u[p] = u[p]! * sign[j]!;
  for (let i = 0, p = 0; i < n; i++) for (let j = 0; j < r; j++, p++) v[p] = v[p]! * sign[j]!;
}

function squares(w: Float32Array): number {
  // eight sums: the additions do not wait for each other
  let [a, b, c, d, e, f, g, h] = [0, 0, 0, 0, 0, 0, 0, 0];
  const end = w.length - (w.length % 8);
  for (let i = 0; i < end; i += 8) {
    a += w[i]! * w[i]!;
    b += w[i + 1]! * w[i + 1]!;
    c += w[i + 2]! * w[i + 2]!;
    d += w[i + 3]! * w[i + 3]!;
    e += w[i + 4]! * w[i + 4]!;
    f += w[i + 5]! * w[i + 5]!;
    g += w[i + 6]! * w[i + 6]!;
    h += w[i + 7]! * w[i + 7]!;
  }
  for (let i = end; i < w.length; i++) a += w[i]! * w[i]!;
  return a + b + (c + d) + (e + f + (g + h));
}
