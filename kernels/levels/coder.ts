/**
 * Entropy coder for the integer levels of a quantized matrix: adaptive, no tables to store. Format: docs/formats/levels.md.
 * Each level in unary, every bit's probability mixed from four adaptive models (the level's neighbours, its column's and its row's
 * mean so far, and a class that the caller gives, such as the base weight's exponent), then range-coded.
 * Binary context mixing: Mahoney, "Adaptive Weighing of Context Models for Lossless Data Compression", 2005 (PAQ).
 */
import { PithError } from '../../core/errors.js';
import { loadWasm } from '../wasm/load.js';
import { CENTROIDS, type CentroidSums } from './quantize.js';
import { reciprocals, squashTable, stretchTable } from './tables.js';

interface Exports {
  begin(...args: number[]): void;
  encodeBegin(out: number): void;
  encodeTo(out: number): void;
  position(): number;
  encodeRows(q: number, aux: number, count: number): void;
  encodeEnd(): void;
  decodeBegin(from: number, to: number): void;
  decodeFrom(from: number, to: number): void;
  unread(): number;
  missing(): number;
  decodeRows(q: number, aux: number, count: number): void;
  quantizeRows(x: number, n: number, inverse: number, q: number, sums: number, counts: number): number;
  exponentRows(stored: number, n: number, bytes: number, shift: number, mask: number, first: number, aux: number): void;
  dequantizeRows(q: number, n: number, sizes: number, step: number, out: number): void;
}

/** Classes that the caller may tell apart. */
export const CLASSES = 16;
/** A call codes at most so many levels; rows longer than that are one call each. */
const PANEL_LEVELS = 1 << 16;
/** Worst case of one level: 14 + 32 + 16 + 1 bits near their least probability, and what the coder holds back. */
const WORST_BYTES = 40;

/** Sums and counts of the levels that have centroids. */
const TOTALS_BYTES = 12 * (CENTROIDS + 1);

const FIRST_PAGE = 65536;
const align = (n: number): number => Math.ceil(n / 64) * 64;
const FIXED = { recip: 1024, stretch: 16384, squash: 8192, models: 3 * 65536, weights: 4096, escapes: 8192 } as const;

/** Where a stream's bytes come from, in order: fills the front of the target, returns how many; 0 at the end. */
export type ReadBytes = (target: Uint8Array) => Promise<number>;

