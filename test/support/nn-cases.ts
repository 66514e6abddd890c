/** Fused operations with inputs to run them on, each beside its plain tfjs form. */
import type * as tfjs from '#tf';
import { Rng } from '../../core/rng.js';
import { encodeAs } from '../../core/float.js';
import type { AttentionShape } from '../../kernels/nn/attention.js';

export type Ops = Awaited<ReturnType<typeof loadOps>>;
export const loadOps = async () => ({
  tf: await import('#tf'),
  ...(await import('../../kernels/nn/norm.js')),
  ...(await import('../../kernels/nn/rotary.js')),
  ...(await import('../../kernels/nn/gated.js')),
  ...(await import('../../kernels/nn/attention.js')),
  ...(await import('../../kernels/nn/embedding.js')),
  ...(await import('../../kernels/nn/frozen-linear.js')),
  ...(await import('../../kernels/nn/frozen-matrix.js')),
  ...(await import('../../kernels/nn/head-loss.js')),
  ...(await import('../../kernels/nn/unfold.js')),
});

export type Values = readonly { readonly values: Float32Array; readonly shape: number[] }[];
export type Op = (t: tfjs.Tensor[]) => tfjs.Tensor;

export interface OpCase {
  readonly inputs: Values;
  readonly fused: (o: Ops) => Op;
  readonly plain: (o: Ops) => Op;
  readonly tolerance?: number;
}

const rng = new Rng(4242);
const input = (...shape: number[]): Values[number] => ({ values: rng.normals(shape.reduce((a, b) => a * b, 1)), shape });
const two = (t: tfjs.Tensor | undefined): tfjs.Tensor2D => t as tfjs.Tensor2D;
const one = (t: tfjs.Tensor | undefined): tfjs.Tensor1D => t as tfjs.Tensor1D;

export const OP_CASES: Record<string, OpCase> = {};

for (const [rows, n] of [
  [3, 5],
  [7, 64],
  [1, 1],
  [4, 30],
] as const) {
  for (const offset of [0, 1] as const) {
    OP_CASES[`rms norm ${rows}x${n}, gain ${offset} + w`] = {
      inputs: [input(rows, n), input(n)],
      fused: (o) => (t) => o.rmsNorm(two(t[0]), one(t[1]), 1e-5, offset),
      plain: (o) => (t) => o.plainRmsNorm(two(t[0]), one(t[1]), 1e-5, offset),
    };
  }
  OP_CASES[`layer norm ${rows}x${n}`] = {
    inputs: [input(rows, n), input(n), input(n)],
    fused: (o) => (t) => o.layerNorm(two(t[0]), one(t[1]), one(t[2]), 1e-5),
    plain: (o) => (t) => o.plainLayerNorm(two(t[0]), one(t[1]), one(t[2]), 1e-5),
    // a row of one value is all rounding
    tolerance: n === 1 ? 1e-2 : 2e-5,
  };
}

for (const kind of ['silu', 'gelu', 'gelu_tanh', 'relu', 'relu2', 'quick_gelu', 'tanh', 'identity'] as const) {
  const wide = { values: rng.normals(33).map((v) => 4 * v), shape: [3, 11] };
  OP_CASES[`activation ${kind}`] = {
    inputs: [wide],
    fused: (o) => (t) => o.activation(two(t[0]), kind),
    plain: (o) => (t) => o.plainActivation(two(t[0]), kind),
  };
  OP_CASES[`gate ${kind}`] = {
    inputs: [wide, input(3, 11)],
    fused: (o) => (t) => o.gatedActivation(two(t[0]), two(t[1]), kind),
    plain: (o) => (t) => o.tf.mul(o.plainActivation(two(t[0]), kind), t[1]!),
  };
}

for (const [tokens, heads, size, rot] of [
  [5, 2, 8, 8],
  [4, 3, 10, 6],
] as const) {
  const angles = rng.normals((9 * rot) / 2);
  const tables = (o: Ops): Parameters<Ops['rotary']>[1] => ({
    cos: o.tf.tensor2d(angles.map(Math.cos), [9, rot / 2]),
    sin: o.tf.tensor2d(angles.map(Math.sin), [9, rot / 2]),
  });
  const positions = (o: Ops): tfjs.Tensor1D => o.tf.tensor1d([0, 3, 8, 3, 1].slice(0, tokens), 'int32');
  OP_CASES[`rotary, ${rot} of ${size} channels`] = {
    inputs: [input(tokens, heads * size)],
    fused: (o) => (t) => o.rotary(two(t[0]), tables(o), positions(o), heads),
    plain: (o) => (t) => o.plainRotary(two(t[0]), tables(o), positions(o), heads),
  };
}

