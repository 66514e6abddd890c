/**
 * The closest Kronecker product to a Fisher matrix: (1/T) sum_t vec(G_t) vec(G_t)^T ~ B kron A. Rearranged (Van Loan and Pitsianis, 1993) it is a
 * rank-1 approximation of the operator R: A -> (1/T) sum_t G_t A G_t^T, whose leading singular pair is wanted, as in GFWSVD (Chekalina et al., 2025,
 * arXiv 2505.17974). The paper runs Lanczos; here it is the locally optimal conjugate gradient method (Knyazev, 2001) on R^T R or R R^T, which gives the same
 * pair, needs three matrices instead of a basis, and a third of the products of a power iteration.
 */
import { eigh } from './eigh.js';
import type { MatrixOps } from './matrix-ops.js';

export interface Gradients {
  readonly count: number;
  /** Rows and columns of each. */
  readonly m: number;
  readonly n: number;
  /** The t-th; the values may be gone at the next call. */
  read(t: number): Float32Array;
}

export interface KroneckerPair {
  /** (n, n), symmetric, ||A||_F = 1. */
  readonly a: Float32Array;
  /** (m, m), symmetric, with the scale: R(A). */
  readonly b: Float32Array;
  /** Applications of the operator. */
  readonly sweeps: number;
}

export interface PairOptions {
  readonly ops: MatrixOps;
  /** ||R^T R A - s^2 A|| / s^2 (or that of B) at which it stops; 1e-5 by default. */
  readonly tolerance?: number;
  readonly maxSweeps?: number;
  readonly checkpointCancel: () => void;
}

/** A factor and what the operator makes of it. */
interface Direction {
  readonly v: Float32Array;
  readonly image: Float32Array;
}

/** Bytes that the iteration holds at most. */
export function pairBytes(m: number, n: number): number {
  const [least, most] = [Math.min(m, n), Math.max(m, n)];
  // three directions with their images, and as many again while they are combined; both factors; a gradient and a product
  return 4 * (14 * least ** 2 + 3 * most ** 2 + 3 * m * n);
}

/** B is zero when every gradient is. */
export function kroneckerPair(gradients: Gradients, { ops, tolerance = 1e-5, maxSweeps = 50, checkpointCancel }: PairOptions): KroneckerPair {
  const { m, n } = gradients;
  const operator = new Rearranged(gradients, ops, checkpointCancel);
  // on the factor of the shorter side
  const ofB = m < n;
  const apply = (v: Float32Array): Direction => ({ v, image: ofB ? operator.forth(operator.back(v)) : operator.back(operator.forth(v)) });
  let x = apply(identity(Math.min(m, n)));
  let before: Direction | undefined;
  let sweeps = 1;
  for (; sweeps < maxSweeps; sweeps++) {
    const square = dot(x.v, x.image);
    const residual = combine([x.image, x.v], [1, -square]);
    if (norm(residual) <= tolerance * square) break;
    const basis = orthonormal([x, apply(residual), ...(before === undefined ? [] : [before])]);
    const weights = leading(basis);
    before = sum(basis.slice(1), Array.from(weights).slice(1));
    x = unit(sum(basis, weights));
  }
  // one step of the power iteration more
  const stretched = ofB ? operator.back(x.v) : x.image;
  const size = norm(stretched);
  const a = size > 0 ? combine([stretched], [1 / size]) : identity(n);
  return { a, b: operator.forth(a), sweeps };
}

/** I / ||I|| */
function identity(n: number): Float32Array {
  const out = new Float32Array(n * n);
  for (let i = 0; i < n; i++) out[i * n + i] = 1 / Math.sqrt(n);
  return out;
}

class Rearranged {
  readonly #product: Float32Array;

  constructor(
    private readonly gradients: Gradients,
    private readonly ops: MatrixOps,
    private readonly checkpointCancel: () => void,
  ) {
    this.#product = new Float32Array(gradients.m * gradients.n);
  }

