/** Every fused operation and its plain form against torch: values, and the gradients of sum(output * dy). */
import { expect } from 'chai';
import type * as tfjs from '#tf';
import type { AttentionShape } from '../../../kernels/nn/attention.js';
import { activationKind } from '../../../kernels/nn/activations.js';
import { forEachBackend } from '../../support/backends.js';
import { maxDifference, opGolden, type Golden, type OpDocument } from '../../support/goldens.js';
import { loadOps, type Op, type Ops } from '../../support/nn-cases.js';

const two = (t: tfjs.Tensor | undefined): tfjs.Tensor2D => t as tfjs.Tensor2D;
const one = (t: tfjs.Tensor | undefined): tfjs.Tensor1D => t as tfjs.Tensor1D;

interface Check {
  readonly golden: Golden<OpDocument<unknown>>;
  readonly name: string;
  /** Tensors that are differentiated by, as the golden names them. */
  readonly inputs: readonly string[];
  readonly fused: (o: Ops) => Op;
  readonly plain: (o: Ops) => Op;
}

const CHECKS: Check[] = [];

const norms = opGolden<{ kind: 'rms' | 'rms_plus_one' | 'layer'; eps: number }>('norm');
for (const [name, { kind, eps }] of Object.entries(norms.document.cases)) {
  const offset = kind === 'rms_plus_one' ? 1 : 0;
  const forms: Pick<Check, 'inputs' | 'fused' | 'plain'> =
    kind === 'layer'
      ? {
          inputs: ['x', 'weight', 'bias'],
          fused: (o) => (t) => o.layerNorm(two(t[0]), one(t[1]), one(t[2]), eps),
          plain: (o) => (t) => o.plainLayerNorm(two(t[0]), one(t[1]), one(t[2]), eps),
        }
      : {
          inputs: ['x', 'weight'],
          fused: (o) => (t) => o.rmsNorm(two(t[0]), one(t[1]), eps, offset),
          plain: (o) => (t) => o.plainRmsNorm(two(t[0]), one(t[1]), eps, offset),
        };
  CHECKS.push({ golden: norms, name, ...forms });
}

interface AttentionCase {
  readonly heads: number;
  readonly kvHeads: number;
  readonly causal: boolean;
  readonly window: number | null;
  readonly scale: number;
  readonly softcap: number | null;
  readonly hiddenKeys: readonly number[];
}
const attentions = opGolden<AttentionCase>('attention');
for (const [name, c] of Object.entries(attentions.document.cases)) {
  const [queries, keys] = ['q', 'k'].map((t) => attentions.tensor(`${name}.${t}`).shape[0]!) as [number, number];
  const { heads, kvHeads, scale, causal } = c;
  const shape: AttentionShape = { batch: 1, queries, keys, heads, kvHeads, scale, causal, window: c.window ?? 0, softcap: c.softcap ?? 0, offset: 0 };
  const seen = Uint8Array.from({ length: keys }, (_, i) => (c.hiddenKeys.includes(i) ? 0 : 1));
  const mask = (o: Ops): tfjs.Tensor2D | undefined => (c.hiddenKeys.length === 0 ? undefined : o.tf.tensor2d(seen, [1, keys], 'bool'));
  CHECKS.push({
    golden: attentions,
    name,
    inputs: ['q', 'k', 'v'],
    fused: (o) => (t) => o.attention(two(t[0]), two(t[1]), two(t[2]), shape, mask(o)),
    plain: (o) => (t) => o.plainAttention(two(t[0]), two(t[1]), two(t[2]), shape, mask(o)),
  });
}

const activations = opGolden<{ activation: string }>('activation');
for (const [name, c] of Object.entries(activations.document.cases)) {
  const kind = activationKind(c.activation)!;
  const row = (o: Ops, t: tfjs.Tensor | undefined): tfjs.Tensor2D => o.tf.reshape(t!, [1, t!.size]);
  CHECKS.push({
    golden: activations,
    name,
    inputs: ['x'],
    fused: (o) => (t) => o.activation(row(o, t[0]), kind),
    plain: (o) => (t) => o.plainActivation(row(o, t[0]), kind),
  });
}

