/**
 * The residual coder: one instance per thread, its scratch in wasm memory. Format: docs/formats/residual.md.
 * Segment = at most 2^20 words with their own tables; chunk = at most 2^17 words with their own coder state.
 * Longer than other kernels: encoder and decoder share one memory layout and one order of fields, and are read side by side.
 */
import type { DType } from '../../core/dtype.js';
import { PithError } from '../../core/errors.js';
import { loadWasm } from '../wasm/load.js';
import { FIRST_STATE, LANES, putDecoderTables, putEncoderTables, SLOT_TABLE_BYTES, STATE_BYTES } from './rans-tables.js';
import { makeTables, readTables, writeTables, CONTEXTS, MAX_TABLES, type Histogram, type Tables } from './tables.js';
import { wordKind, type WordKind } from './words.js';
import type { ResidualExports } from './wasm-exports.js';

export const SEGMENT_ELEMENTS = 1 << 20;
export const CHUNK_ELEMENTS = 1 << 17;
const BLOCK = 64;

export const MODES = ['identical', 'raw', 'dense', 'sparse', 'plane'] as const;
export type Mode = (typeof MODES)[number];
const modeCode = (m: Mode): number => MODES.indexOf(m);

/** Below this changed share gaps cost fewer bits than zeros do. */
const SPARSE_SHARE = 0.02;

/** Bytes of the segment head before the tables: mode, zeros, ebase, tables' length, level base, first level. */
const HEAD_BYTES = 10;
/** A chunk that is being decoded, in wasm memory: states, level, word pointer, bit pointer, bits held, the bits. */
const CHUNK_STATE_BYTES = 64;
/** Words that a pair of chunks is decoded for before the pair is chosen anew. */
const PAIR_WORDS = 1 << 14;

export function segmentCount(elements: number): number {
  return Math.ceil(elements / SEGMENT_ELEMENTS);
}

/** Words [from, to) of segment `index`. */
export function segmentSpan(elements: number, index: number): [from: number, to: number] {
  return [index * SEGMENT_ELEMENTS, Math.min(elements, (index + 1) * SEGMENT_ELEMENTS)];
}

// wasm memory, in bytes; the first page is left to the module
const SLACK = 1024;
const layout = (() => {
  let at = 65536;
  const take = (bytes: number): number => {
    const start = at;
    at += Math.ceil((bytes + SLACK) / 64) * 64;
    return start;
  };
  const words = SEGMENT_ELEMENTS * 4;
  return {
    base: take(words),
    tuned: take(words),
    tokens: take(SEGMENT_ELEMENTS),
    contexts: take(SEGMENT_ELEMENTS),
    positions: take(CHUNK_ELEMENTS * 4),
    z: take(BLOCK * 4),
    histogram: take(CONTEXTS * 256 * 4),
    histogram2: take(CONTEXTS * 256 * 4),
    map: take(CONTEXTS),
    tables: take(MAX_TABLES * SLOT_TABLE_BYTES),
    frequencies: take(512),
    states: take(STATE_BYTES),
    chunks: take((SEGMENT_ELEMENTS / CHUNK_ELEMENTS) * CHUNK_STATE_BYTES),
    bits: take(words),
    stream: take(words + words),
    words: take(CHUNK_ELEMENTS * 2 + 64),
    out: take(words + words),
    get end() {
      return at;
    },
  };
})();
const STREAM_END = layout.stream + SEGMENT_ELEMENTS * 8;
const WORDS_END = layout.words + CHUNK_ELEMENTS * 2 + 64;

export interface SegmentStats {
  readonly mode: Mode;
  readonly changed: number;
}

interface Head {
  readonly zeros: number;
  readonly ebase: number;
  readonly levelBase: number;
  /** High 16 bits of the f32 that the running level starts at. */
  readonly level0: number;
}

/** One chunk while it is decoded. */
interface Chunk {
  /** Its CHUNK_STATE_BYTES in wasm memory. */
  readonly state: number;
  readonly wordEnd: number;
  readonly bitEnd: number;
  /** First word in the segment, number of words; sparse: of changed words. */
  readonly first: number;
  readonly n: number;
  readonly k: number;
  done: number;
}

