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
import { CentroidSums, entropyBits, magnitudes, quantize } from '../levels/quantize.js';

const LAMBDA = Math.LN2 / 6;
/** No component below this multiple of t sqrt(max(m, n)) ever pays (0.45 was the least kept over the fixtures and both pairs). */
const LEAST_SHARE = 0.4;
/** Beyond this share of the short side the whole basis is computed at once. */
const WHOLE_SHARE = 0.2;
/** Sides up to which that is done; larger ones go on doubling the rank. */
const WHOLE_SIDE = 3072;
const TOP_SYMBOL = 63;
/** Component scale, two stream columns: what a component costs besides its levels. */
const COMPONENT_BITS = 24;
/** Rows of a factor that rates are estimated from. */
const SAMPLE_ROWS = 4096;

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

/** All components that may pay at `step`, at least: their values are exact to f32. */
export async function basisFor(d: Float32Array, m: number, n: number, step: number, frobeniusSq: number, ops: MatrixOps, rng: Rng): Promise<Basis> {
  const side = Math.min(m, n);
  const least = LEAST_SHARE * step * Math.sqrt(Math.max(m, n));
  // more cannot be above `least`
  const most = Math.min(side, Math.floor(frobeniusSq / (least * least)));
  if (most === 0) return empty(m, n);
  for (let rank = Math.min(side, Math.max(16, Math.ceil(side / 16))); ; rank *= 2) {
    if (rank > side * WHOLE_SHARE && side <= WHOLE_SIDE) return wholeBasis(d, m, n, least, ops);
    const { u, s, vt } = await truncatedSvd(d, m, n, { rank, ops, rng: rng.fork(`rank ${rank}`), oversampling: 16, powerSteps: 4, frobeniusSq });
    const kept = s.filter((v) => v >= least).length;
    if (kept < s.length || s.length < rank || rank >= most) return scaled(u, s, vt, m, n, kept);
  }
}

const empty = (m: number, n: number): Basis => ({ m, n, rank: 0, x: new Float32Array(0), y: new Float32Array(0), s: new Float64Array(0) });

function scaled(u: Float32Array, s: Float64Array, vt: Float32Array, m: number, n: number, rank: number): Basis {
  const columns = s.length;
  const x = new Float32Array(m * rank);
  for (let i = 0; i < m; i++) for (let k = 0; k < rank; k++) x[i * rank + k] = u[i * columns + k]! * s[k]!;
  const y = new Float32Array(n * rank);
  for (let k = 0; k < rank; k++) for (let j = 0; j < n; j++) y[j * rank + k] = vt[k * n + j]! * s[k]!;
  return { m, n, rank, x, y, s: s.slice(0, rank) };
}

/** From the eigenvectors of the smaller Gram matrix, in f64. */
function wholeBasis(d: Float32Array, m: number, n: number, least: number, ops: MatrixOps): Basis {
  const tall = m >= n;
  const side = Math.min(m, n);
  const { values, vectors } = eigh(new Float64Array(ops.gram(d, m, n, !tall)), side, { blas: ops.blas });
  const rank = values.filter((v) => v >= least * least).length;
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
  const [x, y] = [new Int16Array(b.x.length), new Int16Array(b.y.length)];
  quantize(b.x, step, x);
  quantize(b.y, step, y);
  const kept = price(b, step, x, y, false).flatMap((c, k) => (pays(c, step) ? [k] : []));
  const rank = kept.length;
  const [cx, cy] = [pick(x, b.m, b.rank, kept, Int16Array), pick(y, b.n, b.rank, kept, Int16Array)];
  const ratios = Uint16Array.from(kept, (k) => toBf16(b.s[k]! / step));
  const sums = [new CentroidSums(), new CentroidSums()] as const;
  sums[0].add(pick(b.x, b.m, b.rank, kept, Float32Array), cx, step);
  sums[1].add(pick(b.y, b.n, b.rank, kept, Float32Array), cy, step);
  return { rank, ratios, x: cx, y: cy, centroidsX: sums[0].bytes(), centroidsY: sums[1].bytes() };
}

function pick<T extends Int16Array | Float32Array>(all: T, rows: number, columns: number, kept: readonly number[], type: new (n: number) => T): T {
  const out = new type(rows * kept.length);
  for (let i = 0, to = 0; i < rows; i++) for (const k of kept) out[to++] = all[i * columns + k]!;
  return out;
}

