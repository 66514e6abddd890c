/**
 * The k values of largest magnitude without sorting: two histograms over the bits of |x|, which order as the values do.
 * Ties go to the lower index.
 */

/** |x| >= the value of `bits`; of those equal to it only the first `ties`. */
export interface Selection {
  /** Bits of the smallest chosen |x| as f32. */
  readonly bits: number;
  readonly ties: number;
}

const SIGN = 0x7fffffff;
const HIGH_SHIFT = 15;
const LOW_MASK = (1 << HIGH_SHIFT) - 1;

export const wordsOf = (x: Float32Array): Uint32Array => new Uint32Array(x.buffer, x.byteOffset, x.length);

/** x: finite; k at most x.length. */
export function topK(x: Float32Array, k: number): Selection {
  if (k === 0) return { bits: SIGN, ties: 0 };
  const words = wordsOf(x);
  const high = new Uint32Array(1 << (31 - HIGH_SHIFT));
  for (const w of words) high[(w & SIGN) >>> HIGH_SHIFT]!++;
  let [left, bucket] = [k, high.length - 1];
  while (high[bucket]! < left) left -= high[bucket--]!;
  const low = new Uint32Array(LOW_MASK + 1);
  for (const w of words) if ((w & SIGN) >>> HIGH_SHIFT === bucket) low[w & LOW_MASK]!++;
  let at = LOW_MASK;
  while (low[at]! < left) left -= low[at--]!;
  return { bits: (bucket << HIGH_SHIFT) | at, ties: left };
}

/** Everything of at least this magnitude; zeros are never chosen. */
export function atLeast(threshold: number): Selection {
  const bits = wordsOf(Float32Array.of(threshold))[0]! & SIGN;
  return { bits: Math.max(1, bits), ties: Infinity };
}

/** Marks chosen values with 1 in masks of consecutive pieces; answers how many. */
export function marker(selection: Selection): (x: Float32Array, mask: Uint8Array) => number {
  const { bits } = selection;
  let { ties } = selection;
  return (x, mask) => {
    const words = wordsOf(x);
    let chosen = 0;
    for (let i = 0; i < words.length; i++) {
      const w = words[i]! & SIGN;
      const take = w > bits || (w === bits && ties > 0);
      if (take && w === bits) ties--;
      mask[i] = take ? 1 : 0;
      if (take) chosen++;
    }
    return chosen;
  };
}
