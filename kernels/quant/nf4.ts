/**
 * NF4 and double quantization ("QLoRA", Dettmers, Pagnoni, Holtzman, Zettlemoyer, 2023, arXiv 2305.14314; as bitsandbytes stores them):
 *   blocks of 64 values as they lie, a = max|w|, code = nearest of 16 table values to w / a
 *   offset = mean(a);  a - offset in blocks of 256, each by its own largest |.|, to the nearest of 256 values of a dynamic map
 */

/** bitsandbytes, normal_map: quantiles of a normal distribution. */
// prettier-ignore
export const NF4 = Float32Array.of(
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0,
  0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
);

export const NF4_BLOCK = 64;
export const NESTED_BLOCK = 256;

export interface Blocks {
  readonly codes: Uint8Array;
  /** One for each block. */
  readonly absmax: Float32Array;
}

/** The table's nearest; halfway goes to the lower one. */
function nearest(table: Float32Array, v: number): number {
  let [lo, hi] = [0, table.length - 1];
  while (lo < hi) {
    const mid = (lo + hi) >> 1;
    if (v > (table[mid]! + table[mid + 1]!) / 2) lo = mid + 1;
    else hi = mid;
  }
  return lo;
}

/** Absolute maxima of blocks; the last may be shorter. */
export function blockMaxima(w: Float32Array, size: number): Float32Array {
  const out = new Float32Array(Math.ceil(w.length / size));
  for (let i = 0; i < w.length; i++) out[Math.floor(i / size)] = Math.max(out[Math.floor(i / size)]!, Math.abs(w[i]!));
  return out;
}

/** Codes under given maxima; a block of zeros has the code of zero. */
export function tableCodes(w: Float32Array, absmax: Float32Array, size: number, table: Float32Array): Uint8Array {
  const out = new Uint8Array(w.length);
  for (let b = 0; b < absmax.length; b++) {
    const inverse = absmax[b]! > 0 ? 1 / absmax[b]! : 0;
    for (let i = b * size, end = Math.min(w.length, i + size); i < end; i++) out[i] = nearest(table, Math.fround(w[i]! * inverse));
  }
  return out;
}

export function tableValues(codes: Uint8Array, absmax: Float32Array, size: number, table: Float32Array): Float32Array {
  return Float32Array.from(codes, (c, i) => table[c]! * absmax[Math.floor(i / size)]!);
}

/** bitsandbytes, create_dynamic_map(signed, 7, 8): 2^i values in the decade 10^(i-6), both signs, 0 and 1. Ascending. */
export const DYNAMIC_MAP = ((): Float32Array => {
  const values = [0, 1];
  for (let i = 0; i < 7; i++) {
    const count = 2 ** i;
    for (let k = 0; k < count; k++) {
      const v = 10 ** (i - 6) * (0.1 + (0.9 * (k + 0.5)) / count);
      values.push(v, -v);
    }
  }
  return Float32Array.from(values).sort();
})();

export interface NestedMaxima extends Blocks {
  readonly offset: number;
  /** What they decode to. */
  readonly values: Float32Array;
}

export function nestMaxima(absmax: Float32Array): NestedMaxima {
  const offset = Math.fround(absmax.reduce((sum, v) => sum + v, 0) / Math.max(1, absmax.length));
  const rest = absmax.map((v) => v - offset);
  const outer = blockMaxima(rest, NESTED_BLOCK);
  const codes = tableCodes(rest, outer, NESTED_BLOCK, DYNAMIC_MAP);
  const values = tableValues(codes, outer, NESTED_BLOCK, DYNAMIC_MAP).map((v) => v + offset);
  return { codes, absmax: outer, offset, values };
}
