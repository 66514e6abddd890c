/**
 * Merged weights of low-rank adapters, in f32 and row panels; the product has a fixed order (panel.ts), so the bytes are the same
 * on every machine.
 *   LoRA   W' = W + s B A                              Hu et al., 2021, https://arxiv.org/abs/2106.09685; s = alpha / r
 *   rsLoRA the same, s = alpha / sqrt(r)               Kalajdzievski, 2023, https://arxiv.org/abs/2312.03732
 *   DoRA   V = W + s B A, W'[o, :] = m[o] V[o, :] / ||V[o, :]||     Liu et al., 2024, https://arxiv.org/abs/2402.09353
 * Deviation: s goes into the left factor before the product; peft multiplies the product by it.
 */
import { transposed } from '../linalg/matrix-ops.js';
import type { FactoredPanels, PanelKernel } from './panel.js';

export interface MergeFactors {
  /** (m, r), scaled; m and n are the stored weight's rows and columns. */
  readonly left: Float32Array;
  /** (r, n) */
  readonly right: Float32Array;
  readonly rank: number;
}

/** a: (r, in), b: (out, r) f32 -> factors of a weight stored as (out, in), or as (in, out) when `flipped`: (B A)^T = A^T B^T. */
export function mergeFactors(a: Float32Array, b: Float32Array, rank: number, scaling: number, flipped: boolean): MergeFactors {
  const scaled = (f: Float32Array): Float32Array => f.map((v) => v * scaling);
  const [input, output] = [a.length / rank, b.length / rank];
  if (!flipped) return { left: scaled(b), right: a, rank };
  return { left: scaled(transposed(a, rank, input)), right: transposed(b, output, rank), rank };
}

/** V = W + s B A, panel by panel. */
export class Merger {
  readonly #panels: FactoredPanels;

  constructor(
    kernel: PanelKernel,
    private readonly f: MergeFactors,
    readonly columns: number,
    panelRows: number,
  ) {
    this.#panels = kernel.factor(f.right, f.rank, columns, panelRows);
  }

  /** w: rows [start, start + w.length / columns) of W, changed in place. */
  add(w: Float32Array, start: number): Float32Array {
    const { left, rank } = this.f;
    const rows = w.length / this.columns;
    const bytes = this.#panels.add('F32', new Uint8Array(w.buffer, w.byteOffset, w.byteLength), left.subarray(start * rank, (start + rows) * rank));
    w.set(new Float32Array(bytes.buffer, bytes.byteOffset, w.length));
    return w;
  }
}

/** v: (rows, columns); every row gets the length `magnitude[start + row]`. In place. */
export function scaleRows(v: Float32Array, columns: number, magnitude: Float32Array, start: number): void {
  for (let at = 0, row = start; at < v.length; at += columns, row++) {
    let sum = 0;
    for (let j = at; j < at + columns; j++) sum += v[j]! * v[j]!;
    const scale = Math.fround(magnitude[row]! / Math.sqrt(sum));
    for (let j = at; j < at + columns; j++) v[j] = v[j]! * scale;
  }
}

/** Adds the squares of every column of v (rows, columns) to `sums`. */
export function addColumnSquares(v: Float32Array, columns: number, sums: Float64Array): void {
  for (let at = 0; at < v.length; at += columns) for (let j = 0; j < columns; j++) sums[j] = sums[j]! + v[at + j]! * v[at + j]!;
}

/** For weights stored as (in, out): every column j is multiplied by magnitude[j] / sqrt(sums[j]). In place. */
export function scaleColumns(v: Float32Array, columns: number, magnitude: Float32Array, sums: Float64Array): void {
  const scale = Float32Array.from(magnitude, (m, j) => m / Math.sqrt(sums[j]!));
  for (let at = 0; at < v.length; at += columns) for (let j = 0; j < columns; j++) v[at + j] = v[at + j]! * scale[j]!;
}