interface Piece {
  readonly symbols: number;
  readonly bitBytes: number;
}

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);
const fromBits = (high: number): number => ((u32[0] = high << 16), f32[0]!);
const toBits = (v: number): number => ((f32[0] = v), u32[0]!);

const bad = (message: string): never => {
  throw new PithError('RESIDUAL_MALFORMED', { message });
};

export class ResidualCodec {
  readonly #wasm: ResidualExports;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #stats: SegmentStats = { mode: 'identical', changed: 0 };

  private constructor(wasm: ResidualExports, memory: WebAssembly.Memory) {
    this.#wasm = wasm;
    this.#bytes = new Uint8Array(memory.buffer);
    this.#view = new DataView(memory.buffer);
  }

  static async create(): Promise<ResidualCodec> {
    const { exports, memory } = await loadWasm<ResidualExports>('residual', layout.end);
    return new ResidualCodec(exports, memory);
  }

  /** Of the segment that was coded or decoded last. */
  get stats(): SegmentStats {
    return this.#stats;
  }

  /** Views that the caller fills, of one segment's bytes. */
  reserve(bytes: number): { base: Uint8Array; tuned: Uint8Array } {
    if (bytes > SEGMENT_ELEMENTS * 4) throw new PithError('INTERNAL', { message: `a segment of ${bytes} bytes` });
    return { base: this.#bytes.subarray(layout.base, layout.base + bytes), tuned: this.#bytes.subarray(layout.tuned, layout.tuned + bytes) };
  }

  /** One segment of `elements` words; a view that the next call overwrites. */
  encodeSegment(dtype: DType, elements: number, hasBase: boolean): Uint8Array {
    const kind = wordKind(dtype);
    const rawBytes = (elements * kind.width) / 8;
    const changed = hasBase ? this.#wasm.countChanged(layout.base, layout.tuned, rawBytes, kind.width) : elements;
    const mode: Mode = !hasBase ? 'plane' : changed === 0 ? 'identical' : changed < elements * SPARSE_SHARE ? 'sparse' : 'dense';
    this.#stats = { mode, changed };
    if (mode === 'identical') {
      this.#bytes[layout.out] = modeCode(mode);
      return this.#bytes.subarray(layout.out, layout.out + 1);
    }
    const coded = elements === 0 ? undefined : this.#encodeCoded(kind, elements, mode);
    if (coded !== undefined && coded.length <= rawBytes) return coded;
    this.#stats = { mode: 'raw', changed };
    this.#bytes[layout.out] = modeCode('raw');
    this.#bytes.copyWithin(layout.out + 1, layout.tuned, layout.tuned + rawBytes);
    return this.#bytes.subarray(layout.out, layout.out + 1 + rawBytes);
  }

  #encodeCoded(kind: WordKind, elements: number, mode: Mode): Uint8Array | undefined {
    const head = this.#head(kind, elements, mode);
    const shift = tokenShift(kind, mode);
    this.#bytes.fill(0, layout.histogram, layout.histogram + (CONTEXTS << shift) * 4);
    this.#bytes.fill(0, layout.histogram2, layout.histogram2 + (CONTEXTS << shift) * 4);
    const pieces = this.#tokenize(kind, elements, mode, head, shift);
    if (pieces === undefined) return undefined;
    const tables = makeTables(this.#histogram(shift));
    this.#encoderTables(tables, 1 << shift);
    return this.#assemble(mode, head, writeTables(tables), pieces, shift);
  }

  /** Settings that fit this segment's data, from a sample. */
  #head(kind: WordKind, elements: number, mode: Mode): Head {
    if (mode === 'plane') return this.#planeHead(kind, elements);
    const { width, sign, mantissaBits, exponentMask, exponentAdd } = kind;
    const wb = width / 8;
    let top = 0;
    const step = Math.max(1, Math.floor(elements / 1024));
    for (let i = 0; i < elements; i += step) top = Math.max(top, (this.#word(layout.base, i, width) >>> mantissaBits) & exponentMask);
    const or = width === 32 ? this.#wasm.orWords(layout.base, elements) | this.#wasm.orWords(layout.tuned, elements) : 1;
    const zeros = or === 0 ? 0 : Math.min(mantissaBits, 31 - Math.clz32(or & -or));
    const levels: number[] = [];
    const blocks = Math.floor(elements / BLOCK);
    for (let s = 0; mode === 'dense' && s < Math.min(64, blocks); s++) {
      const at = Math.floor((s * blocks) / Math.min(64, blocks)) * BLOCK * wb;
      const level = this.#wasm.blockLevel(layout.base + at, layout.tuned + at, width, sign, mantissaBits, exponentMask, exponentAdd, zeros);
      if (level > 0) levels.push(toBits(level));
    }
    levels.sort((a, b) => a - b);
    const median = levels[levels.length >> 1] ?? 0;
    return {
      zeros,
      ebase: Math.max(0, top - 14),
      levelBase: Math.max(0, (median >>> 22) - 10),
      level0: median >>> 16,
    };
  }

  #planeHead(kind: WordKind, elements: number): Head {
    const { width, sign, mantissaBits, exponentMask } = kind;
    let sum = 0;
    let n = 0;
    const step = Math.max(1, Math.floor(elements / 1024));
    for (let i = 0; i < elements; i += step, n++) sum += (this.#word(layout.tuned, i, width) >>> mantissaBits) & exponentMask;
    const mean = sign === 2 && n > 0 ? (sum / n) * 64 : 0;
    const or = sign === 2 && width === 32 ? this.#wasm.orWords(layout.tuned, elements) : 1;
    return {
      zeros: or === 0 ? 0 : Math.min(mantissaBits, 31 - Math.clz32(or & -or)),
      ebase: 0,
      levelBase: Math.max(0, (Math.floor(mean) >> 4) - 8),
      level0: toBits(mean) >>> 16,
    };
  }

  #word(at: number, index: number, width: number): number {
    if (width === 16) return this.#view.getUint16(at + index * 2, true);
    return width === 32 ? this.#view.getUint32(at + index * 4, true) : this.#view.getUint8(at + index);
  }

  /** Pass A over all chunks; undefined when the raw bits alone are as large as the data. */
  #tokenize(kind: WordKind, elements: number, mode: Mode, head: Head, shift: number): Piece[] | undefined {
    const w = this.#wasm;
    const { width, sign, mantissaBits: mb, exponentMask: em, exponentAdd: ea } = kind;
    const pieces: Piece[] = [];
    let bitsAt = layout.bits;
    let symbolsAt = 0;
    const limit = layout.bits + (elements * width) / 8;
    for (let from = 0; from < elements; from += CHUNK_ELEMENTS) {
      const n = Math.min(CHUNK_ELEMENTS, elements - from);
      const a = layout.base + (from * width) / 8;
      const b = layout.tuned + (from * width) / 8;
      const tok = layout.tokens + symbolsAt;
      const ctx = layout.contexts + symbolsAt;
      w.bitsBegin(bitsAt);
      w.setLevel(fromBits(head.level0));
      let symbols = n;
      if (mode === 'sparse') {
        const k = w.findChanged(a, b, n, width, layout.positions);
        symbols = 2 * k;
        if (symbolsAt + symbols > SEGMENT_ELEMENTS) return undefined;
        w.sparseTokens(a, b, layout.positions, k, tok, ctx, layout.histogram, shift, width, sign, mb, em, head.ebase, head.zeros);
      } else if (mode === 'plane') {
        w.planeTokens(b, n, tok, ctx, layout.histogram, shift, width, sign, mb, head.levelBase, head.zeros);
      } else {
        const hist2 = layout.histogram2;
        w.denseTokens(a, b, n, tok, ctx, layout.z, layout.histogram, hist2, shift, width, sign, mb, em, head.ebase, ea, head.levelBase, head.zeros);
      }
      const bitsEnd = w.bitsEnd();
      if (bitsEnd > limit) return undefined;
      pieces.push({ symbols, bitBytes: bitsEnd - bitsAt });
      bitsAt = bitsEnd;
      symbolsAt += symbols;
    }
    return pieces;
  }

