/**
 * The coder of matrices with many zeros: one instance per thread, its scratch in wasm memory. Format: docs/formats/sparse.md.
 * Which words are kept, and what they are, are two streams in segments of whole rows. Both are coded in the context of a class of the
 * row and one of the column: a column whose inputs are large keeps more words, a row of small weights keeps smaller ones.
 */
import type { DenseDType } from '../lowrank/panel.js';
import { loadWasm } from '../wasm/load.js';
import { bad, Cursor, packClasses } from './bytes.js';
import { densityClasses, magnitudeClasses } from './classes.js';
import { maskColumns, type MaskHead, type ValueHead } from './heads.js';
import { layout, SEGMENT_WORDS } from './memory.js';
import { fillTable, GROUP_SIZES, patternBits, patternsOf, type Patterns } from './patterns.js';
import { BIT_SHIFT, BYTE_SHIFT, readSymbols, writeSymbols } from './symbols.js';
import type { PrunedExports } from './wasm-exports.js';

const [RAW, CODED] = [0, 1] as const;
/** Tokens an octave: 2^3. */
const OCTAVE_BITS = 3;
/** Tokens below a matrix's mean magnitude; the other 94 are above it. */
const TOKENS_BELOW = 160;
/** What a kept bf16 takes, about. */
const WORD_BITS = 9;

/** Magnitude bits under the token, of the upper 16 bits of a value; with the sign they are stored as they are. */
export const lowBits = (dtype: DenseDType): number => (dtype === 'F16' ? 10 : 7) - OCTAVE_BITS;
export const wordBytes = (dtype: DenseDType): 2 | 4 => (dtype === 'F32' ? 4 : 2);

/** Rows of a segment of a matrix of n columns. */
export const segmentRows = (n: number): number => Math.max(1, Math.floor(SEGMENT_WORDS / Math.max(1, n)));

/** Sums over a whole matrix, from which its heads are made. */
export interface MatrixSums {
  readonly rows: number;
  readonly kept: Float64Array;
  /** Of the kept words' magnitudes / 8. */
  readonly magnitude: Float64Array;
  /** Most words kept in a group of GROUP_SIZES[i] columns. */
  readonly most: readonly number[];
}

export function noSums(n: number): MatrixSums {
  return { rows: 0, kept: new Float64Array(n), magnitude: new Float64Array(n), most: GROUP_SIZES.map(() => 0) };
}

export class PrunedCoder {
  #lowUsed = false;

  private constructor(
    private readonly wasm: PrunedExports,
    private readonly memory: WebAssembly.Memory,
  ) {}

  static async create(): Promise<PrunedCoder> {
    const { exports, memory } = await loadWasm<PrunedExports>('pruned', layout.end);
    return new PrunedCoder(exports, memory);
  }

