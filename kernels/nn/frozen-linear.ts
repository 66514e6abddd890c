/** y = x W^T + b with a frozen W: its panels are decoded to scratch and multiplied there; the gradient goes to x (and b) only. */
import * as tf from '#tf';
import type { FrozenMatrix } from './frozen-matrix.js';
import { fusedKernel, hasFused, PANEL_VALUES, runFused, withGradient, type FusedKernel, type Heap } from './heap.js';
import { rowsOf } from './frozen-matrix.js';

export interface LinearAttrs {
  readonly matrix: FrozenMatrix;
  /** The matrix lies as (in, out), as Conv1D has it: y = x W. */
  readonly transposed: boolean;
}

/** x: (T, in); w: (out, in), or (in, out) when `transposed`; bias: (out). Gives (T, out). */
export function frozenLinear(x: tf.Tensor2D, w: FrozenMatrix, bias?: tf.Tensor1D, transposed = false): tf.Tensor2D {
  const product = (t: tf.Tensor, flipped: boolean): tf.Tensor =>
    hasFused(PRODUCT) ? runFused(PRODUCT, { x: t }, { matrix: w, transposed: flipped }) : plainProduct(t as tf.Tensor2D, w, flipped);
  const y = withGradient(
    [x],
    () => ({ value: product(x, transposed), saved: [] }),
    (dy) => product(dy, !transposed),
  ) as tf.Tensor2D;
  return bias === undefined ? y : tf.add(y, bias);
}

/** What other backends run: panels of W go through tfjs's own product. */
function plainProduct(x: tf.Tensor2D, w: FrozenMatrix, transposed: boolean): tf.Tensor2D {
  return tf.tidy(() => {
    let sum: tf.Tensor2D | undefined;
    const columns: tf.Tensor2D[] = [];
    for (const [start, end] of panels(w)) {
      const panel = tf.tensor2d(rowsOf(w, start, end), [end - start, w.columns]);
      if (!transposed) columns.push(tf.matMul(x, panel, false, true));
      else {
        const part = tf.matMul(tf.slice(x, [0, start], [x.shape[0], end - start]), panel);
        sum = (sum === undefined ? part : tf.add(sum, part)) as tf.Tensor2D;
      }
      panel.dispose();
    }
    return sum ?? (columns.length === 1 ? columns[0]! : tf.concat(columns, 1));
  });
}

function* panels(w: FrozenMatrix): Generator<[start: number, end: number]> {
  const step = Math.max(1, Math.floor(PANEL_VALUES / w.columns));
  for (let start = 0; start < w.rows; start += step) yield [start, Math.min(w.rows, start + step)];
}

/** Rows of W in f32: its own values, or decoded to scratch on the heap. */
export function decodedPanel(h: Heap, w: FrozenMatrix, start: number, end: number): Float32Array {
  const n = (end - start) * w.columns;
  if (w.values !== undefined) return w.values.subarray(start * w.columns, end * w.columns);
  const scratch = h.scratch(4 * Math.max(PANEL_VALUES, w.columns));
  if (w.bf16 !== undefined) {
    h.backend.wasm.HEAPU8.set(w.bf16.subarray(2 * start * w.columns, 2 * end * w.columns), scratch);
    h.nn.widenBf16(scratch, scratch, n);
  } else {
    w.decode(start, end, h.values(scratch, n));
  }
  return h.values(scratch, n);
}

/** y (T, rows) = x (T, columns) W^T, or y (T, columns) = x (T, rows) W. */
export function heapProduct(h: Heap, x: tf.TensorInfo, { matrix: w, transposed }: LinearAttrs): tf.TensorInfo {
  const [tokens, inner] = x.shape as [number, number];
  const y = h.output([tokens, transposed ? w.columns : w.rows]);
  const from = (): Float32Array => h.values(h.at(x), tokens * inner);
  const to = (): Float32Array => h.values(h.at(y), tokens * y.shape[1]!);
  for (const [start, end] of panels(w)) {
    const panel = decodedPanel(h, w, start, end);
    const n = end - start;
    if (transposed) h.blas!.sgemm(false, false, tokens, w.columns, n, 1, from().subarray(start), inner, panel, w.columns, start === 0 ? 0 : 1, to(), w.columns);
    else h.blas!.sgemm(false, true, tokens, n, w.columns, 1, from(), inner, panel, w.columns, 0, to().subarray(start), w.rows);
  }
  return y;
}

const PRODUCT = 'PithFrozenProduct';

export const frozenLinearKernels: readonly FusedKernel[] = [fusedKernel<LinearAttrs>(PRODUCT, (h, { x }, attrs) => heapProduct(h, x!, attrs), true)];