interface Price {
  readonly bits: number;
  /** What keeping the component takes off the squared error. */
  readonly gain: number;
}

const pays = (c: Price, step: number): boolean => c.gain > LAMBDA * step * step * c.bits;

/** Every component's bits (entropy of its levels) and gain, from all rows or from a sample. */
function price(b: Basis, step: number, x: Int16Array, y: Int16Array, sample: boolean): Price[] {
  const [sideX, sideY] = [sideOf(b.x, x, b.rank, step, sample), sideOf(b.y, y, b.rank, step, sample)];
  return Array.from({ length: b.rank }, (_, k) => {
    const s2 = b.s[k]! ** 2;
    // <x, x^> and <x^, x^> are in units of s^2 on either side
    const gain = (2 * sideX.cross[k]! * sideY.cross[k]! - sideX.square[k]! * sideY.square[k]!) / s2;
    return { bits: sideX.bits[k]! + sideY.bits[k]! + COMPONENT_BITS, gain };
  });
}

function sideOf(
  values: Float32Array,
  levels: Int16Array,
  rank: number,
  step: number,
  sample: boolean,
): { cross: Float64Array; square: Float64Array; bits: Float64Array } {
  const sums = new CentroidSums();
  const rows = Math.floor(values.length / Math.max(1, rank));
  const stride = sample ? Math.ceil(rows / SAMPLE_ROWS) : 1;
  const counts = new Uint32Array(rank * (TOP_SYMBOL + 1));
  for (let i = 0; i < rows; i += stride) sums.add(values.subarray(i * rank, (i + 1) * rank), levels.subarray(i * rank, (i + 1) * rank), step);
  const size = magnitudes(sums.bytes(), 8);
  const [cross, square, bits] = [new Float64Array(rank), new Float64Array(rank), new Float64Array(rank)];
  let sampled = 0;
  for (let i = 0; i < rows; i += stride, sampled++) {
    for (let k = 0; k < rank; k++) {
      const l = Math.abs(levels[i * rank + k]!);
      counts[k * (TOP_SYMBOL + 1) + Math.min(TOP_SYMBOL, l)]!++;
      if (l === 0) continue;
      const v = step * (l <= 8 ? size[l]! : l);
      cross[k]! += v * Math.abs(values[i * rank + k]!);
      square[k]! += v * v;
    }
  }
  const scale = rows / Math.max(1, sampled);
  for (let k = 0; k < rank; k++) {
    const own = counts.subarray(k * (TOP_SYMBOL + 1), (k + 1) * (TOP_SYMBOL + 1));
    // a sign for every level but 0, raw bits for what the histogram does not tell apart
    bits[k] = scale * (entropyBits(own) + sampled - own[0]! + 8 * own[TOP_SYMBOL]!);
    cross[k]! *= scale;
    square[k]! *= scale;
  }
  return { cross, square, bits };
}

/** Bytes and squared error that `codeBasis` would give, from a sample of the rows of tall factors. */
export function estimate(b: Basis, step: number, frobeniusSq: number): { bytes: number; errorSq: number } {
  const [x, y] = [new Int16Array(b.x.length), new Int16Array(b.y.length)];
  quantize(b.x, step, x);
  quantize(b.y, step, y);
  let [bits, errorSq] = [0, frobeniusSq];
  for (const c of price(b, step, x, y, true)) {
    if (!pays(c, step)) continue;
    bits += c.bits;
    errorSq -= c.gain;
  }
  return { bytes: bits / 8, errorSq: Math.max(0, errorSq) };
}

/** The right factor as the product wants it, (rank, n), and the left one, (m, rank): what restore multiplies; normative. */
export function dequantize(levels: Int16Array, rank: number, centroids: Uint8Array, scale: (k: number) => number, divide: boolean): Float32Array {
  const size = magnitudes(centroids, 8);
  const out = new Float32Array(levels.length);
  for (let i = 0; i < out.length; i++) {
    const l = levels[i]!;
    const a = l < 0 ? -l : l;
    const v = a <= 8 ? size[a]! : a;
    const s = scale(i % rank);
    out[i] = (l < 0 ? -1 : 1) * Math.fround(divide ? v / s : v * s);
  }
  return out;
}
