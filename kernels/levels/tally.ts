/** Level counts of many values at once, in wasm: what rates and errors of a quantizer step are estimated from. */
import { loadWasm } from '../wasm/load.js';
import { CENTROIDS } from './quantize.js';

interface Exports {
  tallyColumns(x: number, rows: number, stride: number, columns: number, inverse: number, counts: number, tops: number, sums: number): void;
  tallyClasses(x: number, classes: number, n: number, inverse: number, levels: number, counts: number, tops: number, sums: number): void;
  levelError(w0: number, w1: number, levels: number, n: number, sizes: number, step: number, bf16: number): number;
}

const FIRST_PAGE = 65536;
/** Values in flight at most. */
const CHUNK_VALUES = 1 << 18;
/** Counts of a column: levels 0 to 62, and all above. */
export const COLUMN_TOPS = 64;
/** Sums of a column: |x| of levels 1 to 8, each at its own place, l |x| and l^2 of the levels above. */
export const COLUMN_SUMS = 12;
export const BEYOND = { product: CENTROIDS + 1, square: CENTROIDS + 2 } as const;

/** Both are views that the next call overwrites. */
export interface ColumnTally {
  /** (columns, COLUMN_TOPS) */
  readonly counts: Uint32Array;
  /** (columns, COLUMN_SUMS) */
  readonly sums: Float64Array;
}

/** What is quantized in its classes: all of one length. */
export interface Classified {
  readonly delta: Float32Array;
  readonly classes: Uint8Array;
}

export interface ClassTally {
  /** (classes, tops); the last of a row counts all levels from there on. */
  readonly counts: Uint32Array;
  /** |x| of levels 1 to 8, each at its own place. */
  readonly sums: Float64Array;
  readonly levels: Int16Array;
}

export class LevelTally {
  private constructor(
    private readonly memory: WebAssembly.Memory,
    private readonly wasm: Exports,
  ) {}

  static async create(): Promise<LevelTally> {
    const { memory, exports } = await loadWasm<Exports>('tally', 2 * FIRST_PAGE);
    return new LevelTally(memory, exports);
  }

  /** Places for so many bytes each, at multiples of 64. */
  #places(...bytes: number[]): number[] {
    let at = FIRST_PAGE;
    const out = bytes.map((n) => {
      const place = at;
      at += Math.ceil(n / 64) * 64;
      return place;
    });
    const missing = at - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / FIRST_PAGE));
    return out;
  }

  /** The first `columns` columns of values (rows, stride), each on its own. */
  columns(values: Float32Array, stride: number, columns: number, step: number): ColumnTally {
    const rows = stride === 0 ? 0 : values.length / stride;
    const chunk = Math.max(1, Math.min(rows, Math.floor(CHUNK_VALUES / Math.max(1, stride))));
    const [c, s, x] = this.#places(4 * columns * COLUMN_TOPS, 8 * columns * COLUMN_SUMS, 4 * chunk * stride) as [number, number, number];
    const counts = new Uint32Array(this.memory.buffer, c, columns * COLUMN_TOPS).fill(0);
    const sums = new Float64Array(this.memory.buffer, s, columns * COLUMN_SUMS).fill(0);
    for (let i = 0; i < rows; i += chunk) {
      const count = Math.min(chunk, rows - i);
      new Float32Array(this.memory.buffer, x, count * stride).set(values.subarray(i * stride, (i + count) * stride));
      this.wasm.tallyColumns(x, count, stride, columns, 1 / step, c, COLUMN_TOPS, s);
    }
    for (let k = 0; k < columns; k++) {
      const own = counts.subarray(k * COLUMN_TOPS, (k + 1) * COLUMN_TOPS);
      own[0] = rows - own.reduce((sum, n) => sum + n, 0);
    }
    return { counts, sums };
  }

  /** Levels of `delta`, counted by class. The levels stay for `error`. */
  classes({ delta, classes }: Classified, step: number, count: number, tops: number): ClassTally {
    const n = delta.length;
    const [c, s, q, k, x] = this.#places(4 * count * tops, 8 * (CENTROIDS + 1), 2 * n, n, 4 * n) as [number, number, number, number, number];
    const { buffer } = this.memory;
    const [counts, sums] = [new Uint32Array(buffer, c, count * tops).fill(0), new Float64Array(buffer, s, CENTROIDS + 1).fill(0)];
    new Uint8Array(buffer, k, n).set(classes);
    new Float32Array(buffer, x, n).set(delta);
    this.wasm.tallyClasses(x, k, n, 1 / step, q, c, tops, s);
    return { counts, sums, levels: new Int16Array(buffer, q, n) };
  }

  /** ||round(w0 + d^) - w1||^2, rounded to bf16 or not at all; sizes: magnitudes of levels 0 to 8. */
  error(w0: Float32Array, w1: Float32Array, levels: Int16Array, sizes: Float32Array, step: number, bf16: boolean): number {
    const n = levels.length;
    const own = levels.slice();
    const [q, s, a, b] = this.#places(2 * n, 4 * (CENTROIDS + 1), 4 * n, 4 * n) as [number, number, number, number];
    const { buffer } = this.memory;
    new Int16Array(buffer, q, n).set(own);
    new Float32Array(buffer, s, CENTROIDS + 1).set(sizes);
    new Float32Array(buffer, a, n).set(w0);
    new Float32Array(buffer, b, n).set(w1);
    return this.wasm.levelError(a, b, q, n, s, step, bf16 ? 1 : 0);
  }
}
