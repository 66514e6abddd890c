/**
 * A sample of a tensor's words, and what it says about coding the tensor against another one or alone: the order-0 entropy of the
 * difference's bit length, plus its lower bits and its sign (docs/formats/residual.md names the difference).
 */
import type { DType } from '../../core/dtype.js';
import { wordKind } from './words.js';

/** One word in so many is taken, at most MAX_WORDS. */
const SHARE = 64;
const MAX_WORDS = 2048;

export function sketchWords(elements: number): number {
  return Math.min(MAX_WORDS, Math.ceil(elements / SHARE));
}

/** Word `k` of the sketch: one in each of equal steps, at a place that no period of the data follows. */
export function sketchPosition(elements: number, k: number): number {
  const step = Math.floor(elements / sketchWords(elements));
  return k * step + ((Math.imul(k, 0x9e3779b1) >>> 0) % step);
}

function words(dtype: DType, bytes: Uint8Array): Uint8Array | Uint16Array | Uint32Array {
  const copy = bytes.slice().buffer;
  const { width } = wordKind(dtype);
  return width === 8 ? new Uint8Array(copy) : width === 16 ? new Uint16Array(copy) : new Uint32Array(copy);
}

/** M(w): an order-preserving integer for a word. */
function ordered(w: number, width: number, sign: number): number {
  const top = 2 ** (width - 1);
  if (sign === 0) return w;
  if (w < top) return w + top;
  return sign === 1 ? w - top : 2 * top - 1 - w;
}

function entropy(counts: readonly number[], total: number): number {
  return counts.reduce((sum, c) => (c === 0 ? sum : sum - (c / total) * Math.log2(c / total)), 0);
}

/** Estimated bits of a word of `tuned` coded against the same word of `base`. */
export function differenceBits(dtype: DType, base: Uint8Array, tuned: Uint8Array): number {
  const { width, sign } = wordKind(dtype);
  const a = words(dtype, base);
  const b = words(dtype, tuned);
  const counts = new Array<number>(34).fill(0);
  let low = 0;
  for (let i = 0; i < b.length; i++) {
    const direct = Math.abs(ordered(b[i]!, width, sign) - ordered(a[i]!, width, sign));
    const d = Math.min(direct, 2 ** width - direct);
    const length = d === 0 ? 0 : Math.floor(Math.log2(d)) + 1;
    counts[length]!++;
    // the bits below the leading one, and the sign
    low += length;
  }
  return b.length === 0 ? 0 : entropy(counts, b.length) + low / b.length;
}

/** Estimated bits of a word that is coded alone: the exponent's entropy and the rest as it is; integers by their bit length. */
export function aloneBits(dtype: DType, bytes: Uint8Array): number {
  const { width, sign, mantissaBits, exponentMask } = wordKind(dtype);
  if (sign !== 2) return Math.min(width, differenceBits(dtype, new Uint8Array(bytes.length), bytes));
  const w = words(dtype, bytes);
  const counts = new Array<number>(exponentMask + 1).fill(0);
  for (const v of w) counts[(v >>> mantissaBits) & exponentMask]!++;
  return w.length === 0 ? 0 : mantissaBits + 1 + entropy(counts, w.length);
}
