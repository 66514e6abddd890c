/**
 * Gradients of every fused operation against differences of its own values: along a random direction in the space of all inputs,
 * (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h, f summed in f64 from the f32 output.
 */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { forEachBackend } from '../../support/backends.js';
import { loadOps, OP_CASES, type Op, type Ops, type Values } from '../../support/nn-cases.js';

/** Rounding leaves some 1e-6 of the sum of |output * weight| over h, truncation h^4 of the fifth derivative: together below 3e-5 on every backend. */
const STEP = 0.02;
/** Of the sum of |gradient * direction|, or of 1 where that is less. */
const TOLERANCE = 1e-4;
/** Components whose value is that near 0 stay: ReLU has its kink there. */
const KINK = 0.2;

const dot = (a: Float32Array, b: Float32Array): number => a.reduce((sum, v, i) => sum + v * b[i]!, 0);

async function valueOf({ tf }: Ops, op: Op, inputs: readonly Float32Array[], shapes: Values): Promise<Float32Array> {
  const tensors = inputs.map((values, i) => tf.tensor(values, shapes[i]!.shape));
  const y = tf.tidy(() => op(tensors));
  const values = Float32Array.from(await y.data());
  tf.dispose([y, ...tensors]);
  return values;
}

async function gradientsOf({ tf }: Ops, op: Op, inputs: Values, weights: Float32Array): Promise<Float32Array[]> {
  const tensors = inputs.map(({ values, shape }) => tf.tensor(values, shape));
  const gradients = tf.tidy(() => tf.grads((...t) => op(t))(tensors, tf.tensor(weights, op(tensors).shape)));
  const values = await Promise.all(gradients.map(async (t) => Float32Array.from(await t.data())));
  tf.dispose([...gradients, ...tensors]);
  return values;
}

forEachBackend('gradients against differences', () => {
  let ops: Ops;
  before(async () => {
    ops = await loadOps();
  });
  for (const [name, { inputs, fused }] of Object.entries(OP_CASES)) {
    it(name, async () => {
      const op = fused(ops);
      const at = inputs.map(({ values }) => values);
      const rng = new Rng(77);
      const weights = rng.normals((await valueOf(ops, op, at, inputs)).length);
      const gradients = await gradientsOf(ops, op, inputs, weights);
      const direction = at.map((values) => rng.normals(values.length).map((u, i) => (Math.abs(values[i]!) < KINK ? 0 : Math.max(-3, Math.min(3, u)))));
      const f = async (steps: number): Promise<number> => {
        const moved = at.map((values, t) => values.map((v, i) => v + steps * STEP * direction[t]![i]!));
        return dot(await valueOf(ops, op, moved, inputs), weights);
      };
      const difference = (8 * ((await f(1)) - (await f(-1))) - ((await f(2)) - (await f(-2)))) / (12 * STEP);
      const slope = gradients.reduce((sum, g, t) => sum + dot(g, direction[t]!), 0);
      const scale = gradients.reduce((sum, g, t) => sum + dot(g.map(Math.abs), direction[t]!.map(Math.abs)), 0);
      expect(slope).to.be.closeTo(difference, TOLERANCE * Math.max(1, scale));
    });
  }
});
