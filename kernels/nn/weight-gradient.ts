/** Gradients of a linear layer's weight, by parts of the batch: G = dy^T x over the rows of one sequence. */
import * as tf from '#tf';
import { fusedKernel, hasFused, runFusedAll, withGradient, type FusedKernel } from './heap.js';

/** y as it is. When its gradient dy comes by, `see` is given it with the layer's input x; both are gone when it returns. */
export function watchGradient(y: tf.Tensor2D, x: tf.Tensor2D, see: (dy: tf.Tensor2D, x: tf.Tensor2D) => void): tf.Tensor2D {
  return withGradient(
    [y],
    () => ({ value: tf.clone(y), saved: [x] }),
    (dy, [input]) => {
      see(dy as tf.Tensor2D, input as tf.Tensor2D);
      return tf.clone(dy);
    },
  ) as tf.Tensor2D;
}

export type RowRange = readonly [start: number, end: number];

/** Receives one G (out, in) in f32, of the `index`-th range; the values are gone when it returns. */
export type UseGradient = (index: number, values: Float32Array) => void;

/** On the heap `use` has been called for every range when this returns; on a device, when the promise resolves. */
export function weightGradients(dy: tf.Tensor2D, x: tf.Tensor2D, ranges: readonly RowRange[], use: UseGradient): Promise<void> {
  if (hasFused(GRADIENTS)) {
    runFusedAll(GRADIENTS, { dy, x }, { ranges, use });
    return Promise.resolve();
  }
  const products = ranges.map(([start, end]) =>
    tf.tidy(() => {
      const rows = (t: tf.Tensor2D): tf.Tensor2D => tf.slice(t, [start, 0], [end - start, t.shape[1]]);
      return tf.keep(tf.matMul(rows(dy), rows(x), true, false));
    }),
  );
  return takeAll(products, use);
}

async function takeAll(products: readonly tf.Tensor[], use: UseGradient): Promise<void> {
  for (const [i, g] of products.entries()) {
    const values = (await g.data()) as Float32Array;
    g.dispose();
    use(i, values);
  }
}

const GRADIENTS = 'PithWeightGradients';

export const weightGradientKernels: readonly FusedKernel[] = [
  fusedKernel<{ ranges: readonly RowRange[]; use: UseGradient }>(
    GRADIENTS,
    (h, { dy, x }, { ranges, use }) => {
      const [rows, m] = dy!.shape as [number, number];
      const n = x!.shape[1]!;
      const scratch = h.scratch(4 * m * n);
      for (const [i, [start, end]] of ranges.entries()) {
        const g = h.values(scratch, m * n);
        const left = h.values(h.at(dy!), rows * m).subarray(start * m, end * m);
        const right = h.values(h.at(x!), rows * n).subarray(start * n, end * n);
        h.blas!.sgemm(true, false, m, n, end - start, 1, left, m, right, n, 0, g, n);
        use(i, g);
      }
      return [];
    },
    true,
  ),
];
