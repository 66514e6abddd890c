/** Rounding to E4M3 (OCP 8-bit floating point, 2023: no infinities, largest 448), nearest even, beyond the largest saturated. */
export const E4M3_MAX = 448;

/** 1.5 * 2^52: adding and subtracting it rounds to the nearest integer, ties to even. */
const MAGIC = 6755399441055744;
/** Exponent of the smallest normal value; below it steps of 2^-9. */
const LEAST_EXPONENT = -6;

/** v: finite. */
export function e4m3Code(v: number): number {
  const sign = v < 0 || Object.is(v, -0) ? 128 : 0;
  const a = Math.min(E4M3_MAX, Math.abs(v));
  const exponent = a < 2 ** LEAST_EXPONENT ? LEAST_EXPONENT : Math.floor(Math.log2(a));
  // 8 to 16 eighths of 2^exponent, fewer below the normal values; 16 runs over into the next exponent
  const eighths = a * 2 ** (3 - exponent) + MAGIC - MAGIC;
  return sign | ((exponent - LEAST_EXPONENT) * 8 + eighths);
}