  /** Both histograms as one; the sums of its rows take the place of the second. */
  #histogram(shift: number): Histogram {
    this.#wasm.sumRows(layout.histogram, layout.histogram2, CONTEXTS, 1 << shift, layout.histogram2);
    const { buffer } = this.#bytes;
    return {
      symbols: 1 << shift,
      counts: new Uint32Array(buffer, layout.histogram, CONTEXTS << shift),
      sums: new Uint32Array(buffer, layout.histogram2, 3 * CONTEXTS),
    };
  }

  #encoderTables(tables: Tables, symbols: number): void {
    this.#bytes.set(tables.map, layout.map);
    putEncoderTables(this.#view, layout.tables, tables, symbols);
  }

  /** Pass B: each chunk's symbols, from the last to the first, and everything into one segment. */
  #assemble(mode: Mode, head: Head, tables: Uint8Array, pieces: readonly Piece[], shift: number): Uint8Array {
    const v = this.#view;
    const sparse = mode === 'sparse';
    v.setUint8(layout.out, modeCode(mode));
    v.setUint8(layout.out + 1, head.zeros);
    v.setUint16(layout.out + 2, head.ebase, true);
    v.setUint16(layout.out + 4, tables.length, true);
    v.setUint16(layout.out + 6, head.levelBase, true);
    v.setUint16(layout.out + 8, head.level0, true);
    this.#bytes.set(tables, layout.out + HEAD_BYTES);
    let index = layout.out + HEAD_BYTES + tables.length;
    let at = index + pieces.length * indexBytes(sparse);
    let symbolsAt = 0;
    let bitsAt = layout.bits;
    for (const p of pieces) {
      const words = this.#encodeWords(symbolsAt, p.symbols, sparse, shift);
      v.setUint32(index, words.length, true);
      v.setUint32(index + 4, p.bitBytes, true);
      if (sparse) v.setUint32(index + 8, p.symbols / 2, true);
      index += indexBytes(sparse);
      this.#bytes.copyWithin(at, layout.states, layout.states + STATE_BYTES);
      this.#bytes.set(words, at + STATE_BYTES);
      at += STATE_BYTES + words.length;
      this.#bytes.copyWithin(at, bitsAt, bitsAt + p.bitBytes);
      at += p.bitBytes;
      bitsAt += p.bitBytes;
      symbolsAt += p.symbols;
    }
    return this.#bytes.subarray(layout.out, at);
  }

  #encodeWords(symbolsAt: number, symbols: number, sparse: boolean, shift: number): Uint8Array {
    const w = this.#wasm;
    for (let lane = 0; lane < LANES; lane++) this.#view.setUint32(layout.states + lane * 4, FIRST_STATE, true);
    w.wordsBegin(WORDS_END);
    const run = (from: number, n: number): void =>
      w.ransEncode(layout.tokens + from, layout.contexts + from, n, layout.map, layout.tables, shift, layout.states);
    if (sparse) {
      run(symbolsAt + symbols / 2, symbols / 2);
      run(symbolsAt, symbols / 2);
    } else run(symbolsAt, symbols);
    return this.#bytes.subarray(w.words(), WORDS_END);
  }

  /** Decodes into the `tuned` view from the `base` view. RESIDUAL_MALFORMED on damaged input. */
  decodeSegment(segment: Uint8Array, dtype: DType, elements: number, hasBase: boolean): void {
    this.decodeRange(segment, dtype, elements, hasBase, 0, elements);
  }

  /** Only the chunks that hold words [from, to); the base view must hold those chunks' words. */
  decodeRange(segment: Uint8Array, dtype: DType, elements: number, hasBase: boolean, from: number, to: number): void {
    const kind = wordKind(dtype);
    const wb = kind.width / 8;
    if (segment.length === 0) bad('an empty segment');
    const mode = MODES[segment[0]!] ?? bad(`mode ${segment[0]!}`);
    this.#stats = { mode, changed: mode === 'identical' ? 0 : elements };
    if (mode === 'identical') {
      if (!hasBase || segment.length !== 1) bad('an identical segment with data or without a base');
      this.#bytes.copyWithin(layout.tuned + from * wb, layout.base + from * wb, layout.base + to * wb);
      return;
    }
    if (mode === 'raw') {
      if (segment.length !== 1 + elements * wb) bad('a raw segment of another size');
      this.#bytes.set(segment.subarray(1 + from * wb, 1 + to * wb), layout.tuned + from * wb);
      return;
    }
    if (hasBase === (mode === 'plane')) bad(`mode ${mode} ${hasBase ? 'with' : 'without'} a base`);
    this.#decodeCoded(segment, kind, elements, mode, from, to);
  }

  #decodeCoded(segment: Uint8Array, kind: WordKind, elements: number, mode: Mode, from: number, to: number): void {
    const v = new DataView(segment.buffer, segment.byteOffset, segment.byteLength);
    if (segment.length < HEAD_BYTES) bad('a segment that ends in its head');
    const head: Head = { zeros: segment[1]!, ebase: v.getUint16(2, true), levelBase: v.getUint16(6, true), level0: v.getUint16(8, true) };
    if (head.zeros > kind.mantissaBits) bad(`${head.zeros} trailing zeros`);
    const indexAt = HEAD_BYTES + v.getUint16(4, true);
    const chunks = Math.ceil(elements / CHUNK_ELEMENTS);
    const sparse = mode === 'sparse';
    let at = indexAt + chunks * indexBytes(sparse);
    if (at > segment.length) bad('a segment that ends in its index');
    this.#decoderTables(readTables(segment.subarray(HEAD_BYTES, indexAt), tokenLimit(kind, mode)));
    const parts: Chunk[] = [];
    let streamAt = layout.stream;
    for (let c = 0; c < chunks; c++) {
      const i = indexAt + c * indexBytes(sparse);
      const words = v.getUint32(i, true);
      const bytes = STATE_BYTES + words + v.getUint32(i + 4, true);
      if (bytes > segment.length - at) bad('a chunk that leaves its segment');
      const first = c * CHUNK_ELEMENTS;
      const n = Math.min(CHUNK_ELEMENTS, elements - first);
      if (first < to && first + n > from) {
        const k = sparse ? v.getUint32(i + 8, true) : n;
        if (k > n || streamAt + bytes > STREAM_END) bad('a chunk larger than its words');
        this.#bytes.set(segment.subarray(at, at + bytes), streamAt);
        parts.push(this.#openChunk(parts.length, streamAt, words, bytes, first, n, k, head));
        streamAt += bytes;
      }
      at += bytes;
    }
    if (at !== segment.length) bad('bytes after the last chunk');
    if (mode === 'dense' && kind.width === 16 && kind.sign === 2) this.#decodePairs(parts, kind, head);
    for (const c of parts) this.#decodeChunk(c, kind, mode, head);
  }

  #openChunk(index: number, at: number, words: number, bytes: number, first: number, n: number, k: number, head: Head): Chunk {
    const state = layout.chunks + index * CHUNK_STATE_BYTES;
    const wordEnd = at + STATE_BYTES + words;
    this.#bytes.copyWithin(state, at, at + STATE_BYTES);
    this.#view.setFloat32(state + 32, fromBits(head.level0), true);
    this.#view.setUint32(state + 36, at + STATE_BYTES, true);
    this.#view.setUint32(state + 40, wordEnd, true);
    this.#bytes.fill(0, state + 44, state + CHUNK_STATE_BYTES);
    return { state, wordEnd, bitEnd: at + bytes, first, n, k, done: 0 };
  }

  /** Whole blocks of 16-bit floats, always the two chunks that have most left, until one is left. */
  #decodePairs(parts: readonly Chunk[], kind: WordKind, head: Head): void {
    const left = (c: Chunk): number => Math.floor((c.n - c.done) / BLOCK) * BLOCK;
    const { tokens, contexts, map, tables } = layout;
    for (;;) {
      const [x, y] = [...parts].sort((p, q) => left(q) - left(p));
      const m = y === undefined ? 0 : Math.min(PAIR_WORDS, left(y));
      if (x === undefined || y === undefined || m === 0) return;
      const places = [x, y].flatMap((c) => [c.state, layout.base + 2 * (c.first + c.done), layout.tuned + 2 * (c.first + c.done)]);
      const { mantissaBits: mb, exponentMask: em, exponentAdd: ea } = kind;
      this.#wasm.denseDecodePair(...places, m, tokens, contexts, map, tables, mb, em, head.ebase, ea, head.levelBase);
      for (const c of [x, y]) {
        c.done += m;
        const bits = this.#view.getUint32(c.state + 40, true) - (this.#view.getInt32(c.state + 44, true) >> 3);
        if (this.#view.getUint32(c.state + 36, true) > c.wordEnd || bits > c.bitEnd) bad('a chunk does not end where it should');
      }
    }
  }

  #decoderTables(tables: Tables): void {
    this.#bytes.set(tables.map, layout.map);
    putDecoderTables(this.#wasm, this.#view.buffer as ArrayBuffer, layout.frequencies, layout.tables, tables);
  }

  #decodeChunk(c: Chunk, kind: WordKind, mode: Mode, head: Head): void {
    const w = this.#wasm;
    const { width, sign, mantissaBits: mb, exponentMask: em, exponentAdd: ea } = kind;
    const { state: states, wordEnd, bitEnd, k } = c;
    const n = c.n - c.done;
    const a = layout.base + ((c.first + c.done) * width) / 8;
    const b = layout.tuned + ((c.first + c.done) * width) / 8;
    const { tokens: tok, contexts: ctx, map, tables, positions } = layout;
    w.enter(states);
    let failed: number;
    if (mode === 'dense') {
      failed = w.denseDecode(a, b, n, tok, ctx, map, tables, states, wordEnd, bitEnd, width, sign, mb, em, head.ebase, ea, head.levelBase, head.zeros);
    } else if (mode === 'plane') {
      failed = w.planeDecode(b, n, tok, ctx, map, tables, states, wordEnd, bitEnd, width, sign, mb, head.levelBase, head.zeros);
    } else {
      this.#bytes.fill(0, ctx, ctx + k);
      w.ransDecode(tok, ctx, k, map, tables, states);
      failed = w.words() > wordEnd ? 1 : w.sparsePositions(tok, k, n, positions);
      if (failed === 0) {
        this.#bytes.copyWithin(b, a, a + (n * width) / 8);
        w.sparseContexts(a, positions, k, ctx, width, mb, em, head.ebase);
        w.ransDecode(tok, ctx, k, map, tables, states);
        w.sparseApply(a, b, positions, k, tok, width, sign, head.zeros);
      }
    }
    if (failed !== 0 || w.words() !== wordEnd || w.bits() !== bitEnd) bad('a chunk does not end where it should');
  }
}

/** Bytes of one chunk's entry in the segment's index: word bytes, bit bytes, and for sparse the changed count. */
const indexBytes = (sparse: boolean): number => (sparse ? 12 : 8);

/** log2 of the histogram's row length. */
function tokenShift(kind: WordKind, mode: Mode): number {
  if (mode === 'plane' && kind.sign === 2) return kind.exponentMask > 63 ? 8 : 6;
  return kind.width === 32 ? 7 : 6;
}

/** Tokens that may occur: a token is 32 + 2 (floor(log2 z) - 5) + next bit, or an exponent. */
function tokenLimit(kind: WordKind, mode: Mode): number {
  if (mode === 'plane' && kind.sign === 2) return kind.exponentMask + 1;
  // a gap is below 2^17
  const bits = mode === 'sparse' ? Math.max(17, kind.width) : kind.width;
  return 32 + 2 * (bits - 5);
}