  /** (1/T) sum_t G_t A G_t^T */
  forth(a: Float32Array): Float32Array {
    const { m, n } = this.gradients;
    return this.#average(m, (g, sums) => {
      this.#multiply(false, false, m, n, n, g, a, this.#product, false);
      this.#multiply(false, true, m, m, n, this.#product, g, sums, true);
    });
  }

  /** (1/T) sum_t G_t^T B G_t */
  back(b: Float32Array): Float32Array {
    const { m, n } = this.gradients;
    return this.#average(n, (g, sums) => {
      this.#multiply(false, false, m, n, m, b, g, this.#product, false);
      this.#multiply(true, false, n, n, m, g, this.#product, sums, true);
    });
  }

  // symmetric, which the sums are up to rounding
  #average(side: number, add: (g: Float32Array, sums: Float32Array) => void): Float32Array {
    const sums = new Float32Array(side * side);
    for (let t = 0; t < this.gradients.count; t++) {
      this.checkpointCancel();
      add(this.gradients.read(t), sums);
    }
    const scale = 1 / (2 * this.gradients.count);
    for (let i = 0; i < side; i++) {
      for (let j = 0; j <= i; j++) sums[i * side + j] = sums[j * side + i] = (sums[i * side + j]! + sums[j * side + i]!) * scale;
    }
    return sums;
  }

  // c = op(A) op(B), or added to c
  #multiply(ta: boolean, tb: boolean, m: number, n: number, k: number, a: Float32Array, b: Float32Array, c: Float32Array, add: boolean): void {
    const { blas } = this.ops;
    if (blas !== undefined) {
      blas.sgemm(ta, tb, m, n, k, 1, a, ta ? m : k, b, tb ? k : n, add ? 1 : 0, c, n);
      return;
    }
    const p = this.ops.multiply(ta, tb, m, n, k, a, b);
    if (!add) c.set(p);
    else for (let i = 0; i < c.length; i++) c[i] = c[i]! + p[i]!;
  }
}

function dot(x: Float32Array, y: Float32Array): number {
  let total = 0;
  for (let i = 0; i < x.length; i++) total += x[i]! * y[i]!;
  return total;
}

const norm = (x: Float32Array): number => Math.sqrt(dot(x, x));

function combine(vectors: readonly Float32Array[], weights: ArrayLike<number>): Float32Array {
  const out = new Float32Array(vectors[0]!.length);
  vectors.forEach((v, k) => {
    const w = weights[k]!;
    for (let i = 0; i < out.length; i++) out[i] = out[i]! + w * v[i]!;
  });
  return out;
}

const sum = (all: readonly Direction[], weights: ArrayLike<number>): Direction => ({
  v: combine(
    all.map((d) => d.v),
    weights,
  ),
  image: combine(
    all.map((d) => d.image),
    weights,
  ),
});

function unit(d: Direction): Direction {
  const size = norm(d.v);
  return size > 0 ? sum([d], [1 / size]) : d;
}

/** A direction that lies this far in the others' span holds only rounding. */
const DEPENDENT = 1e-4;

/** Gram-Schmidt, twice; directions that the others make are left out. */
function orthonormal(all: readonly Direction[]): Direction[] {
  const out: Direction[] = [];
  for (const direction of all) {
    let d = unit(direction);
    for (let pass = 0; pass < 2; pass++) {
      for (const q of out) d = sum([d, q], [1, -dot(q.v, d.v)]);
      if (norm(d.v) < DEPENDENT) break;
      d = unit(d);
    }
    if (norm(d.v) > 0.5) out.push(d);
  }
  return out;
}

/** The combination of orthonormal directions that the operator stretches the most. */
function leading(basis: readonly Direction[]): ArrayLike<number> {
  const k = basis.length;
  const s = new Float64Array(k * k);
  for (let i = 0; i < k; i++) for (let j = 0; j < k; j++) s[i * k + j] = (dot(basis[i]!.v, basis[j]!.image) + dot(basis[j]!.v, basis[i]!.image)) / 2;
  const vector = eigh(s, k).vectors.slice((k - 1) * k);
  // not against the one before
  return vector[0]! < 0 ? vector.map((v) => -v) : vector;
}