  #bytes(at: number, n: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, at, n);
  }

  /** A view of a segment's words for the caller to fill; at most SEGMENT_WORDS of them. */
  reserve(dtype: DenseDType, words: number): Uint8Array {
    return this.#bytes(dtype === 'F32' ? layout.words : layout.high, words * wordBytes(dtype));
  }

  /** Takes the words that were filled in, (rows, n): marks those that are not +0 and answers how many. */
  load(dtype: DenseDType, rows: number, n: number): number {
    this.#lowUsed = dtype === 'F32' && this.wasm.splitHalves(layout.words, rows * n, layout.high, layout.low) !== 0;
    return this.wasm.mark(layout.high, this.#lowUsed ? layout.low : 0, rows * n, layout.mask);
  }

  /** The loaded segment's sums, added to those of the matrix. */
  addSums(to: MatrixSums, rows: number, n: number): MatrixSums {
    const { columnKept, columnSum, rowKept, rowSum } = layout;
    const [kept, sum] = [new Uint32Array(this.memory.buffer, columnKept, n).fill(0), new Uint32Array(this.memory.buffer, columnSum, n).fill(0)];
    this.wasm.sums(layout.mask, layout.high, rows, n, columnKept, columnSum, rowKept, rowSum);
    for (let j = 0; j < n; j++) {
      to.kept[j]! += kept[j]!;
      to.magnitude[j]! += sum[j]!;
    }
    const most = GROUP_SIZES.map((g, i) => Math.max(to.most[i]!, to.most[i] === g ? g : this.wasm.mostInGroup(layout.mask, rows, n, g)));
    return { ...to, rows: to.rows + rows, most };
  }

  /** The mask of the loaded segment. From here on what is kept is what the patterns keep, some +0 among it. */
  encodeMask(head: MaskHead, rows: number, n: number): Uint8Array {
    const { patterns } = head;
    const columns = maskColumns(n, patterns);
    let rowClasses: Uint8Array | undefined;
    if (patterns === undefined) {
      this.wasm.sums(layout.mask, layout.high, rows, n, layout.columnKept, layout.columnSum, layout.rowKept, layout.rowSum);
      rowClasses = densityClasses(new Uint32Array(this.memory.buffer, layout.rowKept, rows), n);
      this.#bytes(layout.tokens, rows * n).set(this.#bytes(layout.mask, rows * n));
    } else {
      this.#putPatterns(patterns);
      this.wasm.toPatterns(layout.mask, rows, n, patterns.of, layout.fill, layout.patterns, layout.tokens);
    }
    this.#gridContexts(rowClasses, head.columnClasses, rows, columns);
    const symbols = writeSymbols(this.wasm, this.memory, rows * columns, patterns === undefined ? BIT_SHIFT : BYTE_SHIFT);
    const coded = Buffer.concat([Uint8Array.of(CODED), packClasses(rowClasses), symbols]);
    const bits = Math.ceil((rows * n) / 8);
    if (patterns !== undefined || coded.length <= 1 + bits) return coded;
    this.wasm.packBits(layout.mask, rows * n, layout.packed);
    return Buffer.concat([Uint8Array.of(RAW), this.#bytes(layout.packed, bits)]);
  }

  /** The kept words of the loaded segment, after its mask. */
  encodeValues(head: ValueHead, dtype: DenseDType, rows: number, n: number): Uint8Array {
    const w = this.wasm;
    const kept = w.countOnes(layout.mask, rows * n);
    const s = lowBits(dtype);
    w.sums(layout.mask, layout.high, rows, n, layout.columnKept, layout.columnSum, layout.rowKept, layout.rowSum);
    const { buffer } = this.memory;
    const rowClasses = magnitudeClasses(new Uint32Array(buffer, layout.rowSum, rows), new Uint32Array(buffer, layout.rowKept, rows), s - lowBits('BF16'));
    w.gather(layout.mask, layout.high, rows * n, layout.kept);
    this.#keptContexts(rowClasses, head.columnClasses, rows, n);
    const escaped = w.valueTokens(layout.kept, kept, head.first, s, layout.tokens, layout.raw, layout.escapes);
    w.packRaw(layout.raw, kept, s + 1, layout.packed);
    const low = this.#lowUsed ? 2 * kept : 0;
    if (low > 0) w.gather(layout.mask, layout.low, rows * n, layout.keptLow);
    const count = Buffer.alloc(4);
    count.writeUInt32LE(escaped);
    const coded = Buffer.concat([
      Uint8Array.of(low > 0 ? CODED + 1 : CODED),
      packClasses(rowClasses),
      writeSymbols(w, this.memory, kept, BYTE_SHIFT),
      count,
      this.#bytes(layout.escapes, 2 * escaped),
      this.#bytes(layout.packed, rawBytes(kept, s)),
      this.#bytes(layout.keptLow, low),
    ]);
    const width = wordBytes(dtype);
    if (coded.length <= 1 + kept * width) return coded;
    if (width === 2) return Buffer.concat([Uint8Array.of(RAW), this.#bytes(layout.kept, 2 * kept)]);
    return Buffer.concat([
      Uint8Array.of(RAW),
      this.#bytes(layout.kept, 2 * kept),
      this.#lowUsed ? this.#bytes(layout.keptLow, 2 * kept) : new Uint8Array(2 * kept),
    ]);
  }

  /** Answers how many words are kept. SPARSE_MALFORMED or RESIDUAL_MALFORMED for damaged input. */
  decodeMask(segment: Uint8Array, head: MaskHead, rows: number, n: number): number {
    const c = new Cursor(segment);
    const { patterns } = head;
    const form = c.u8();
    if (form === RAW && patterns === undefined) {
      this.#bytes(layout.packed, Math.ceil((rows * n) / 8)).set(c.take(Math.ceil((rows * n) / 8)));
      this.wasm.unpackBits(layout.packed, rows * n, layout.mask);
    } else {
      if (form !== CODED) bad(`a mask of form ${form}`);
      const columns = maskColumns(n, patterns);
      this.#gridContexts(c.classes(rows), head.columnClasses, rows, columns);
      readSymbols(this.wasm, this.memory, c, rows * columns, patterns === undefined ? BIT_SHIFT : BYTE_SHIFT);
      if (patterns === undefined) this.#bytes(layout.mask, rows * n).set(this.#bytes(layout.tokens, rows * n));
      else {
        this.#putPatterns(patterns);
        if (this.wasm.fromPatterns(layout.tokens, rows, n, patterns.of, layout.patterns, patterns.bits.length, layout.mask) !== 0) bad('an unknown pattern');
      }
    }
    c.end();
    return this.wasm.countOnes(layout.mask, rows * n);
  }

  /** The segment's words, from its mask that was decoded just before: a view that the next call overwrites. */
  decodeValues(segment: Uint8Array, head: ValueHead, dtype: DenseDType, rows: number, n: number, kept: number): Uint8Array {
    const c = new Cursor(segment);
    const width = wordBytes(dtype);
    const form = c.u8();
    let low: boolean;
    if (form === RAW) {
      this.#bytes(layout.kept, 2 * kept).set(c.take(2 * kept));
      low = width === 4;
    } else {
      if (form !== CODED && (form !== CODED + 1 || width !== 4)) bad(`values of form ${form}`);
      low = form === CODED + 1;
      this.#decodeCoded(c, head, dtype, rows, n, kept);
    }
    if (low) this.#bytes(layout.keptLow, 2 * kept).set(c.take(2 * kept));
    c.end();
    if (width === 2) this.wasm.scatter16(layout.mask, layout.kept, rows * n, layout.words);
    else this.wasm.scatter32(layout.mask, layout.kept, low ? layout.keptLow : 0, rows * n, layout.words);
    return this.#bytes(layout.words, rows * n * width);
  }

  #decodeCoded(c: Cursor, head: ValueHead, dtype: DenseDType, rows: number, n: number, kept: number): void {
    const s = lowBits(dtype);
    this.#keptContexts(c.classes(rows), head.columnClasses, rows, n);
    readSymbols(this.wasm, this.memory, c, kept, BYTE_SHIFT);
    const escaped = c.u32();
    if (this.wasm.countZero(layout.tokens, kept) !== escaped) bad(`${escaped} whole words, other than the tokens say`);
    this.#bytes(layout.escapes, 2 * escaped).set(c.take(2 * escaped));
    this.#bytes(layout.packed, rawBytes(kept, s)).set(c.take(rawBytes(kept, s)));
    this.wasm.valueWords(layout.tokens, layout.packed, layout.escapes, kept, head.first, s, layout.kept);
  }

  #putClasses(at: number, classes: Uint8Array | undefined): number {
    if (classes === undefined) return 0;
    this.#bytes(at, classes.length).set(classes);
    return at;
  }

  #gridContexts(rowClasses: Uint8Array | undefined, columnClasses: Uint8Array | undefined, rows: number, columns: number): void {
    const [r, c] = [this.#putClasses(layout.rowClasses, rowClasses), this.#putClasses(layout.columnClasses, columnClasses)];
    this.wasm.gridContexts(r, c, rows, columns, layout.contexts);
  }

  #keptContexts(rowClasses: Uint8Array | undefined, columnClasses: Uint8Array | undefined, rows: number, n: number): void {
    const [r, c] = [this.#putClasses(layout.rowClasses, rowClasses), this.#putClasses(layout.columnClasses, columnClasses)];
    this.wasm.keptContexts(layout.mask, r, c, rows, n, layout.contexts);
  }

  #putPatterns(patterns: Patterns): void {
    this.#bytes(layout.patterns, 256).fill(0).set(patterns.bits);
    this.#bytes(layout.fill, 256).set(fillTable(patterns));
  }
}

/** Sign and low bits of the kept words: 8 of them take s + 1 bytes. */
const rawBytes = (kept: number, s: number): number => Math.ceil(kept / 8) * (s + 1);

/** Heads that suit a matrix. */
export function headsFor(sums: MatrixSums, dtype: DenseDType): { mask: MaskHead; values: ValueHead; kept: number } {
  const n = sums.kept.length;
  const [kept, magnitude] = [total(sums.kept), total(sums.magnitude)];
  const patterns = patternsFor(sums, kept / Math.max(1, n * sums.rows));
  const maskClasses = patterns === undefined ? densityClasses(sums.kept, sums.rows) : undefined;
  const s = lowBits(dtype);
  const valueClasses = magnitudeClasses(sums.magnitude, sums.kept, s - lowBits('BF16'));
  const mean = kept === 0 ? 0 : Math.floor((magnitude / kept) * 8) >> s;
  const first = Math.max(0, mean - TOKENS_BELOW);
  return {
    mask: { ...(patterns === undefined ? {} : { patterns }), ...(maskClasses === undefined ? {} : { columnClasses: maskClasses }) },
    values: { first, ...(valueClasses === undefined ? {} : { columnClasses: valueClasses }) },
    kept,
  };
}

/** The patterns that every group fits, where they and the words that they keep take less than each word's own bit and what it keeps. */
function patternsFor({ most, kept, rows }: MatrixSums, density: number): Patterns | undefined {
  const cost = (p: Patterns): number => patternBits(p) + (WORD_BITS * p.keep) / p.of;
  const fits = GROUP_SIZES.map((g, i) => (g <= kept.length && rows > 0 && most[i]! > 0 && most[i]! < g ? patternsOf(most[i]!, g) : undefined));
  const best = fits.filter((p) => p !== undefined).sort((a, b) => cost(a) - cost(b))[0];
  const bits = density === 0 || density === 1 ? 0 : -density * Math.log2(density) - (1 - density) * Math.log2(1 - density);
  return best !== undefined && cost(best) < bits + WORD_BITS * density ? best : undefined;
}

const total = (values: Float64Array): number => values.reduce((sum, v) => sum + v, 0);
