/**
 * Integer grids of groups of a row's weights, column by column as GPTQ asks for them (kernels/quant/gptq.ts):
 *   asymmetric: lo = min(w, 0), hi = max(w, 0), s = (hi - lo) / (2^b - 1), z = round(-lo / s), q = clamp(round(w / s) + z, 0, 2^b - 1)
 *   symmetric:  s = max|w| / (2^(b-1) - 1), z = 2^(b-1), the same codes: q - z lies in [-2^(b-1), 2^(b-1) - 1]
 *   What = s (q - z)
 * `mse` shrinks the range by p = 1 - i/100 for the least sum of |What - w|^2.4 (GPTQ's release). A group of zeros has s = 1.
 */
import { decodeF32, encodeAs } from '../../core/float.js';
import type { ColumnGrid } from './gptq.js';

export const SCALE_DTYPES = ['F16', 'BF16', 'F32'] as const;
export type ScaleDType = (typeof SCALE_DTYPES)[number];

export interface IntGridOptions {
  /** 1 to 8, of all rows or of each. */
  readonly bits: number | ArrayLike<number>;
  readonly symmetric: boolean;
  /** Columns of a group; the last may be shorter. 0: the whole row. */
  readonly groupSize: number;
  /** Steps of the search for a shrunken range; 0: the range of the values. */
  readonly mseSteps?: number;
  /** With `mseSteps`, for asymmetric grids: every zero point is tried for each range (OWQ). */
  readonly allZeros?: boolean;
  readonly scales?: ScaleDType;
}

/** 1.5 * 2^52: adding and subtracting it rounds to the nearest integer, ties to even. */
const MAGIC = 6755399441055744;
const NORM = 2.4;
const TABLE = 1024;
/** t^2.4 for t in [0, 1], in steps of 1 / TABLE. */
const POWERS = Float64Array.from({ length: TABLE + 2 }, (_, i) => (i / TABLE) ** NORM);

/** t >= 0; linear between the table's steps. */
function power(t: number): number {
  if (t >= 1) return t ** NORM;
  const at = Math.floor(t * TABLE);
  return POWERS[at]! + (t * TABLE - at) * (POWERS[at + 1]! - POWERS[at]!);
}

export class IntGrid implements ColumnGrid {
  group = 1;
  readonly groups: number;
  readonly groupSize: number;
  /** (m, n) */
  readonly codes: Uint8Array;
  /** (groups, m), as they are stored. */
  readonly #scales: Float32Array;
  readonly #inverse: Float32Array;
  /** What zero points are rounded from: the low end of the range, or NaN where the zero point is given. */
  readonly #low: Float32Array;
  readonly #zeros: Uint8Array;
  readonly #top: Uint8Array;
  readonly #groupOf: Int32Array;

