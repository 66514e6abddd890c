/**
 * Symmetric integer quantization of groups:  x ~ s q,  q = clamp(round(x / s), -2^(b-1), 2^(b-1) - 1).
 *   max: s = max|x| / (2^(b-1) - 1)
 *   mse: the s of least ||x - s q||^2, by a search over clipping ratios and s = <x, q> / <q, q> from the best one; s may be
 *        negative, which puts the code -2^(b-1) to use on the longer side (as SignRound's signed scale, arXiv 2309.05516).
 */

export const FITS = ['mse', 'max'] as const;
export type Fit = (typeof FITS)[number];

/** 1.5 * 2^52: adding and subtracting it rounds to the nearest integer, ties to even. */
const MAGIC = 6755399441055744;
/** Smallest clipping ratio worth trying, by bits: a Gaussian group of 128 clips at 0.36 of its largest value with 2 bits, hardly with 8. */
const LEAST_RATIO = [0, 0, 0.26, 0.4, 0.56, 0.7, 0.8, 0.86, 0.9] as const;
const RATIOS = 9;
const REFINEMENTS = 3;

interface Fitted {
  readonly error: number;
  /** <x, q> / <q, q>: the best scale for these codes. */
  readonly refined: number;
}

/** ||x - s q||^2 over [from, to). */
function fitted(x: Float32Array, from: number, to: number, s: number, bits: number): Fitted {
  const top = 2 ** (bits - 1) - 1;
  const low = -top - 1;
  const inverse = 1 / s;
  let [error, xq, qq] = [0, 0, 0];
  for (let i = from; i < to; i++) {
    const v = x[i]!;
    let q = v * inverse + MAGIC - MAGIC;
    q = q > top ? top : q < low ? low : q;
    const d = v - s * q;
    error += d * d;
    xq += v * q;
    qq += q * q;
  }
  return { error, refined: qq > 0 ? xq / qq : s };
}

/** Scale of x[from, to), before it is rounded to its storage type; 0 when the group is zero or too small for f32. */
export function symmetricScale(x: Float32Array, from: number, to: number, bits: number, fit: Fit): number {
  let most = 0;
  for (let i = from; i < to; i++) most = Math.max(most, Math.abs(x[i]!));
  const whole = most / (2 ** (bits - 1) - 1);
  if (Math.fround(whole) === 0) return 0;
  if (fit === 'max') return whole;
  let [best, least] = [whole, Infinity];
  const take = (s: number): number => {
    const { error, refined } = fitted(x, from, to, s, bits);
    if (error < least) [best, least] = [s, error];
    return refined;
  };
  const step = (1 - LEAST_RATIO[bits]!) / (RATIOS - 1);
  for (const sign of [1, -1]) for (let i = 0; i < RATIOS; i++) take(sign * whole * (1 - step * i));
  for (let i = 0, next = take(best); i < REFINEMENTS && next !== 0; i++) next = take(next);
  return best;
}

/** Codes of x[from, to) under a stored scale; answers ||x - s q||^2. A scale of 0 or beyond f32 gives zeros. */
export function symmetricCodes(x: Float32Array, from: number, to: number, s: number, bits: number, codes: Int8Array): number {
  const top = 2 ** (bits - 1) - 1;
  const low = -top - 1;
  const inverse = s === 0 || !Number.isFinite(1 / s) ? 0 : 1 / s;
  let error = 0;
  for (let i = from; i < to; i++) {
    const q = Math.max(low, Math.min(top, x[i]! * inverse + MAGIC - MAGIC));
    codes[i] = q;
    const d = x[i]! - s * q;
    error += d * d;
  }
  return error;
}
