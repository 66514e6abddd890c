/**
 * Transform coding of a matrix in its singular basis, one step for everything (pith's own; the rate-distortion view of low-rank
 * deltas). With D = U diag(s) V^T, errors of X = U diag(s) and of Y = V diag(s) add up evenly, so both are quantized with one step t:
 *   D ~ sum_k x^_k (y^_k / s_k)^T
 * which sets every rank and bit width at once (reverse water-filling). A component is kept where what it takes off the squared
 * error pays for its bits at the quantizer's own slope, lambda = (ln 2 / 6) t^2 per bit (high-rate theory: error t^2 / 12, -6.02 dB a bit).
 */
import type { Rng } from '../../core/rng.js';
import { toBf16 } from '../../core/float.js';
import { eigh } from '../linalg/eigh.js';
import { transposed, type MatrixOps } from '../linalg/matrix-ops.js';
import { truncatedSvd } from '../linalg/truncated-svd.js';
import { CENTROIDS, CentroidSums, entropyBits, magnitudes, quantize } from '../levels/quantize.js';

const LAMBDA = Math.LN2 / 6;
/** No component below this multiple of t sqrt(max(m, n)) ever pays (0.45 was the least kept over the fixtures and both pairs). */
const LEAST_SHARE = 0.4;
/** Beyond this share of the short side the whole basis is computed at once. */
const WHOLE_SHARE = 0.2;
/** Sides up to which that is done; larger ones go on doubling the rank. */
const WHOLE_SIDE = 3072;
/** Eigenvalues of an f32 Gram matrix below this share of the first are rounding. */
const NOISE = 1e-7;
const TOP_SYMBOL = 63;
/** Component scale, two stream columns: what a component costs besides its levels. */
const COMPONENT_BITS = 24;
/** Rows of a factor that rates are estimated from. */
const SAMPLE_ROWS = 384;

