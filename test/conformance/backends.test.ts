/** The tfjs operations that kernels are built from give the same values on every backend. */
import { expect } from 'chai';
import type { Tensor } from '#tf';
import { Rng } from '../../core/rng.js';
import { measureBackend } from '../../kernels/backend/probe.js';
import type { Backend } from '../../kernels/backend/setup.js';
import { forEachBackend } from '../support/backends.js';

type Tf = Backend['tf'];
const rng = new Rng(77);
const X = rng.symmetric(6 * 10);
const Y = rng.symmetric(6 * 10);
const POSITIVE = X.map((v) => Math.abs(v) + 0.5);

interface Case {
  readonly run: (tf: Tf) => Tensor;
  readonly expected: () => number[];
  readonly tolerance?: number;
}
const all =
  (f: (x: number, y: number) => number): (() => number[]) =>
  () =>
    Array.from(X, (x, i) => f(x, Y[i]!));
const x = (tf: Tf): Tensor => tf.tensor2d(X, [6, 10]);
const y = (tf: Tf): Tensor => tf.tensor2d(Y, [6, 10]);
const rows =
  (f: (row: number[]) => number[]): (() => number[]) =>
  () =>
    Array.from({ length: 6 }, (_, i) => f(Array.from(X.subarray(i * 10, i * 10 + 10)))).flat();

