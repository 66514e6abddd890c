/** Singular vectors of one matrix, as many as a quantizer step can use (transform.ts), and the factors that they give. */
import { floatBuffer } from '../../core/panel-buffer.js';
import type { Rng } from '../../core/rng.js';
import { eigh, eigh32 } from '../linalg/eigh.js';
import { transposed, type MatrixOps } from '../linalg/matrix-ops.js';
import { truncatedSvd } from '../linalg/truncated-svd.js';

/** No component below this multiple of t sqrt(max(m, n)) ever pays (0.45 was the least kept over the fixtures and both pairs). */
const LEAST_SHARE = 0.4;
/** Up to this short side the whole basis is computed at once: by LAPACK in f32 it costs no more than a few dozen vectors. */
const WHOLE_AT_ONCE = 1024;
/** Beyond this share of the short side the whole basis is computed at once ... */
const WHOLE_SHARE = 0.2;
/** ... for sides up to this; larger ones go on doubling the rank. */
const WHOLE_SIDE = 3072;
/** Eigenvalues of an f32 Gram matrix below this share of the first are rounding; by a solver in f32 already below the second. */
const NOISE = 1e-7;
const NOISE32 = 1e-5;

/** Leading singular values and the vectors of the short side. */
export interface Basis {
  readonly m: number;
  readonly n: number;
  /** (m, n) */
  readonly d: Float32Array;
  readonly rank: number;
  /** Falling. */
  readonly s: Float64Array;
  /** (rank, min(m, n)), orthonormal rows. */
  readonly short: Float32Array;
  readonly ops: MatrixOps;
}

export const leastValue = (m: number, n: number, step: number): number => LEAST_SHARE * step * Math.sqrt(Math.max(m, n));

/** Bases of one matrix for falling steps: a finer step needs more components, a computed one serves all coarser steps. */
export class Bases {
  #basis: Basis | undefined;
  /** Every component of at least this singular value is in the basis. */
  #covered = Infinity;

  constructor(
    private readonly d: Float32Array,
    private readonly m: number,
    private readonly n: number,
    private readonly frobeniusSq: number,
    private readonly ops: MatrixOps,
    private readonly rng: Rng,
  ) {}

  /** At least all components that may pay at `step`. */
  async upTo(step: number): Promise<Basis> {
    const { d, m, n, frobeniusSq, ops, rng } = this;
    const least = leastValue(m, n, step);
    if (this.#basis !== undefined && least >= this.#covered) return this.#basis;
    const side = Math.min(m, n);
    // more cannot be above `least`
    const most = Math.min(side, Math.floor(frobeniusSq / (least * least)));
    if (most === 0) return this.#keep(new Float64Array(0), new Float32Array(0), least);
    if (side <= WHOLE_AT_ONCE && ops.blas?.lapack !== undefined) return this.#whole(least);
    for (let rank = Math.min(side, Math.max(16, 2 * (this.#basis?.rank ?? 0), Math.ceil(side / 16))); ; rank *= 2) {
      if (rank > side * WHOLE_SHARE && side <= WHOLE_SIDE) return this.#whole(least);
      const { u, s, vt } = await truncatedSvd(d, m, n, { rank, ops, rng: rng.fork(`rank ${rank}`), oversampling: 16, filterSteps: 4, frobeniusSq });
      const last = s.at(-1) ?? 0;
      if (last < least || s.length < rank || rank >= most)
        return this.#keep(s, m >= n ? vt : transposed(u, m, s.length), s.length < rank ? 0 : Math.min(last, least));
    }
  }

  #keep(s: Float64Array, short: Float32Array, covered: number): Basis {
    const { d, m, n, ops } = this;
    this.#basis = { m, n, d, rank: s.length, s, short, ops };
    this.#covered = covered;
    return this.#basis;
  }

  /** From the eigenvectors of the smaller Gram matrix: in f32, or in f64 where `least` lies below what f32 tells apart. */
  #whole(least: number): Basis {
    const { d, m, n, ops } = this;
    const side = Math.min(m, n);
    const g = ops.gram(d, m, n, m < n, floatBuffer(side * side, 'gram'));
    const fast = eigh32(g, side, { blas: ops.blas });
    const largest = fast.values[side - 1]!;
    const enough = least * least >= NOISE32 * largest;
    const { values, vectors } = enough ? fast : eigh(new Float64Array(g), side, { blas: ops.blas });
    const noise = enough ? NOISE32 : NOISE;
    const rank = Array.from(values).filter((v) => v > noise * largest).length;
    const short = new Float32Array(rank * side);
    for (let k = 0; k < rank; k++) short.set(vectors.subarray((side - 1 - k) * side, (side - k) * side), k * side);
    return this.#keep(
      Float64Array.from({ length: rank }, (_, k) => Math.sqrt(values[side - 1 - k]!)),
      short,
      enough ? Math.sqrt(NOISE32 * largest) : 0,
    );
  }
}

/**
 * X = U diag(s), (rows of m, rank), and Y = V diag(s), (rows of n, rank), of the leading components, with every stride-th row: the short
 * side's factor from its vectors, the long side's as a product with D.
 */
export function factors(b: Basis, rank: number, strideX = 1, strideY = 1): { x: Float32Array; y: Float32Array } {
  const { m, n } = b;
  const tall = m >= n;
  const [long, short] = [longFactor(b, rank, tall ? strideX : strideY), shortFactor(b, rank, tall ? strideY : strideX)];
  return tall ? { x: long, y: short } : { x: short, y: long };
}

function longFactor({ m, n, d, short, ops }: Basis, rank: number, stride: number): Float32Array {
  const [long, side] = [Math.max(m, n), Math.min(m, n)];
  const count = Math.ceil(long / stride);
  const v = short.subarray(0, rank * side);
  if (stride === 1) return ops.multiply(m < n, true, long, rank, side, d, v);
  const sampled = new Float32Array(count * side);
  if (m >= n) for (let i = 0; i < count; i++) sampled.set(d.subarray(i * stride * n, i * stride * n + n), i * n);
  else for (let i = 0; i < m; i++) for (let j = 0; j < count; j++) sampled[j * side + i] = d[i * n + j * stride]!;
  return ops.multiply(false, true, count, rank, side, sampled, v);
}

function shortFactor({ m, n, s, short }: Basis, rank: number, stride: number): Float32Array {
  const side = Math.min(m, n);
  const count = Math.ceil(side / stride);
  const out = new Float32Array(count * rank);
  for (let k = 0; k < rank; k++) for (let j = 0, from = k * side; j < count; j++, from += stride) out[j * rank + k] = short[from]! * s[k]!;
  return out;
}
