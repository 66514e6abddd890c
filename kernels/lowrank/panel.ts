/**
 * Deltas in row panels: W1 - W0 in f32, and back: W0 + B A rounded to the storage type. The product runs in wasm in a
 * fixed order (k ascending, no fused multiply-add), so what a lossy delta restores is the same on every machine.
 */
import type { DType } from '../../core/dtype.js';
import { decodeF32, encodeAs } from '../../core/float.js';
import { loadWasm } from '../wasm/load.js';

export type DenseDType = 'BF16' | 'F16' | 'F32';
const DENSE: readonly string[] = ['BF16', 'F16', 'F32'];

/** Types whose deltas are computed in f32 without loss of the stored value. */
export function isDense(dtype: DType): dtype is DenseDType {
  return DENSE.includes(dtype);
}

interface Exports {
  packColumns(a: number, rank: number, n: number, out: number): void;
  product(b: number, packed: number, rows: number, rank: number, n: number, out: number): void;
  subtractBf16(tuned: number, base: number, out: number, n: number, sums: number): void;
  addBf16(base: number, delta: number, out: number, n: number): void;
  squaresBf16(what: number, tuned: number, base: number, n: number, out: number): void;
}

const FIRST_PAGE = 65536;
const align = (n: number): number => Math.ceil(n / 64) * 64;

/** Wasm scratch of one thread; a call may move it, so views are taken anew. */
export class PanelKernel {
  private constructor(
    private readonly memory: WebAssembly.Memory,
    private readonly wasm: Exports,
  ) {}

  static async create(): Promise<PanelKernel> {
    const { memory, exports } = await loadWasm<Exports>('lowrank', FIRST_PAGE * 2);
    return new PanelKernel(memory, exports);
  }

  #stored = new Uint8Array(0);

