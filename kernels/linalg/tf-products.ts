/** The products of `randomizedSvd` on a tfjs backend: for a GPU, whose memory holds the matrix (or one panel of it) at a time. */
import type { Tensor2D } from '#tf';
import type { Backend } from '../backend/setup.js';
import type { PanelProducts } from './randomized-svd.js';

/** Dispose it when done: what `keep` uploaded stays on the device until then. */
export function tfProducts({ tf, tfName }: Pick<Backend, 'tf' | 'tfName'>): PanelProducts & Disposable {
  const kept = new Map<Float32Array, Tensor2D>();
  return {
    async multiply(transA, m, n, k, a, b, keep) {
      await tf.setBackend(tfName);
      const shape: [number, number] = transA ? [k, m] : [m, k];
      const left = kept.get(a) ?? tf.tensor2d(a, shape);
      if (keep) kept.set(a, left);
      const product = tf.tidy(() => tf.matMul(left, tf.tensor2d(b, [k, n]), transA, false));
      try {
        // a copy: the backend may give a view of its own heap
        return Float32Array.from(await product.data());
      } finally {
        product.dispose();
        if (!keep) left.dispose();
      }
    },
    [Symbol.dispose]() {
      for (const t of kept.values()) t.dispose();
      kept.clear();
    },
  };
}