const gates = opGolden<{ activation: string }>('gated');
for (const [name, c] of Object.entries(gates.document.cases)) {
  const kind = activationKind(c.activation)!;
  CHECKS.push({
    golden: gates,
    name,
    inputs: ['gate', 'up'],
    fused: (o) => (t) => o.gatedActivation(two(t[0]), two(t[1]), kind),
    plain: (o) => (t) => o.tf.mul(o.plainActivation(two(t[0]), kind), t[1]!),
  });
}

const ropes = opGolden<{ positions: readonly number[] }>('rope');
for (const [name, { positions }] of Object.entries(ropes.document.cases)) {
  if (!ropes.tensors.has(`${name}.x`)) continue;
  const tables = (o: Ops): Parameters<Ops['rotary']>[1] => {
    const [cos, sin] = ['cos', 'sin'].map((t) => ropes.tensor(`${name}.${t}`)).map((t) => o.tf.tensor2d(t.values, t.shape as [number, number]));
    return { cos: cos!, sin: sin! };
  };
  const rows = (o: Ops): tfjs.Tensor1D => o.tf.range(0, positions.length, 1, 'int32');
  CHECKS.push({
    golden: ropes,
    name: `rotary ${name}`,
    inputs: ['x'],
    fused: (o) => (t) => o.rotary(two(t[0]), tables(o), rows(o), 3),
    plain: (o) => (t) => o.plainRotary(two(t[0]), tables(o), rows(o), 3),
  });
}

// the golden's logits are x here, and the output layer the identity; the golden's mean is over the targets that count
const losses = opGolden<{ targets: readonly number[]; softcap: number | null }>('cross-entropy');
for (const [name, { targets, softcap }] of Object.entries(losses.document.cases)) {
  const used = targets.filter((t) => t >= 0).length;
  const n = losses.tensor(`${name}.logits`).shape[1]!;
  const identity = Float32Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0));
  const mean = (o: Ops, each: tfjs.Tensor): tfjs.Tensor => o.tf.div(o.tf.sum(each), used);
  const wanted = (o: Ops): tfjs.Tensor1D => o.tf.tensor1d(targets as number[], 'int32');
  CHECKS.push({
    golden: losses,
    name,
    inputs: ['logits'],
    fused: (o) => (t) => mean(o, o.headLoss(two(t[0]), o.f32Matrix(n, n, identity), wanted(o), { softcap: softcap ?? 0, train: true })),
    plain: (o) => (t) => mean(o, o.plainHeadLoss(two(t[0]), o.f32Matrix(n, n, identity), wanted(o), softcap ?? 0)),
  });
}

async function check(o: Ops, op: Op, c: Check): Promise<void> {
  const { golden, inputs } = c;
  const key = (t: string): string => `${c.name.replace(/^rotary /, '')}.${t}`;
  const tensors = inputs.map((t) => golden.tensor(key(t))).map((t) => o.tf.tensor(t.values, [...t.shape]));
  const value = op(tensors);
  const dy = golden.tensors.get(key('dy'));
  const seed = dy === undefined ? o.tf.scalar(1) : o.tf.tensor(dy.values, value.shape);
  const gradients = o.tf.grads((...t: tfjs.Tensor[]) => op(t))(tensors, seed);
  const got = await Promise.all([value, ...gradients].map(async (t) => Float32Array.from(await t.data())));
  o.tf.dispose([value, seed, ...gradients, ...tensors]);
  const compare = (values: Float32Array, wanted: Float32Array, what: string): void => {
    const scale = Math.max(1, ...wanted.map(Math.abs));
    expect(maxDifference(values, wanted), what).to.be.lessThan(TOLERANCE * scale);
  };
  compare(got[0]!, golden.tensor(key('y')).values, 'value');
  inputs.forEach((t, i) => compare(got[i + 1]!, golden.tensor(key(`d${t}`)).values, `gradient by ${t}`));
}

/** The goldens allow 2e-4 for whole models; a single operation is as near as f32 lets it be. Of the largest value, where that is above 1. */
const TOLERANCE = 1e-5;

forEachBackend('operations against torch', () => {
  let ops: Ops;
  before(async () => {
    ops = await loadOps();
  });
  for (const c of CHECKS) {
    it(c.name, async () => {
      await check(ops, c.fused(ops), c);
      await check(ops, c.plain(ops), c);
    });
  }
});