export class LevelCoder {
  #at = {
    recip: 0,
    stretch: 0,
    squash: 0,
    models: 0,
    weights: 0,
    escapes: 0,
    columns: 0,
    averages: 0,
    above: 0,
    totals: 0,
    levels: 0,
    classes: 0,
    values: 0,
    stored: 0,
    stream: 0,
    end: 0,
  };

  private constructor(
    private readonly memory: WebAssembly.Memory,
    private readonly wasm: Exports,
  ) {}

  static async create(): Promise<LevelCoder> {
    const { memory, exports } = await loadWasm<Exports>('levels', 2 * FIRST_PAGE);
    return new LevelCoder(memory, exports);
  }

  /** Rows of a panel: what one call codes. */
  static panelRows(columns: number): number {
    return Math.max(1, Math.floor(PANEL_LEVELS / Math.max(1, columns)));
  }

  /** Lays out the memory for rows of `columns` levels and starts all models anew. */
  #begin(columns: number): void {
    const values = LevelCoder.panelRows(columns) * columns;
    let at = FIRST_PAGE;
    const take = (bytes: number): number => {
      const start = at;
      at += align(bytes);
      return start;
    };
    this.#at = {
      recip: take(FIXED.recip),
      stretch: take(FIXED.stretch),
      squash: take(FIXED.squash),
      models: take(FIXED.models),
      weights: take(FIXED.weights),
      escapes: take(FIXED.escapes),
      columns: take(16 * columns + 4096),
      averages: take(4 * columns),
      above: take(columns + 1),
      totals: take(TOTALS_BYTES),
      levels: take(2 * values),
      classes: take(values),
      values: take(4 * values),
      stored: take(4 * values),
      stream: take(values * WORST_BYTES + 64),
      end: 0,
    };
    this.#at.end = at;
    const missing = at - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / FIRST_PAGE));
    new Uint32Array(this.memory.buffer, this.#at.recip, 256).set(reciprocals());
    new Float32Array(this.memory.buffer, this.#at.stretch, 4096).set(stretchTable());
    new Uint16Array(this.memory.buffer, this.#at.squash, 4096).set(squashTable());
    const a = this.#at;
    this.wasm.begin(a.recip, a.stretch, a.squash, a.models, a.columns, a.weights, a.averages, a.above, a.escapes, columns);
  }

  encoder(columns: number): LevelEncoder {
    this.#begin(columns);
    const { memory, wasm } = this;
    const { stream } = this.#at;
    wasm.encodeBegin(stream);
    const taken = (): Uint8Array => new Uint8Array(memory.buffer, stream, wasm.position() - stream);
    return {
      rows: (levels, classes) => {
        wasm.encodeTo(stream);
        wasm.encodeRows(this.#put(levels), this.#classes(classes), levels.length / columns);
        return taken();
      },
      values: (values, step, centroids, against) => {
        wasm.encodeTo(stream);
        const changed = this.#quantize(values, step, centroids);
        wasm.encodeRows(this.#at.levels, this.#exponents(against, values.length), values.length / columns);
        return { bytes: taken(), changed };
      },
      end: () => {
        wasm.encodeTo(stream);
        wasm.encodeEnd();
        return taken();
      },
    };
  }

  /** How many levels are not 0. */
  #quantize(values: Float32Array, step: number, centroids: CentroidSums): number {
    const { buffer } = this.memory;
    const at = this.#at;
    new Float32Array(buffer, at.values, values.length).set(values);
    const sums = new Float64Array(buffer, at.totals, CENTROIDS + 1).fill(0);
    const counts = new Uint32Array(buffer, at.totals + sums.byteLength, CENTROIDS + 1).fill(0);
    const changed = this.wasm.quantizeRows(at.values, values.length, 1 / step, at.levels, sums.byteOffset, counts.byteOffset);
    centroids.addTotals(sums, counts, step);
    return changed;
  }

  #exponents({ bytes, field, first }: StoredClasses, n: number): number {
    new Uint8Array(this.memory.buffer, this.#at.stored, bytes.length).set(bytes);
    this.wasm.exponentRows(this.#at.stored, n, bytes.length / n, field.shift, field.mask, first, this.#at.classes);
    return this.#at.classes;
  }

  #put(levels: Int16Array): number {
    new Int16Array(this.memory.buffer, this.#at.levels, levels.length).set(levels);
    return this.#at.levels;
  }

  #classes(classes: Uint8Array | undefined): number {
    if (classes === undefined) return 0;
    new Uint8Array(this.memory.buffer, this.#at.classes, classes.length).set(classes);
    return this.#at.classes;
  }

  /** LEVELS_MALFORMED when the stream ends too early or is not used up. */
  async decoder(columns: number, read: ReadBytes): Promise<LevelDecoder> {
    this.#begin(columns);
    const { memory, wasm } = this;
    const { stream, end } = this.#at;
    const capacity = end - stream;
    let filled = 0;
    let finished = false;
    const more = async (): Promise<void> => {
      while (!finished && filled < capacity) {
        const got = await read(new Uint8Array(memory.buffer, stream + filled, capacity - filled));
        if (got === 0) finished = true;
        filled += got;
      }
    };
    const fill = async (): Promise<void> => {
      const heap = new Uint8Array(memory.buffer);
      const left = wasm.unread();
      heap.copyWithin(stream, stream + filled - left, stream + filled);
      filled = left;
      await more();
      wasm.decodeFrom(stream, stream + filled);
    };
    await more();
    wasm.decodeBegin(stream, stream + filled);
    return {
      rows: async (count, classes) => {
        await fill();
        wasm.decodeRows(this.#at.levels, this.#classes(classes), count);
        if (wasm.missing() > 0) throw new PithError('LEVELS_MALFORMED', { message: 'the stream ends too early' });
        return new Int16Array(memory.buffer, this.#at.levels, count * columns);
      },
      values: async (count, sizes, step, against) => {
        await fill();
        const n = count * columns;
        const { levels, totals, values } = this.#at;
        wasm.decodeRows(levels, this.#exponents(against, n), count);
        if (wasm.missing() > 0) throw new PithError('LEVELS_MALFORMED', { message: 'the stream ends too early' });
        new Float32Array(memory.buffer, totals, CENTROIDS + 1).set(sizes);
        wasm.dequantizeRows(levels, n, totals, step, values);
        return new Float32Array(memory.buffer, values, n);
      },
      end: async () => {
        await fill();
        if (wasm.unread() > 0) throw new PithError('LEVELS_MALFORMED', { message: `${wasm.unread()} bytes follow the last level` });
      },
    };
  }
}

/** Stored values of a float type whose exponents are the classes. */
export interface StoredClasses {
  readonly bytes: Uint8Array;
  readonly field: ExponentField;
  /** The exponent that class 0 ends with. */
  readonly first: number;
}

/** Where the exponent lies in the upper 16 bits of a value. */
export interface ExponentField {
  readonly shift: number;
  readonly mask: number;
}

export interface LevelEncoder {
  /** levels: whole rows, at most a panel; classes: one below 16 for each, in all calls or in none. The bytes are a view. */
  rows(levels: Int16Array, classes?: Uint8Array): Uint8Array;
  /** The same of values that are quantized first, their centroids summed up; `changed` levels are not 0. */
  values(values: Float32Array, step: number, centroids: CentroidSums, against: StoredClasses): { readonly bytes: Uint8Array; readonly changed: number };
  /** The last bytes. */
  end(): Uint8Array;
}

export interface LevelDecoder {
  /** The next rows, at most a panel; a view that the next call overwrites. */
  rows(count: number, classes?: Uint8Array): Promise<Int16Array>;
  /** The same as what the levels stand for: sizes[l] up to level 8, l steps above, f32; -0 for level 0. Normative. */
  values(count: number, sizes: Float32Array, step: number, against: StoredClasses): Promise<Float32Array>;
  end(): Promise<void>;
}