/** Every operation with its reference in f64. */
const CASES: Record<string, Case> = {
  add: { run: (tf) => tf.add(x(tf), y(tf)), expected: all((a, b) => a + b) },
  sub: { run: (tf) => tf.sub(x(tf), y(tf)), expected: all((a, b) => a - b) },
  mul: { run: (tf) => tf.mul(x(tf), y(tf)), expected: all((a, b) => a * b) },
  div: { run: (tf) => tf.div(x(tf), tf.tensor2d(POSITIVE, [6, 10])), expected: () => Array.from(X, (v, i) => v / POSITIVE[i]!) },
  'mul by a row': { run: (tf) => tf.mul(x(tf), tf.tensor1d(Y.slice(0, 10))), expected: () => Array.from(X, (v, i) => v * Y[i % 10]!) },
  square: { run: (tf) => tf.square(x(tf)), expected: all((a) => a * a) },
  sqrt: { run: (tf) => tf.sqrt(tf.tensor2d(POSITIVE, [6, 10])), expected: () => Array.from(POSITIVE, Math.sqrt) },
  rsqrt: { run: (tf) => tf.rsqrt(tf.tensor2d(POSITIVE, [6, 10])), expected: () => Array.from(POSITIVE, (v) => 1 / Math.sqrt(v)), tolerance: 1e-4 },
  exp: { run: (tf) => tf.exp(x(tf)), expected: all((a) => Math.exp(a)), tolerance: 1e-5 },
  log: { run: (tf) => tf.log(tf.tensor2d(POSITIVE, [6, 10])), expected: () => Array.from(POSITIVE, Math.log), tolerance: 1e-5 },
  abs: { run: (tf) => tf.abs(x(tf)), expected: all((a) => Math.abs(a)) },
  sign: { run: (tf) => tf.sign(x(tf)), expected: all((a) => Math.sign(a)) },
  maximum: { run: (tf) => tf.maximum(x(tf), y(tf)), expected: all((a, b) => Math.max(a, b)) },
  minimum: { run: (tf) => tf.minimum(x(tf), y(tf)), expected: all((a, b) => Math.min(a, b)) },
  round: { run: (tf) => tf.round(tf.mul(x(tf), 10)), expected: all((a) => Math.round(Math.fround(a * 10))) },
  floor: { run: (tf) => tf.floor(tf.mul(x(tf), 10)), expected: all((a) => Math.floor(Math.fround(a * 10))) },
  'clip by value': { run: (tf) => tf.clipByValue(x(tf), -0.5, 0.25), expected: all((a) => Math.min(0.25, Math.max(-0.5, a))) },
  where: { run: (tf) => tf.where(tf.greater(x(tf), y(tf)), x(tf), y(tf)), expected: all((a, b) => (a > b ? a : b)) },
  'sum of rows': { run: (tf) => tf.sum(x(tf), 1), expected: rows((r) => [r.reduce((a, b) => a + b, 0)]) },
  'sum of all': { run: (tf) => tf.sum(x(tf)), expected: () => [X.reduce((a, b) => a + b, 0)] },
  'mean of columns': {
    run: (tf) => tf.mean(x(tf), 0),
    expected: () => Array.from({ length: 10 }, (_, j) => Array.from({ length: 6 }, (_, i) => X[i * 10 + j]! / 6).reduce((a, b) => a + b, 0)),
  },
  'max of rows': { run: (tf) => tf.max(x(tf), 1), expected: rows((r) => [Math.max(...r)]) },
  'argmax of rows': { run: (tf) => tf.argMax(x(tf), 1), expected: rows((r) => [r.indexOf(Math.max(...r))]) },
  'cumulative sum': { run: (tf) => tf.cumsum(x(tf), 1), expected: rows((r) => r.map((_, j) => r.slice(0, j + 1).reduce((a, b) => a + b, 0))) },
  softmax: {
    run: (tf) => tf.softmax(x(tf)),
    expected: rows((r) => {
      const total = r.reduce((sum, v) => sum + Math.exp(v), 0);
      return r.map((v) => Math.exp(v) / total);
    }),
    tolerance: 1e-5,
  },
  transpose: { run: (tf) => tf.transpose(x(tf)), expected: () => Array.from({ length: 60 }, (_, p) => X[(p % 6) * 10 + Math.floor(p / 6)]!) },
  slice: { run: (tf) => tf.slice(x(tf), [2, 3], [3, 4]), expected: () => [2, 3, 4].flatMap((i) => Array.from(X.subarray(i * 10 + 3, i * 10 + 7))) },
  concat: { run: (tf) => tf.concat([x(tf), y(tf)], 0), expected: () => [...X, ...Y] },
  gather: {
    run: (tf) => tf.gather(x(tf), tf.tensor1d([4, 0, 4], 'int32')),
    expected: () => [4, 0, 4].flatMap((i) => Array.from(X.subarray(i * 10, i * 10 + 10))),
  },
  'top 3 values': { run: (tf) => tf.topk(x(tf), 3).values, expected: rows((r) => [...r].sort((a, b) => b - a).slice(0, 3)) },
  'cast to int32': { run: (tf) => tf.cast(tf.mul(x(tf), 10), 'int32'), expected: all((a) => Math.trunc(Math.fround(a * 10))) },
  pad: {
    run: (tf) =>
      tf.pad(tf.tensor2d(X.slice(0, 6), [2, 3]), [
        [1, 0],
        [0, 1],
      ]),
    expected: () => [0, 0, 0, 0, ...X.slice(0, 3), 0, ...X.slice(3, 6), 0],
  },
  tile: { run: (tf) => tf.tile(tf.tensor2d(X.slice(0, 4), [2, 2]), [1, 2]), expected: () => [0, 1, 0, 1, 2, 3, 2, 3].map((i) => X[i]!) },
};

/** (batch.., m, k) by (batch.., k, n) in f64, over a batch that repeats dimensions of 1. */
function batched(
  a: Float32Array,
  b: Float32Array,
  m: number,
  k: number,
  n: number,
  pairs: readonly (readonly [number, number])[],
  ta: boolean,
  tb: boolean,
): number[] {
  return pairs.flatMap(([ia, ib]) => {
    const out: number[] = [];
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let l = 0; l < k; l++) sum += a[ia * m * k + (ta ? l * m + i : i * k + l)]! * b[ib * k * n + (tb ? j * k + l : l * n + j)]!;
        out.push(sum);
      }
    }
    return out;
  });
}

