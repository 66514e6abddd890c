/**
 * What quantizing a tensor against its base would cost, from a sample: entropy of the levels given the class of the base's exponent,
 * and the squared error after rounding to the storage type. And the values that levels stand for.
 */
import { DTYPES } from '../../core/dtype.js';
import { decodeF32, encodeAs } from '../../core/float.js';
import { exponentBase, exponentClasses, type FloatDType, type StoredFloats } from './classes.js';
import { CLASSES } from './coder.js';
import { CENTROIDS, CentroidSums, entropyBits, magnitudes } from './quantize.js';
import type { LevelTally } from './tally.js';

/** Values that rates are estimated from, in pieces spread over the tensor. */
const [SAMPLE_VALUES, PIECE_VALUES] = [1 << 14, 256];
const TOP_SYMBOL = 255;
/** Real streams over the entropy given the exponent: 0.97 to 0.99 on the fixtures and both pairs. */
const CODER_GAIN = 0.98;

export interface Sample {
  readonly w0: Float32Array;
  readonly w1: Float32Array;
  readonly delta: Float32Array;
  readonly classes: Uint8Array;
  /** Values of the whole tensor. */
  readonly total: number;
  /** ||delta||^2 of the sample. */
  readonly squares: number;
}

/** Bytes of the whole tensor's stream and the squared error of the sample. */
export function estimateLevels(s: Sample, step: number, dtype: FloatDType, tally: LevelTally): { bytes: number; errorSq: number } {
  const tops = TOP_SYMBOL + 1;
  const { counts, sums, levels } = tally.classes(s, step, CLASSES, tops);
  const byLevel = new Float64Array(tops);
  let bits = 0;
  for (let k = 0; k < CLASSES; k++) {
    const own = counts.subarray(k * tops, (k + 1) * tops);
    bits += entropyBits(own);
    for (let l = 0; l < tops; l++) byLevel[l]! += own[l]!;
  }
  // a sign for every level but 0, and raw bits for what the counts do not tell apart
  bits += levels.length - byLevel[0]! + 8 * byLevel[TOP_SYMBOL]!;
  const centroids = new CentroidSums();
  centroids.addTotals(sums, byLevel, step);
  const size = magnitudes(centroids.bytes(), CENTROIDS).map((v) => Math.fround(v * step));
  const bytes = ((s.total / s.delta.length) * bits * CODER_GAIN) / 8;
  if (dtype !== 'F16') return { bytes, errorSq: tally.error(s.w0, s.w1, levels, size, step, dtype === 'BF16') };
  const sum = dequantized(levels, size, step);
  for (let i = 0; i < sum.length; i++) sum[i] = s.w0[i]! + sum[i]!;
  const what = decodeF32(dtype, encodeAs(dtype, sum));
  let errorSq = 0;
  for (let i = 0; i < what.length; i++) errorSq += (what[i]! - s.w1[i]!) ** 2;
  return { bytes, errorSq };
}

/** Pieces at even distances. */
export async function sampleLevels(base: StoredFloats, tuned: StoredFloats, dtype: FloatDType, between: () => void): Promise<Sample> {
  const width = DTYPES[dtype].bits / 8;
  const total = tuned.byteLength / width;
  const every = Math.max(1, Math.floor(total / SAMPLE_VALUES));
  const pieces: { w0: Float32Array; w1: Float32Array; classes: Uint8Array }[] = [];
  const first = await exponentBase(dtype, base);
  for (let at = 0; at < total; at += PIECE_VALUES * every) {
    between();
    const n = Math.min(PIECE_VALUES, total - at);
    const [a, b] = [new Uint8Array(n * width), new Uint8Array(n * width)];
    await base.readInto(at * width, a);
    await tuned.readInto(at * width, b);
    const classes = new Uint8Array(n);
    exponentClasses(dtype, a, first, classes);
    pieces.push({ w0: decodeF32(dtype, a), w1: decodeF32(dtype, b), classes });
  }
  const n = pieces.reduce((sum, p) => sum + p.w0.length, 0);
  const out = { w0: new Float32Array(n), w1: new Float32Array(n), delta: new Float32Array(n), classes: new Uint8Array(n), total, squares: 0 };
  let to = 0;
  for (const p of pieces) {
    out.w0.set(p.w0, to);
    out.w1.set(p.w1, to);
    out.classes.set(p.classes, to);
    to += p.w0.length;
  }
  for (let i = 0; i < n; i++) out.squares += (out.delta[i] = out.w1[i]! - out.w0[i]!) ** 2;
  return { ...out, squares: Math.max(out.squares, Number.MIN_VALUE) };
}

/** What restore adds: sign(q) c step, f32; -0 for level 0; normative. */
export function dequantized(levels: Int16Array, size: Float32Array, step: number): Float32Array {
  const out = new Float32Array(levels.length);
  for (let i = 0; i < out.length; i++) {
    const l = levels[i]!;
    const a = l < 0 ? -l : l;
    const v = a <= CENTROIDS ? size[a]! : Math.fround(a * step);
    out[i] = l > 0 ? v : -v;
  }
  return out;
}