/** Factors that carry the singular values on both sides. */
export interface Basis {
  readonly m: number;
  readonly n: number;
  readonly rank: number;
  /** X = U diag(s), (m, rank) */
  readonly x: Float32Array;
  /** Y = V diag(s), (n, rank) */
  readonly y: Float32Array;
  /** Falling. */
  readonly s: Float64Array;
}

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

  /** At least all components that may pay at `step`, exact to f32. */
  async upTo(step: number): Promise<Basis> {
    const { d, m, n, frobeniusSq, ops, rng } = this;
    const least = leastValue(m, n, step);
    if (this.#basis !== undefined && least >= this.#covered) return this.#basis;
    const side = Math.min(m, n);
    // more cannot be above `least`
    const most = Math.min(side, Math.floor(frobeniusSq / (least * least)));
    const keep = (basis: Basis, covered: number): Basis => {
      this.#basis = basis;
      this.#covered = covered;
      return basis;
    };
    if (most === 0) return keep(empty(m, n), least);
    for (let rank = Math.min(side, Math.max(16, 2 * (this.#basis?.rank ?? 0), Math.ceil(side / 16))); ; rank *= 2) {
      if (rank > side * WHOLE_SHARE && side <= WHOLE_SIDE) return keep(wholeBasis(d, m, n, ops), 0);
      const { u, s, vt } = await truncatedSvd(d, m, n, { rank, ops, rng: rng.fork(`rank ${rank}`), oversampling: 16, powerSteps: 4, frobeniusSq });
      const last = s.at(-1) ?? 0;
      if (last < least || s.length < rank || rank >= most) return keep(scaled(u, s, vt, m, n), s.length < rank ? 0 : Math.min(last, least));
    }
  }
}

const leastValue = (m: number, n: number, step: number): number => LEAST_SHARE * step * Math.sqrt(Math.max(m, n));

const empty = (m: number, n: number): Basis => ({ m, n, rank: 0, x: new Float32Array(0), y: new Float32Array(0), s: new Float64Array(0) });

function scaled(u: Float32Array, s: Float64Array, vt: Float32Array, m: number, n: number): Basis {
  const rank = s.length;
  const x = new Float32Array(m * rank);
  for (let i = 0; i < m; i++) for (let k = 0; k < rank; k++) x[i * rank + k] = u[i * rank + k]! * s[k]!;
  const y = new Float32Array(n * rank);
  for (let k = 0; k < rank; k++) for (let j = 0; j < n; j++) y[j * rank + k] = vt[k * n + j]! * s[k]!;
  return { m, n, rank, x, y, s };
}

/** From the eigenvectors of the smaller Gram matrix, in f64. */
function wholeBasis(d: Float32Array, m: number, n: number, ops: MatrixOps): Basis {
  const tall = m >= n;
  const side = Math.min(m, n);
  const { values, vectors } = eigh(new Float64Array(ops.gram(d, m, n, !tall)), side, { blas: ops.blas });
  const rank = values.filter((v) => v > NOISE * values[side - 1]!).length;
  if (rank === 0) return empty(m, n);
  const s = Float64Array.from({ length: rank }, (_, k) => Math.sqrt(values[side - 1 - k]!));
  const v = new Float32Array(rank * side);
  for (let k = 0; k < rank; k++) v.set(vectors.subarray((side - 1 - k) * side, (side - k) * side), k * side);
  // long side: D V, short side: V diag(s)
  const long = tall ? ops.multiply(false, true, m, rank, n, d, v) : ops.multiply(true, true, n, rank, m, d, v);
  for (let k = 0; k < rank; k++) for (let j = 0; j < side; j++) v[k * side + j] = v[k * side + j]! * s[k]!;
  const short = transposed(v, rank, side);
  return tall ? { m, n, rank, x: long, y: short, s } : { m, n, rank, x: short, y: long, s };
}

/** Levels of the components that pay. */
export interface Coded {
  readonly rank: number;
  /** s_k / t, bf16: row j of Y is y / (t ratio) */
  readonly ratios: Uint16Array;
  /** (m, rank), (n, rank) */
  readonly x: Int16Array;
  readonly y: Int16Array;
  readonly centroidsX: Uint8Array;
  readonly centroidsY: Uint8Array;
}

export function codeBasis(b: Basis, step: number): Coded {
  const rank = usable(b, step);
  const all = Array.from({ length: rank }, (_, k) => k);
  const [x, y] = [side(rows(b.x, b.m, b.rank, all), rank, step, 1), side(rows(b.y, b.n, b.rank, all), rank, step, 1)];
  const kept = price(b, x, y).flatMap((c, k) => (pays(c, step) ? [k] : []));
  const [keptX, keptY] = [side(rows(x.values, b.m, rank, kept), kept.length, step, 1), side(rows(y.values, b.n, rank, kept), kept.length, step, 1)];
  const ratios = Uint16Array.from(kept, (k) => toBf16(b.s[k]! / step));
  return { rank: kept.length, ratios, x: keptX.levels, y: keptY.levels, centroidsX: keptX.centroids, centroidsY: keptY.centroids };
}

/** Bytes and squared error that `codeBasis` would give, from a sample of the factors' rows. */
export function estimate(b: Basis, step: number, frobeniusSq: number): { bytes: number; errorSq: number } {
  const rank = usable(b, step);
  const all = Array.from({ length: rank }, (_, k) => k);
  const sampled = (values: Float32Array, count: number): Side => {
    const stride = Math.ceil(count / SAMPLE_ROWS);
    return side(rows(values, count, b.rank, all, stride), rank, step, count / Math.ceil(count / stride));
  };
  let [bits, errorSq] = [0, frobeniusSq];
  for (const c of price(b, sampled(b.x, b.m), sampled(b.y, b.n))) {
    if (!pays(c, step)) continue;
    bits += c.bits;
    errorSq -= c.gain;
  }
  return { bytes: bits / 8, errorSq: Math.max(0, errorSq) };
}

/** Leading components that may pay. */
function usable(b: Basis, step: number): number {
  const least = leastValue(b.m, b.n, step);
  const rank = b.s.findIndex((v) => v < least);
  return rank < 0 ? b.rank : rank;
}

/** Columns `kept` of every `stride`-th row. */
function rows(values: Float32Array, count: number, columns: number, kept: readonly number[], stride = 1): Float32Array {
  const out = new Float32Array(Math.ceil(count / stride) * kept.length);
  for (let i = 0, to = 0; i < count; i += stride) for (const k of kept) out[to++] = values[i * columns + k]!;
  return out;
}

interface Price {
  readonly bits: number;
  /** What keeping the component takes off the squared error. */
  readonly gain: number;
}

const pays = (c: Price, step: number): boolean => c.gain > LAMBDA * step * step * c.bits;

/** Every component's bits (entropy of its levels) and gain. */
function price(b: Basis, x: Side, y: Side): Price[] {
  return Array.from(x.bits, (bits, k) => {
    // ||x y^T / s||^2 - ||x y^T / s - x^ y^^T / s||^2, where <x, x> = <y, y> = s^2
    const gain = b.s[k]! ** 2 * (2 * x.cross[k]! * y.cross[k]! - x.square[k]! * y.square[k]!);
    return { bits: bits + y.bits[k]! + COMPONENT_BITS, gain };
  });
}

/** One quantized factor. */
interface Side {
  readonly values: Float32Array;
  readonly levels: Int16Array;
  readonly centroids: Uint8Array;
  /** By component: <x, x^> and <x^, x^> over <x, x>, so that a sample's own energy cancels. */
  readonly cross: Float64Array;
  readonly square: Float64Array;
  /** Entropy of its levels, times `scale`. */
  readonly bits: Float64Array;
}

function side(values: Float32Array, rank: number, step: number, scale: number): Side {
  const levels = new Int16Array(values.length);
  quantize(values, step, levels);
  const sums = new CentroidSums();
  sums.add(values, levels, step);
  const centroids = sums.bytes();
  const size = magnitudes(centroids, CENTROIDS);
  const counts = new Uint32Array(rank * (TOP_SYMBOL + 1));
  const [cross, square, bits, energy] = [new Float64Array(rank), new Float64Array(rank), new Float64Array(rank), new Float64Array(rank)];
  for (let at = 0; at < values.length; at += rank) {
    for (let k = 0; k < rank; k++) {
      const l = Math.abs(levels[at + k]!);
      const x = Math.abs(values[at + k]!);
      counts[k * (TOP_SYMBOL + 1) + Math.min(TOP_SYMBOL, l)]!++;
      energy[k]! += x * x;
      if (l === 0) continue;
      const v = step * (l <= CENTROIDS ? size[l]! : l);
      cross[k]! += v * x;
      square[k]! += v * v;
    }
  }
  const count = values.length / Math.max(1, rank);
  for (let k = 0; k < rank; k++) {
    const own = counts.subarray(k * (TOP_SYMBOL + 1), (k + 1) * (TOP_SYMBOL + 1));
    // a sign for every level but 0, raw bits for what the histogram does not tell apart
    bits[k] = scale * (entropyBits(own) + count - own[0]! + 8 * own[TOP_SYMBOL]!);
    cross[k]! /= energy[k]! || 1;
    square[k]! /= energy[k]! || 1;
  }
  return { values, levels, centroids, cross, square, bits };
}

/** Levels -> values: the left factor (times the step) or the right one (over s / t); normative. */
export function dequantize(levels: Int16Array, rank: number, centroids: Uint8Array, scale: (k: number) => number, divide: boolean): Float32Array {
  const size = magnitudes(centroids, CENTROIDS);
  const out = new Float32Array(levels.length);
  for (let i = 0; i < out.length; i++) {
    const l = levels[i]!;
    const a = l < 0 ? -l : l;
    const v = a <= CENTROIDS ? size[a]! : a;
    const s = scale(i % rank);
    out[i] = (l < 0 ? -1 : 1) * Math.fround(divide ? v / s : v * s);
  }
  return out;
}
