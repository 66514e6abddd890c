/**
 * X^T X of a matrix that comes in blocks of rows: products of a block in f32 by the machine's BLAS, their sums in f64. So the error
 * is that of one block whatever the number of rows, and the work is half of a full product: only the upper triangle is made.
 */
import type { Blas } from '../backend/blas.js';

/** Columns of a panel: its product lies in the cache when it is added. */
const PANEL = 256;
/** Rows that are summed in f32. */
const BLOCK_ROWS = 1024;

export class GramSum {
  /** Panel p holds columns [first, first + width) of the rows [0, first + width), row by row. */
  readonly #panels: readonly { readonly first: number; readonly width: number; readonly sums: Float64Array }[];

  constructor(readonly n: number) {
    const count = Math.ceil(n / PANEL);
    this.#panels = Array.from({ length: count }, (_, p) => {
      const first = p * PANEL;
      const width = Math.min(PANEL, n - first);
      return { first, width, sums: new Float64Array((first + width) * width) };
    });
  }

  /** Bytes that the sums take. */
  static bytes(n: number): number {
    let values = 0;
    for (let first = 0; first < n; first += PANEL) values += Math.min(n, first + PANEL) * Math.min(PANEL, n - first);
    return 8 * values;
  }

  /** Values of scratch that `add` needs. */
  static scratchValues(n: number): number {
    return n * Math.min(n, PANEL);
  }

  /** x: (rows, n). */
  add(x: Float32Array, rows: number, blas: Blas, scratch: Float32Array): void {
    const { n } = this;
    for (let start = 0; start < rows; start += BLOCK_ROWS) {
      const k = Math.min(BLOCK_ROWS, rows - start);
      const block = x.subarray(start * n, (start + k) * n);
      for (const { first, width, sums } of this.#panels) {
        const product = scratch.subarray(0, sums.length);
        const columns = block.subarray(first);
        // the rows above the diagonal square, then the square itself
        if (first > 0) blas.sgemm(true, false, first, width, k, 1, block, n, columns, n, 0, product, width);
        const square = product.subarray(first * width);
        // its lower half is not written
        square.fill(0);
        blas.ssyrk(true, true, width, k, 1, columns, n, 0, square, width);
        for (let i = 0; i < product.length; i++) sums[i] = sums[i]! + product[i]!;
      }
    }
  }

  /** g: X^T X (n, n) of one block, made elsewhere. */
  addProduct(g: Float32Array): void {
    for (const { first, width, sums } of this.#panels) {
      for (let i = 0, at = 0; i < first + width; i++) {
        const row = i * this.n + first;
        for (let j = 0; j < width; j++, at++) sums[at] = sums[at]! + g[row + j]!;
      }
    }
  }

  /** Rows [start, end) of the whole symmetric matrix, rounded to f32: (end - start, n). */
  rows(start: number, end: number, out: Float32Array): void {
    const { n } = this;
    for (let i = start; i < end; i++) {
      const row = (i - start) * n;
      for (const { first, width, sums } of this.#panels) {
        // left of the diagonal square: column i of the panel that holds it
        if (first + width <= i) continue;
        const from = Math.max(first, i);
        for (let j = from; j < first + width; j++) out[row + j] = sums[i * width + j - first]!;
      }
      const { first, width, sums } = this.#panels[Math.floor(i / PANEL)]!;
      for (let j = 0; j < i; j++) out[row + j] = sums[j * width + i - first]!;
    }
  }
}
