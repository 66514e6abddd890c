/** What one backend can do here: a product that is checked, then timed, and how fast memory moves. */
import type { Tensor } from '#tf';
import { Rng } from '../../core/rng.js';
import type { Backend } from './setup.js';

export interface Speed {
  /** Of an f32 product of square matrices, 2 n^3 operations. */
  readonly gflops: number;
  /** Read and written by y = 2 x over f32 values. */
  readonly gbPerSecond: number;
  /** Largest deviation of the checked product from f64. */
  readonly maxError: number;
}

const CHECK = 96;
const ROUNDS = 3;

/** side: of the timed product, smaller for slow devices. */
export async function measureBackend(backend: Backend, side: number): Promise<Speed> {
  const { tf } = backend;
  const maxError = await checkedProduct(backend);
  const x = tf.tensor2d(new Rng(1).symmetric(side * side), [side, side]);
  const best = async (run: () => Tensor): Promise<number> => {
    let least = Infinity;
    for (let i = 0; i <= ROUNDS; i++) {
      const start = performance.now();
      const y = run();
      // one value back: a device works asynchronously
      const one = tf.slice(tf.reshape(y, [-1]), 0, 1);
      await one.data();
      tf.dispose([y, one]);
      if (i > 0) least = Math.min(least, performance.now() - start);
    }
    return least;
  };
  const product = await best(() => tf.matMul(x, x));
  const scaled = await best(() => tf.mul(x, 2));
  x.dispose();
  return { gflops: (2 * side ** 3) / (product * 1e6), gbPerSecond: (8 * side * side) / (scaled * 1e6), maxError };
}

async function checkedProduct({ tf }: Backend): Promise<number> {
  const rng = new Rng(2);
  const [a, b] = [rng.symmetric(CHECK * CHECK), rng.symmetric(CHECK * CHECK)];
  const c = tf.tidy(() => tf.matMul(tf.tensor2d(a, [CHECK, CHECK]), tf.tensor2d(b, [CHECK, CHECK]), false, true));
  const got = await c.data();
  c.dispose();
  let worst = 0;
  for (let i = 0; i < CHECK; i++) {
    for (let j = 0; j < CHECK; j++) {
      let sum = 0;
      for (let k = 0; k < CHECK; k++) sum += a[i * CHECK + k]! * b[j * CHECK + k]!;
      worst = Math.max(worst, Math.abs(got[i * CHECK + j]! - sum));
    }
  }
  return worst;
}
