/** Every fused operation against its plain tfjs form: values, and the gradient to every input. */
import { expect } from 'chai';
import type * as tfjs from '#tf';
import { Rng } from '../../../core/rng.js';
import { forEachBackend } from '../../support/backends.js';
import { loadOps, OP_CASES, type Op, type Ops, type Values } from '../../support/nn-cases.js';

/** The value and the gradients of sum(op(inputs) * weights). */
async function run(tf: Ops['tf'], op: Op, inputs: Values): Promise<Float32Array[]> {
  const tensors = inputs.map(({ values, shape }) => tf.tensor(values, shape));
  const y = op(tensors);
  const weights = tf.tensor(new Rng(9).normals(y.size), y.shape);
  const gradients = tf.grads((...t: tfjs.Tensor[]) => op(t))(tensors, weights);
  const out = [y, ...gradients];
  const values = await Promise.all(out.map(async (t) => Float32Array.from(await t.data())));
  for (const t of [...out, ...tensors, weights]) t.dispose();
  return values;
}

forEachBackend('fused operations', () => {
  let ops: Ops;
  before(async () => {
    ops = await loadOps();
  });
  for (const [name, c] of Object.entries(OP_CASES)) {
    it(name, async () => {
      const got = await run(ops.tf, c.fused(ops), c.inputs);
      const expected = await run(ops.tf, c.plain(ops), c.inputs);
      expect(got.length).to.equal(expected.length);
      got.forEach((values, i) => {
        const scale = Math.max(1, ...expected[i]!.map(Math.abs));
        values.forEach((v, j) => expect(v, `${i === 0 ? 'value' : `gradient ${i - 1}`} [${j}]`).to.be.closeTo(expected[i]![j]!, (c.tolerance ?? 2e-5) * scale));
      });
    });
  }
});
