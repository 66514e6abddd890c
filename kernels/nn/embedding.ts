/** Rows of a trainable table, with gradient: the rows of dy are added up by id. */
import * as tf from '#tf';
import { fusedKernel, hasFused, runFused, withGradient, type FusedKernel } from './heap.js';

/** table: (V, n); ids: (T) int32. Gives (T, n). */
export function embeddingRows(table: tf.Tensor2D, ids: tf.Tensor1D): tf.Tensor2D {
  const rows = table.shape[0];
  return withGradient(
    [table],
    () => ({ value: tf.gather(table, ids), saved: [ids] }),
    (dy, [kept]) => (hasFused(SCATTER) ? runFused(SCATTER, { dy, ids: kept! }, { rows }) : tf.unsortedSegmentSum(dy, kept as tf.Tensor1D, rows)),
  ) as tf.Tensor2D;
}

const SCATTER = 'PithScatterRows';

export const embeddingKernels: readonly FusedKernel[] = [
  fusedKernel<{ rows: number }>(SCATTER, (h, { dy, ids }, { rows }) => {
    const [tokens, n] = dy!.shape as [number, number];
    const out = h.zeros([rows, n]);
    const at = new Int32Array(h.backend.wasm.HEAPU8.buffer, h.at(ids!), tokens);
    at.forEach((id, t) => h.nn.axpy(h.at(dy!) + 4 * t * n, h.at(out) + 4 * id * n, 1, n));
    return out;
  }),
];
