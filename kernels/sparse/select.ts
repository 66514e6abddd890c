/**
 * Which scores of a group are the smallest, without sorting: a histogram over the leading bits, then only the bucket of the threshold.
 * Words compare as unsigned numbers: those of non-negative f32 values order as the values do. Of equal ones the lower index goes first.
 */
import type { Sparsity } from './sparsity.js';
import { wordsOf } from './top-k.js';

/** Compares |x|. */
export const MAGNITUDE = 0x7fffffff;
/** Compares all 32 bits: for `sortable` words. */
export const WHOLE = 0xffffffff;

/** Bits of a level of the histogram, from the top: 12, 10, 10. */
const SHIFTS = [20, 10, 0] as const;
const BUCKETS = 1 << 12;
/** Buckets of at most so many words are sorted. */
const SORTED = 2048;

/** Words of signed values made comparable, in place: the result is read with WHOLE. -0 equals +0. */
export function sortable(x: Float32Array): Uint32Array {
  const words = wordsOf(x);
  for (let i = 0; i < words.length; i++) {
    const w = words[i]! === 0x80000000 ? 0 : words[i]!;
    words[i] = (w & 0x80000000) === 0 ? w ^ 0x80000000 : ~w;
  }
  return words;
}

export class Selector {
  readonly #counts = new Uint32Array(BUCKETS);
  readonly #few = new Uint32Array(SORTED);

  /** `bits`: which of a word's bits are compared (MAGNITUDE or WHOLE). */
  constructor(private readonly bits: number) {}

  /** mask[at + i - from] = 0 for the `count` smallest of words [from, to), 1 for the others. */
  removeSmallest(words: Uint32Array, from: number, to: number, count: number, mask: Uint8Array, at = from): void {
    if (count <= 0) return void mask.fill(1, at, at + to - from);
    const bits = this.bits;
    const { word, equal } = this.#threshold(words, from, to, count);
    let ties = equal;
    if (bits === MAGNITUDE) {
      // words of 31 bits: the sign of the difference is the answer, without a branch that no processor foresees
      for (let i = from, o = at; i < to; i++, o++) {
        const w = words[i]! & MAGNITUDE;
        mask[o] = (word - w) >>> 31;
        if (w === word && ties-- <= 0) mask[o] = 1;
      }
      return;
    }
    for (let i = from, o = at; i < to; i++, o++) {
      const w = words[i]!;
      mask[o] = w < word || (w === word && ties-- > 0) ? 0 : 1;
    }
  }

  /** The `count`-th smallest word, and how many words equal to it are among the `count` smallest. */
  #threshold(words: Uint32Array, from: number, to: number, count: number): { word: number; equal: number } {
    let [left, prefix] = [count, 0];
    for (const [level, shift] of SHIFTS.entries()) {
      const above = level === 0 ? 32 : SHIFTS[level - 1]!;
      this.#tally(words, from, to, prefix, above, shift);
      let bucket = 0;
      while (this.#counts[bucket]! < left) left -= this.#counts[bucket++]!;
      prefix = ((prefix << (above - shift)) | bucket) >>> 0;
      const size = this.#counts[bucket]!;
      if (shift > 0 && size <= SORTED) return this.#among(words, from, to, prefix, shift, left);
    }
    return { word: prefix, equal: left };
  }

  /** Counts of the next bits among words whose bits from `above` up are `prefix`. */
  #tally(words: Uint32Array, from: number, to: number, prefix: number, above: number, shift: number): void {
    const counts = this.#counts;
    const bits = this.bits;
    counts.fill(0);
    if (above === 32) {
      for (let i = from; i < to; i++) counts[(words[i]! & bits) >>> shift]!++;
      return;
    }
    const low = (1 << (above - shift)) - 1;
    for (let i = from; i < to; i++) {
      const w = (words[i]! & bits) >>> 0;
      if (w >>> above === prefix) counts[(w >>> shift) & low]!++;
    }
  }

  #among(words: Uint32Array, from: number, to: number, prefix: number, shift: number, left: number): { word: number; equal: number } {
    const bits = this.bits;
    let size = 0;
    for (let i = from; i < to; i++) {
      const w = (words[i]! & bits) >>> 0;
      if (w >>> shift === prefix) this.#few[size++] = w;
    }
    const few = this.#few.subarray(0, size).sort();
    const word = few[left - 1]!;
    return { word, equal: left - few.indexOf(word) };
  }

  /** In every `of` consecutive words of [from, to) all but the `keep` largest get 0 in the mask; what is left over at the end is kept. */
  removeInGroups(words: Uint32Array, from: number, to: number, keep: number, of: number, mask: Uint8Array, at = from): void {
    const bits = this.bits;
    const remove = of - keep;
    const whole = from + Math.floor((to - from) / of) * of;
    for (let g = from, o = at; g < whole; g += of, o += of) {
      for (let i = 0; i < of; i++) {
        const w = (words[g + i]! & bits) >>> 0;
        let below = 0;
        for (let j = 0; j < i; j++) if ((words[g + j]! & bits) >>> 0 <= w) below++;
        for (let j = i + 1; j < of; j++) if ((words[g + j]! & bits) >>> 0 < w) below++;
        mask[o + i] = below < remove ? 0 : 1;
      }
    }
    mask.fill(1, at + whole - from, at + to - from);
  }

  /** The mask of (m, n) scores. */
  select(words: Uint32Array, m: number, n: number, target: Sparsity, mask: Uint8Array): void {
    if (target.group === 'layer') {
      this.removeSmallest(words, 0, m * n, Math.floor(target.ratio * m * n), mask);
      return;
    }
    for (let i = 0; i < m; i++) this.selectRow(words, i * n, n, target, mask, i * n);
  }

  /** One row of n words at `from`; the layer cannot be compared by rows. */
  selectRow(words: Uint32Array, from: number, n: number, target: Exclude<Sparsity, { group: 'layer' }>, mask: Uint8Array, at: number): void {
    if (target.group === 'n:m') this.removeInGroups(words, from, from + n, target.keep, target.of, mask, at);
    else this.removeSmallest(words, from, from + n, Math.floor(target.ratio * n), mask, at);
  }
}

/** w = +0 where the mask is 0. */
export function applyMask(w: Float32Array, mask: Uint8Array): void {
  // as words: a product with 0 would leave -0
  const words = wordsOf(w);
  for (let i = 0; i < words.length; i++) words[i] = words[i]! & -mask[i]!;
}