  /** Room for stored rows on their way through, valid until the next call. */
  stored(bytes: number): Uint8Array {
    if (this.#stored.length < bytes) this.#stored = new Uint8Array(bytes);
    return this.#stored.subarray(0, bytes);
  }

  #reserve(bytes: number): void {
    const missing = FIRST_PAGE + bytes - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / FIRST_PAGE));
  }

  /** Where `subtract` wants the stored bytes of tuned and base: read there, they are not copied. Views until the next call of anything. */
  subtractInputs(bytes: number): { tuned: Uint8Array; base: Uint8Array } {
    this.#reserve(2 * align(bytes) + align(2 * bytes) + 64);
    return { tuned: new Uint8Array(this.memory.buffer, FIRST_PAGE, bytes), base: new Uint8Array(this.memory.buffer, FIRST_PAGE + align(bytes), bytes) };
  }

  /** The same for `squares`, beside what was restored. */
  squaresInputs(bytes: number): { tuned: Uint8Array; base: Uint8Array } {
    const step = align(bytes);
    this.#reserve(3 * step + 64);
    return { tuned: new Uint8Array(this.memory.buffer, FIRST_PAGE + step, bytes), base: new Uint8Array(this.memory.buffer, FIRST_PAGE + 2 * step, bytes) };
  }

  /** Brings bytes to their place in the heap unless they have been read there. */
  #place(bytes: Uint8Array, at: number): void {
    const heap = new Uint8Array(this.memory.buffer);
    if (bytes.buffer !== heap.buffer || bytes.byteOffset !== at) heap.set(bytes, at);
  }

  /** out = f32(tuned) - f32(base), both in their storage type; the sums of |out| and of out^2, in f64. */
  subtract(dtype: DenseDType, tuned: Uint8Array, base: Uint8Array, out: Float32Array): [magnitude: number, squares: number] {
    if (dtype !== 'BF16') return difference(decodeF32(dtype, tuned), decodeF32(dtype, base), out);
    const n = out.length;
    const [t, b, o] = [FIRST_PAGE, FIRST_PAGE + align(2 * n), FIRST_PAGE + 2 * align(2 * n)];
    this.#reserve(2 * align(2 * n) + align(4 * n) + 64);
    this.#place(tuned, t);
    this.#place(base, b);
    const sums = new Float64Array(this.memory.buffer, o + align(4 * n), 2).fill(0);
    this.wasm.subtractBf16(t, b, o, n, sums.byteOffset);
    out.set(new Float32Array(this.memory.buffer, o, n));
    return [sums[0]!, sums[1]!];
  }

  /** [||what - tuned||^2, ||tuned - base||^2], all three of one storage type. */
  squares(dtype: DType, what: Uint8Array, tuned: Uint8Array, base: Uint8Array): [error: number, delta: number] {
    if (dtype !== 'BF16') return squares(decodeF32(dtype, what), decodeF32(dtype, tuned), decodeF32(dtype, base));
    const step = align(what.length);
    this.#reserve(3 * step + 64);
    this.#place(what, FIRST_PAGE);
    this.#place(tuned, FIRST_PAGE + step);
    this.#place(base, FIRST_PAGE + 2 * step);
    const sums = new Float64Array(this.memory.buffer, FIRST_PAGE + 3 * step, 2).fill(0);
    this.wasm.squaresBf16(FIRST_PAGE, FIRST_PAGE + step, FIRST_PAGE + 2 * step, what.length / 2, sums.byteOffset);
    return [sums[0]!, sums[1]!];
  }

  /** Stored bytes of round(f32(base) + delta), one f32 sum a value; a delta of -0 leaves every value as it is. May be a view of the scratch. */
  add(dtype: DenseDType, base: Uint8Array, delta: Float32Array): Uint8Array {
    const n = delta.length;
    if (dtype !== 'BF16') {
      const w = decodeF32(dtype, base);
      for (let i = 0; i < n; i++) w[i] = w[i]! + delta[i]!;
      return encodeAs(dtype, w);
    }
    const [b, d, o] = [FIRST_PAGE, FIRST_PAGE + align(2 * n), FIRST_PAGE + align(2 * n) + align(4 * n)];
    this.#reserve(2 * align(2 * n) + align(4 * n));
    new Uint8Array(this.memory.buffer).set(base, b);
    new Float32Array(this.memory.buffer, d, n).set(delta);
    this.wasm.addBf16(b, d, o, n);
    return new Uint8Array(this.memory.buffer, o, 2 * n);
  }

  /**
   * Rows of W0 + B A. Call `factor` once per tensor, then `add` for its row panels from first to last.
   * a: (rank, n) f32, row-major. It stays packed at the bottom of the scratch until the next `factor`.
   */
  factor(a: Float32Array, rank: number, n: number, panelRows: number): FactoredPanels {
    const packedBytes = align(Math.ceil(n / 8) * 8 * rank * 4);
    const scratch = Math.max(4 * a.length, panelRows * (4 * rank + 4 * n + 8 * n) + 256);
    this.#reserve(packedBytes + scratch);
    const at = FIRST_PAGE + packedBytes;
    new Float32Array(this.memory.buffer, at, a.length).set(a);
    this.wasm.packColumns(at, rank, n, FIRST_PAGE);
    const { memory, wasm } = this;
    const place = this.#place.bind(this);
    const places = (rows: number, values: number): { product: number; base: number; out: number } => {
      const product = at + align(4 * rows * rank);
      const base = product + align(4 * values);
      return { product, base, out: base + align(2 * values) };
    };
    return {
      input(rows, bytes) {
        return new Uint8Array(memory.buffer, places(rows, rows * n).base, bytes);
      },
      // base: stored bytes of the rows; b: (rows, rank); gives the stored bytes of W0 + B A
      add(dtype, base, b) {
        const rows = b.length / Math.max(1, rank);
        const count = rank === 0 ? decodedLength(dtype, base) : rows * n;
        const to = places(rank === 0 ? count / Math.max(1, n) : rows, count);
        new Float32Array(memory.buffer, at, b.length).set(b);
        const delta = new Float32Array(memory.buffer, to.product, count);
        if (rank === 0) delta.fill(0);
        else wasm.product(at, FIRST_PAGE, rows, rank, n, to.product);
        if (dtype !== 'BF16') {
          const w = decodeF32(dtype, base);
          for (let i = 0; i < w.length; i++) w[i] = Math.fround(w[i]! + delta[i]!);
          return encodeAs(dtype, w);
        }
        place(base, to.base);
        wasm.addBf16(to.base, to.product, to.out, count);
        return new Uint8Array(memory.buffer, to.out, 2 * count);
      },
    };
  }
}

export interface FactoredPanels {
  /** Where `add` wants the base's stored bytes of so many rows: read there, they are not copied. Until the next call of anything. */
  input(rows: number, bytes: number): Uint8Array;
  /** The bytes may be a view of the scratch: valid until the next call. */
  add(dtype: DenseDType, base: Uint8Array, b: Float32Array): Uint8Array;
}

const decodedLength = (dtype: DenseDType, bytes: Uint8Array): number => bytes.length / (dtype === 'F32' ? 4 : 2);

/** out = w1 - w0, and the sums of |out| and of out^2. */
export function difference(w1: Float32Array, w0: Float32Array, out: Float32Array): [magnitude: number, squares: number] {
  let [magnitude, squares] = [0, 0];
  for (let i = 0; i < out.length; i++) {
    const d = Math.fround(w1[i]! - w0[i]!);
    out[i] = d;
    magnitude += Math.abs(d);
    squares += d * d;
  }
  return [magnitude, squares];
}

function squares(w: Float32Array, w1: Float32Array, w0: Float32Array): [error: number, delta: number] {
  let error = 0;
  let delta = 0;
  for (let i = 0; i < w1.length; i++) {
    const e = w[i]! - w1[i]!;
    const d = w1[i]! - w0[i]!;
    error += e * e;
    delta += d * d;
  }
  return [error, delta];
}