const ATTENTION: AttentionShape = {
  batch: 2,
  queries: 9,
  keys: 9,
  heads: 4,
  kvHeads: 2,
  scale: 0.35,
  causal: true,
  window: 0,
  softcap: 0,
  offset: 0,
};
/** Which keys are hidden: `some` here and there, but not the first; `ends` before and after the tokens of each sequence; `all` of the first one. */
type Hidden = 'some' | 'ends' | 'all';
const HIDDEN: Record<Hidden, (key: number, sequence: number, keys: number) => boolean> = {
  some: (key) => key > 0 && key % 3 === 1,
  ends: (key, sequence, keys) => key < 2 * sequence || key >= keys - 1 - 3 * sequence,
  all: (key, sequence) => sequence === 0 || key % 2 === 1,
};
const SHAPES: Record<string, Partial<AttentionShape> & { readonly hidden?: Hidden }> = {
  'causal, grouped': {},
  'one key head a query head': { kvHeads: 4 },
  window: { window: 3 },
  'soft cap': { softcap: 1.5 },
  'soft cap and window': { softcap: 0.7, window: 4 },
  'seen from both sides': { causal: false },
  'key mask': { causal: false, hidden: 'some' },
  'key mask, causal': { hidden: 'some' },
  'key mask, window, soft cap': { hidden: 'some', window: 4, softcap: 2 },
  'padding on both sides': { causal: false, hidden: 'ends', batch: 3 },
  'padding on both sides, causal': { hidden: 'ends', batch: 3 },
  'padding, window, later queries': { hidden: 'ends', window: 3, queries: 4, keys: 11, offset: 7 },
  'a sequence without keys': { causal: false, hidden: 'all' },
  'other keys': { causal: false, keys: 13 },
  'one query after others': { queries: 1, keys: 7, offset: 6 },
  'many blocks': { queries: 300, keys: 300, batch: 1, window: 70 },
  'many blocks, one key head a query head': { queries: 150, keys: 150, batch: 1, kvHeads: 4 },
};
for (const [name, { hidden, ...change }] of Object.entries(SHAPES)) {
  const shape = { ...ATTENTION, ...change };
  const [q, k] = [input(shape.batch * shape.queries, shape.heads * 6), input(shape.batch * shape.keys, shape.kvHeads * 6)];
  const { batch, keys } = shape;
  const bytes = Uint8Array.from({ length: batch * keys }, (_, i) => (hidden !== undefined && HIDDEN[hidden](i % keys, Math.floor(i / keys), keys) ? 0 : 1));
  const mask = (o: Ops): tfjs.Tensor2D | undefined => (hidden === undefined ? undefined : o.tf.tensor2d(bytes, [batch, keys], 'bool'));
  OP_CASES[`attention: ${name}`] = {
    inputs: [q, k, input(shape.batch * shape.keys, shape.kvHeads * 6)],
    fused: (o) => (t) => o.attention(two(t[0]), two(t[1]), two(t[2]), shape, mask(o)),
    plain: (o) => (t) => o.plainAttention(two(t[0]), two(t[1]), two(t[2]), shape, mask(o)),
  };
}

const WEIGHTS = rng.normals(70 * 24);
for (const dtype of ['BF16', 'F16', 'F32'] as const) {
  for (const transposed of [false, true]) {
    const [rows, columns] = transposed ? [24, 70] : [70, 24];
    const bytes = encodeAs(dtype, WEIGHTS);
    OP_CASES[`frozen linear, ${dtype}${transposed ? ', (in, out)' : ''}`] = {
      inputs: [input(5, 24), input(70)],
      fused: (o) => (t) => o.frozenLinear(two(t[0]), o.frozenMatrix(dtype, rows, columns, bytes), one(t[1]), transposed),
      plain: (o) => (t) => {
        const w = o.tf.tensor2d(o.rowsOf(o.frozenMatrix(dtype, rows, columns, bytes), 0, rows), [rows, columns]);
        return o.tf.add(o.tf.matMul(two(t[0]), w, false, !transposed), t[1]!);
      },
    };
  }
}
for (const softcap of [0, 2]) {
  const targets = Int32Array.of(3, -1, 69, 0, 12);
  OP_CASES[`head loss, cap ${softcap}`] = {
    inputs: [input(5, 24)],
    fused: (o) => (t) =>
      o.headLoss(two(t[0]), o.frozenMatrix('BF16', 70, 24, encodeAs('BF16', WEIGHTS)), o.tf.tensor1d(targets, 'int32'), { softcap, train: true }),
    plain: (o) => (t) => {
      const w = o.tf.tensor2d(o.rowsOf(o.frozenMatrix('BF16', 70, 24, encodeAs('BF16', WEIGHTS)), 0, 70), [70, 24]);
      const raw = o.tf.matMul(two(t[0]), w, false, true);
      const z = softcap > 0 ? o.tf.mul(o.tf.tanh(o.tf.div(raw, softcap)), softcap) : raw;
      const logP = o.tf.logSoftmax(z);
      const hot = o.tf.tensor2d(
        Array.from({ length: 350 }, (_, i) => (targets[Math.floor(i / 70)] === i % 70 ? 1 : 0)),
        [5, 70],
      );
      return o.tf.neg(o.tf.sum(o.tf.mul(logP, hot), 1));
    },
  };
}
OP_CASES['rows of a trainable table'] = {
  inputs: [input(6, 7)],
  fused: (o) => (t) => o.embeddingRows(two(t[0]), o.tf.tensor1d([4, 0, 4, 5], 'int32')),
  plain: (o) => (t) => {
    const hot = o.tf.oneHot(o.tf.tensor1d([4, 0, 4, 5], 'int32'), 6);
    return o.tf.matMul(o.tf.cast(hot, 'float32'), two(t[0]));
  },
};
OP_CASES['frames that a kernel of 3 sees'] = {
  inputs: [input(10, 3)],
  fused: (o) => (t) => o.unfoldFrames(two(t[0]), 2, 2),
  // each tap as a product with the places that it takes
  plain: (o) => (t) => {
    const taps = [-1, 0, 1].map((shift) => {
      const places = [0, 2, 4, 5, 7, 9].map((row) => (Math.floor(row / 5) === Math.floor((row + shift) / 5) ? row + shift : -1));
      const picks = Float32Array.from({ length: 60 }, (_, i) => (places[Math.floor(i / 10)] === i % 10 ? 1 : 0));
      return o.tf.matMul(o.tf.tensor2d(picks, [6, 10]), two(t[0]));
    });
    return o.tf.reshape(o.tf.stack(taps, 2), [6, 9]);
  },
};
