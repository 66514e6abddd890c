/** Columns of activations scaled by one trainable vector over another that counts as a constant: DoRA's magnitudes over the norms they stand for. */
import * as tf from '#tf';
import { withGradient } from './heap.js';

/** z: (T, n); m: (n); `norms` gives (n) and is not differentiated. y = z m / norms. */
export function scaleByRatio(z: tf.Tensor2D, m: tf.Tensor1D, norms: () => tf.Tensor1D): tf.Tensor2D {
  return withGradient(
    [z, m],
    () => {
      const n = norms();
      return { value: tf.mul(z, tf.div(m, n)), saved: [z, m, n] };
    },
    (dy, [z1, m1, n]) => [tf.mul(dy, tf.div(m1!, n!)), tf.div(tf.sum(tf.mul(dy, z1!), 0), n!)],
  ) as tf.Tensor2D;
}