forEachBackend('conformance: operations', (open) => {
  const check = async (run: (tf: Tf) => Tensor, expected: number[], tolerance = 1e-6): Promise<void> => {
    const { tf, tfName } = open();
    await tf.setBackend(tfName);
    const before = tf.memory().numTensors;
    const t = tf.tidy(() => run(tf));
    const got = Array.from(await t.data());
    t.dispose();
    expect(tf.memory().numTensors, 'tensors left behind').to.equal(before);
    expect(got.length).to.equal(expected.length);
    for (const [i, v] of got.entries())
      expect(Math.abs(v - expected[i]!), `[${i}]: expected ${expected[i]}, got ${v}`).to.be.at.most(tolerance * (1 + Math.abs(expected[i]!)));
  };

  for (const [name, c] of Object.entries(CASES)) it(name, () => check(c.run, c.expected(), c.tolerance));

  for (const ta of [false, true]) {
    for (const tb of [false, true]) {
      it(`matMul, transposed ${ta} and ${tb}, odd sides`, async () => {
        for (const [m, k, n] of [
          [1, 1, 1],
          [3, 5, 7],
          [33, 65, 17],
        ] as const) {
          const [a, b] = [rng.symmetric(m * k), rng.symmetric(k * n)];
          const shape = (r: number, c: number, t: boolean): [number, number] => (t ? [c, r] : [r, c]);
          await check(
            (tf) => tf.matMul(tf.tensor2d(a, shape(m, k, ta)), tf.tensor2d(b, shape(k, n, tb)), ta, tb),
            batched(a, b, m, k, n, [[0, 0]], ta, tb),
            1e-5,
          );
        }
      });
    }
  }

  it('batched matMul, and one matrix for the whole batch', async () => {
    const [m, k, n] = [3, 4, 5];
    const a = rng.symmetric(6 * m * k);
    const b = rng.symmetric(6 * k * n);
    const same = [0, 1, 2, 3, 4, 5].map((i) => [i, i] as const);
    await check((tf) => tf.matMul(tf.tensor4d(a, [2, 3, m, k]), tf.tensor4d(b, [2, 3, k, n])), batched(a, b, m, k, n, same, false, false), 1e-5);
    const one = b.slice(0, k * n);
    await check(
      (tf) => tf.matMul(tf.tensor3d(a, [6, m, k]), tf.tensor3d(one, [1, k, n])),
      batched(
        a,
        one,
        m,
        k,
        n,
        same.map(([i]) => [i, 0] as const),
        false,
        false,
      ),
      1e-5,
    );
  });

  it('fused matMul: bias and every activation', async () => {
    const [m, k, n] = [4, 6, 5];
    const [a, b, bias] = [rng.symmetric(m * k), rng.symmetric(k * n), rng.symmetric(n)];
    const plain = batched(a, b, m, k, n, [[0, 0]], false, false).map((v, i) => v + bias[i % n]!);
    const activations: Record<string, (v: number) => number> = {
      linear: (v) => v,
      relu: (v) => Math.max(0, v),
      relu6: (v) => Math.min(6, Math.max(0, v)),
      elu: (v) => (v >= 0 ? v : Math.expm1(v)),
      sigmoid: (v) => 1 / (1 + Math.exp(-v)),
      leakyrelu: (v) => (v >= 0 ? v : 0.1 * v),
    };
    for (const [activation, f] of Object.entries(activations)) {
      const run = (tf: Tf): Tensor =>
        tf.fused.matMul({
          a: tf.tensor2d(a, [m, k]),
          b: tf.tensor2d(b, [k, n]),
          bias: tf.tensor1d(bias),
          activation: activation as 'relu',
          leakyreluAlpha: 0.1,
        });
      await check(run, plain.map(f), 1e-5);
    }
  });

  it('gradients of a product', async () => {
    const [a, b] = [rng.symmetric(12), rng.symmetric(20)];
    const expected = batched(new Float32Array(15).fill(1), b, 3, 5, 4, [[0, 0]], false, true);
    await check((tf) => tf.grad((w) => tf.sum(tf.matMul(w as never, tf.tensor2d(b, [4, 5]))))(tf.tensor2d(a, [3, 4])), expected, 1e-5);
  });

  it('what doctor measures is a right product', async () => {
    const { tf, tfName } = open();
    await tf.setBackend(tfName);
    const speed = await measureBackend(open(), 64);
    expect(speed.maxError).to.be.lessThan(1e-4);
    expect(speed.gflops).to.be.greaterThan(0);
  });
});