  constructor(
    readonly m: number,
    readonly n: number,
    private readonly o: IntGridOptions,
  ) {
    this.groupSize = o.groupSize > 0 ? o.groupSize : n;
    this.groups = Math.ceil(n / this.groupSize);
    this.codes = new Uint8Array(m * n);
    [this.#scales, this.#inverse] = [new Float32Array(this.groups * m), new Float32Array(this.groups * m)];
    [this.#zeros, this.#low] = [new Uint8Array(this.groups * m), new Float32Array(this.groups * m)];
    const { bits } = o;
    this.#top = Uint8Array.from({ length: m }, (_, i) => 2 ** (typeof bits === 'number' ? bits : bits[i]!) - 1);
    this.#groupOf = Int32Array.from({ length: n }, (_, j) => Math.floor(j / this.groupSize));
  }

  /** Parameters of every group of neighbouring columns from w (m, n), once; columns of `without` do not count. */
  fitStatic(w: Float32Array, without: ReadonlySet<number> = new Set()): this {
    const values = new Float32Array(this.groupSize);
    for (let i = 0; i < this.m; i++) {
      for (let g = 0; g < this.groups; g++) {
        const [from, to] = [g * this.groupSize, Math.min(this.n, (g + 1) * this.groupSize)];
        let count = 0;
        if (without.size > 0) for (let j = from; j < to; j++) if (!without.has(j)) values[count++] = w[i * this.n + j]!;
        this.#fitOne(without.size > 0 ? values.subarray(0, count) : w.subarray(i * this.n + from, i * this.n + to), g, i);
      }
    }
    this.#store(0, this.groups);
    return this;
  }

  /** Parameters of a group when its first column's turn comes, from the current values of the columns that follow in the order. */
  fitOnTheWay(): this {
    this.group = this.groupSize;
    return this;
  }

  fit(columns: Float32Array, _j: number, at: number): void {
    if (this.group === 1) return;
    const count = columns.length / this.m;
    const values = new Float32Array(count);
    const g = at / this.groupSize;
    for (let i = 0; i < this.m; i++) {
      for (let k = 0; k < count; k++) values[k] = columns[k * this.m + i]!;
      this.#fitOne(values, g, i);
    }
    this.#store(g, g + 1);
  }

  quantize(x: Float32Array, j: number, q: Float32Array, at: number): void {
    const { m, n } = this;
    const g = this.group === 1 ? this.#groupOf[j]! : (this.#groupOf[j] = Math.floor(at / this.groupSize));
    const base = g * m;
    for (let i = 0; i < m; i++) {
      const [z, top] = [this.#zeros[base + i]!, this.#top[i]!];
      let c = x[i]! * this.#inverse[base + i]! + MAGIC - MAGIC + z;
      c = c < 0 ? 0 : c > top ? top : c;
      this.codes[i * n + j] = c;
      q[i] = (c - z) * this.#scales[base + i]!;
    }
  }

  /** Every column rounded to nearest: (m, n). */
  nearest(w: Float32Array): Float32Array {
    const { m, n } = this;
    const out = new Float32Array(w.length);
    for (let i = 0; i < m; i++) {
      const top = this.#top[i]!;
      for (let g = 0; g < this.groups; g++) {
        const [s, inverse, z] = [this.#scales[g * m + i]!, this.#inverse[g * m + i]!, this.#zeros[g * m + i]!];
        for (let at = i * n + g * this.groupSize, end = Math.min(i * n + n, at + this.groupSize); at < end; at++) {
          let c = w[at]! * inverse + MAGIC - MAGIC + z;
          c = c < 0 ? 0 : c > top ? top : c;
          this.codes[at] = c;
          out[at] = (c - z) * s;
        }
      }
    }
    return out;
  }

  /** (m, groups) f32, exact values of the storage type; and zero points. */
  parameters(): { scales: Float32Array; zeros: Uint8Array } {
    const [scales, zeros] = [new Float32Array(this.#scales.length), new Uint8Array(this.#zeros.length)];
    for (let g = 0; g < this.groups; g++) {
      for (let i = 0; i < this.m; i++)
        [scales[i * this.groups + g], zeros[i * this.groups + g]] = [this.#scales[g * this.m + i]!, this.#zeros[g * this.m + i]!];
    }
    return { scales, zeros };
  }

  /** Group of each column: neighbours, or as the columns' turns came. */
  get groupIndex(): Int32Array {
    return this.#groupOf;
  }

  #fitOne(values: Float32Array, g: number, i: number): void {
    let [lo, hi] = [0, 0];
    for (let k = 0; k < values.length; k++) {
      const v = values[k]!;
      if (v < lo) lo = v;
      else if (v > hi) hi = v;
    }
    const top = this.#top[i]!;
    const at = g * this.m + i;
    const [s, z] = this.o.symmetric ? [Math.max(-lo, hi) / Math.max(1, (top - 1) / 2), (top + 1) / 2] : [(hi - lo) / top, undefined];
    const best = this.o.mseSteps === undefined || this.o.mseSteps === 0 || s === 0 ? undefined : this.#search(values, s, z ?? -lo / s, top);
    this.#scales[at] = best?.s ?? s;
    const given = best?.z ?? z;
    [this.#low[at], this.#zeros[at]] = given === undefined ? [lo, 0] : [NaN, given];
  }

  /** The least sum of |What - w|^2.4 over shrunken ranges. */
  #search(values: Float32Array, s: number, z: number, top: number): { s: number; z: number } {
    let best = { s, z: Math.min(top, z + MAGIC - MAGIC) };
    let least = Infinity;
    const every = this.o.allZeros === true && !this.o.symmetric;
    for (let step = 0; step < this.o.mseSteps!; step++) {
      const scale = s * (1 - step / 100);
      const zeros = every ? Array.from({ length: top + 1 }, (_, k) => k) : [best.z];
      for (const zero of zeros) {
        const error = shrunkError(values, scale, zero, top, least / scale ** NORM) * scale ** NORM;
        if (error < least) [least, best] = [error, { s: scale, z: zero }];
      }
    }
    return best;
  }

  /** Scales of groups [from, to) as their type holds them, and zero points for these. */
  #store(from: number, to: number): void {
    const part = this.#scales.subarray(from * this.m, to * this.m);
    const dtype = this.o.scales ?? 'F16';
    if (dtype !== 'F32') part.set(decodeF32(dtype, encodeAs(dtype, part)));
    for (let k = from * this.m; k < to * this.m; k++) {
      if (!(this.#scales[k]! > 0)) this.#scales[k] = 1;
      this.#inverse[k] = 1 / this.#scales[k]!;
      const [low, top] = [this.#low[k]!, this.#top[k % this.m]!];
      if (!Number.isNaN(low)) this.#zeros[k] = Math.min(top, -low * this.#inverse[k]! + MAGIC - MAGIC);
    }
  }
}

/** sum |q - z - w / s|^2.4, or as much of it as exceeds `most`. */
function shrunkError(values: Float32Array, s: number, z: number, top: number, most: number): number {
  const inverse = 1 / s;
  let error = 0;
  for (const v of values) {
    const t = v * inverse;
    let c = t + MAGIC - MAGIC + z;
    c = c < 0 ? 0 : c > top ? top : c;
    error += power(Math.abs(c - z - t));
    if (error > most) return error;
  }
  return error;
}
