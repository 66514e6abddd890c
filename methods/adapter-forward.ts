/** What follows from an adapter's `weight` where it has no cheaper form of its own. */
import * as tf from '#tf';
import { frozenLinear } from '../kernels/nn/frozen-linear.js';
import { rowsOf, type FrozenMatrix } from '../kernels/nn/frozen-matrix.js';
import type { AdaptedLayer, FrozenLinear, ParamTree, Pass, WeightAdapter } from './adapter-kind.js';

/** W as (out, in) on the device. */
export function denseWeight({ matrix, transposed }: Pick<FrozenLinear, 'matrix' | 'transposed'>): tf.Tensor2D {
  const w = tf.tensor2d(rowsOf(matrix, 0, matrix.rows), [matrix.rows, matrix.columns]);
  return transposed ? tf.transpose(w) : w;
}

/** x W^T + b of the frozen layer. */
export function frozenForward(x: tf.Tensor2D, base: FrozenLinear): tf.Tensor2D {
  return frozenLinear(x, base.matrix, base.bias, base.transposed);
}

/** x W'^T + b'. */
export function adapterForward(a: WeightAdapter, x: tf.Tensor2D, base: FrozenLinear, p: ParamTree, layer: AdaptedLayer, pass: Pass): tf.Tensor2D {
  if (a.forward !== undefined) return a.forward(x, base, p, layer, pass);
  return denseForward(a, x, base, p, layer);
}

/** The same through W' itself. */
export function denseForward(a: WeightAdapter, x: tf.Tensor2D, base: FrozenLinear, p: ParamTree, layer: AdaptedLayer): tf.Tensor2D {
  const y: tf.Tensor2D = tf.matMul(x, a.weight(denseWeight(base), p, layer), false, true);
  const bias = a.bias === undefined ? base.bias : a.bias(base.bias, p, layer);
  return bias === undefined ? y : tf.add(y, bias);
}

/** Squares of the rows of W (out, in) summed, in f64, read in panels. */
export function rowSquares({ matrix, transposed }: Pick<FrozenLinear, 'matrix' | 'transposed'>): Float64Array {
  const sums = new Float64Array(transposed ? matrix.columns : matrix.rows);
  for (const [start, values] of panels(matrix)) {
    for (let i = 0; i < values.length; i++) {
      const at = transposed ? i % matrix.columns : start + Math.floor(i / matrix.columns);
      sums[at] = sums[at]! + values[i]! * values[i]!;
    }
  }
  return sums;
}

const PANEL_VALUES = 1 << 20;

function* panels(matrix: FrozenMatrix): Generator<[start: number, values: Float32Array]> {
  const step = Math.max(1, Math.floor(PANEL_VALUES / matrix.columns));
  for (let start = 0; start < matrix.rows; start += step) yield [start, rowsOf(matrix, start, Math.min(matrix.rows, start + step))];
}

/** Dropout off. */
export const PLAIN_PASS: Pass = { dropout: (x) => x };
