/** Sums over the rows of a layer's inputs: squares, absolute values, X^T X. In f64, but for products inside a block of rows (gram-sum.ts). */
import * as tf from '#tf';
import { GramSum } from '../linalg/gram-sum.js';
import { fusedKernel, hasFused, runFusedAll, type FusedKernel, type Heap } from './heap.js';

export class InputSums {
  /** sum x^2 and sum |x| of every channel. */
  readonly squares: Float64Array;
  readonly absolutes: Float64Array;
  readonly gram: GramSum | undefined;

  constructor(
    readonly n: number,
    options: { readonly gram: boolean },
  ) {
    this.squares = new Float64Array(n);
    this.absolutes = new Float64Array(n);
    this.gram = options.gram ? new GramSum(n) : undefined;
  }

  /** Bytes of the sums of n channels, and of what adding to them takes. */
  static bytes(n: number, options: { readonly gram: boolean }): number {
    return 16 * n + (options.gram ? GramSum.bytes(n) + 4 * GramSum.scratchValues(n) : 0);
  }
}

/** What one call added: known at once on the heap, else when `settle` is awaited, which every call needs before the next one of its sums. */
export interface AddedRows {
  /** First row that is not finite; -1: all are. */
  settle(): Promise<number>;
}

/** Rows of x are added to the sums. x: (T, n) with zeros in rows that do not count. */
export function addRows(x: tf.Tensor2D, sums: InputSums): AddedRows {
  if (!hasFused(SUMS)) return addOnDevice(x, sums);
  const found: InputAttrs = { sums, bad: -1 };
  runFusedAll(SUMS, { x }, found);
  return { settle: () => Promise.resolve(found.bad) };
}

/** Rows that a device without f64 sums in f32. */
const DEVICE_ROWS = 512;

interface DeviceSums {
  readonly squares: tf.Tensor;
  readonly absolutes: tf.Tensor;
  readonly ofRows: tf.Tensor;
  readonly gram?: tf.Tensor;
}

function addOnDevice(x: tf.Tensor2D, sums: InputSums): AddedRows {
  const parts: DeviceSums[] = [];
  tf.tidy(() => {
    const [rows, n] = x.shape;
    for (let start = 0; start < rows; start += DEVICE_ROWS) {
      const b = tf.slice(x, [start, 0], [Math.min(DEVICE_ROWS, rows - start), n]);
      const gram = sums.gram === undefined ? {} : { gram: tf.keep(tf.matMul(b, b, true, false)) };
      const absolute = tf.abs(b);
      parts.push({ squares: tf.keep(tf.sum(tf.square(b), 0)), absolutes: tf.keep(tf.sum(absolute, 0)), ofRows: tf.keep(tf.sum(absolute, 1)), ...gram });
    }
  });
  const take = async (t: tf.Tensor): Promise<Float32Array> => {
    const values = (await t.data()) as Float32Array;
    t.dispose();
    return values;
  };
  return {
    async settle() {
      let bad = -1;
      for (const [i, p] of parts.entries()) {
        addTo(sums.squares, await take(p.squares));
        addTo(sums.absolutes, await take(p.absolutes));
        const row = (await take(p.ofRows)).findIndex((v) => !Number.isFinite(v));
        if (bad < 0 && row >= 0) bad = i * DEVICE_ROWS + row;
        if (p.gram !== undefined) sums.gram!.addProduct(await take(p.gram));
      }
      return bad;
    },
  };
}

function addTo(sums: Float64Array, values: ArrayLike<number>): void {
  for (let i = 0; i < sums.length; i++) sums[i] = sums[i]! + values[i]!;
}

const SUMS = 'PithInputSums';

interface InputAttrs {
  readonly sums: InputSums;
  bad: number;
}

function addOnHeap(h: Heap, x: tf.TensorInfo, attrs: InputAttrs): tf.TensorInfo[] {
  const [rows, n] = x.shape as [number, number];
  const { sums } = attrs;
  const scratch = h.scratch(Math.max(16 * n, 4 * GramSum.scratchValues(n)));
  const columns = new Float64Array(h.backend.wasm.HEAPU8.buffer, scratch, 2 * n);
  columns.fill(0);
  h.nn.columnSums(h.at(x), scratch, scratch + 8 * n, rows, n);
  addTo(sums.squares, columns.subarray(0, n));
  addTo(sums.absolutes, columns.subarray(n));
  const values = h.values(h.at(x), rows * n);
  if (!columns.every(Number.isFinite)) {
    attrs.bad = Math.floor(values.findIndex((v) => !Number.isFinite(v)) / n);
    return [];
  }
  sums.gram?.add(values, rows, h.blas!, h.values(scratch, GramSum.scratchValues(n)));
  return [];
}

export const inputSumKernels: readonly FusedKernel[] = [fusedKernel<InputAttrs>(SUMS, (h, { x }, attrs) => addOnHeap(h, x!, attrs), true)];
