/** The kernels of training against the same in plain operations: products with low-rank parts, texts that share a sequence, the output layer. */
import { expect } from 'chai';
import * as tf from '#tf';
import { Rng } from '../../../core/rng.js';
import { setupBackend } from '../../../kernels/backend/setup.js';
import { attention, plainAttention, type AttentionShape } from '../../../kernels/nn/attention.js';
import { f32Matrix, frozenMatrix } from '../../../kernels/nn/frozen-matrix.js';
import { headGradient, plainHeadGradient } from '../../../kernels/nn/head-loss.js';
import { frozenLinear } from '../../../kernels/nn/frozen-linear.js';
import { lowRankLinear, lowRankProduct } from '../../../kernels/nn/low-rank-linear.js';
import { encodeAs } from '../../../core/float.js';

const error = (a: tf.Tensor, b: tf.Tensor): number => tf.norm(tf.sub(a, b)).dataSync()[0]! / tf.norm(b).dataSync()[0]!;

describe('kernels: training', () => {
  before(() => setupBackend('cpu', { blasThreads: 1 }));
  const rng = new Rng(4);
  const matrix = (rows: number, columns: number): tf.Tensor2D => tf.tensor2d(rng.normals(rows * columns), [rows, columns]);

  for (const transposed of [false, true]) {
    it(`x (W + s B A)^T and its gradients, W in bf16${transposed ? ', stored as (in, out)' : ''}; no tensor is left`, () => {
      const [t, n, m, r] = [9, 20, 14, 3];
      const [rows, columns] = transposed ? [n, m] : [m, n];
      const w = frozenMatrix('BF16', rows, columns, encodeAs('BF16', rng.normals(m * n)));
      const [x, a, b, dy] = [matrix(t, n), matrix(r, n), matrix(m, r), matrix(t, m)];
      const fast = (...p: tf.Tensor[]): tf.Tensor => lowRankLinear(p[0] as tf.Tensor2D, w, p[1] as tf.Tensor2D, p[2] as tf.Tensor2D, 1.5, transposed);
      const slow = (...p: tf.Tensor[]): tf.Tensor =>
        tf.add(frozenLinear(p[0] as tf.Tensor2D, w, undefined, transposed), lowRankProduct(p[0] as tf.Tensor2D, p[1] as tf.Tensor2D, p[2] as tf.Tensor2D, 1.5));
      tf.tidy(() => {
        expect(error(fast(x, a, b), slow(x, a, b))).to.be.lessThan(1e-6);
        const [got, want] = [tf.grads(fast)([x, a, b], dy), tf.grads(slow)([x, a, b], dy)];
        got.forEach((g, i) => expect(error(g, want[i]!)).to.be.lessThan(1e-5));
      });
      const before = tf.memory().numTensors;
      tf.tidy(() => void tf.grads(fast)([x, a, b], dy));
      expect(tf.memory().numTensors).to.equal(before);
    });
  }

  it('texts that share a sequence do not see each other: as plain attention, and as each text alone', () => {
    const [heads, kvHeads, d, length] = [4, 2, 8, 70];
    const ids = [...Array<number>(41).fill(0), ...Array<number>(20).fill(1), ...Array<number>(9).fill(-1)];
    const segments = Int32Array.from([...ids, ...ids.map((s) => (s < 0 ? s : 1 - s))]);
    const shape: AttentionShape = {
      batch: 2,
      queries: length,
      keys: length,
      heads,
      kvHeads,
      scale: 0.3,
      causal: true,
      window: 0,
      softcap: 0,
      offset: 0,
      segments,
    };
    const [q, k, v, dy] = [matrix(2 * length, heads * d), matrix(2 * length, kvHeads * d), matrix(2 * length, kvHeads * d), matrix(2 * length, heads * d)];
    const fast = (...p: tf.Tensor[]): tf.Tensor => attention(p[0] as tf.Tensor2D, p[1] as tf.Tensor2D, p[2] as tf.Tensor2D, shape);
    const slow = (...p: tf.Tensor[]): tf.Tensor => plainAttention(p[0] as tf.Tensor2D, p[1] as tf.Tensor2D, p[2] as tf.Tensor2D, shape);
    expect(error(fast(q, k, v), slow(q, k, v))).to.be.lessThan(1e-5);
    const [got, want] = [tf.grads(fast)([q, k, v], dy), tf.grads(slow)([q, k, v], dy)];
    got.forEach((g, i) => expect(error(g, want[i]!)).to.be.lessThan(1e-5));
    const text = (t: tf.Tensor2D): tf.Tensor2D => tf.slice(t, [41, 0], [20, t.shape[1]]);
    const alone = attention(text(q), text(k), text(v), { ...shape, batch: 1, queries: 20, keys: 20, segments: undefined });
    expect(error(text(fast(q, k, v) as tf.Tensor2D), alone)).to.be.lessThan(1e-6);
  });

  it('losses of the output layer and the gradient of their weighted sum', () => {
    const w = f32Matrix(50, 12, rng.normals(600));
    const x = matrix(8, 12);
    const targets = tf.tensor1d([3, -100, 49, 0, 7, -100, 20, 20], 'int32');
    const weights = tf.tensor1d([1, 1, 0.5, 2, 0, 1, 1, 3]);
    for (const softcap of [0, 5]) {
      const [got, want] = [headGradient(x, w, targets, weights, softcap), plainHeadGradient(x, w, targets, weights, softcap)];
      expect(error(got.losses, want.losses)).to.be.lessThan(1e-5);
      expect(error(got.dx, want.dx)).to.be.lessThan(1e-4);
    }
  });
});
