/** What every adapter of the registry keeps to; a new one is covered by its line in methods/index.ts. */
import { expect } from 'chai';
import * as tf from '#tf';
import { Rng } from '../../core/rng.js';
import { setupBackend } from '../../kernels/backend/setup.js';
import { f32Matrix } from '../../kernels/nn/frozen-matrix.js';
import { adapterForward, denseForward, PLAIN_PASS } from '../../methods/adapter-forward.js';
import {
  countParams,
  type AdaptedLayer,
  type FrozenLinear,
  type HostTree,
  type LayerPlan,
  type ParamTree,
  type WeightAdapter,
} from '../../methods/adapter-kind.js';
import { loadMethod, methodNames } from '../../methods/index.js';
import { expectCode } from '../support/expect-error.js';

interface Case {
  readonly layer: AdaptedLayer;
  readonly transposed: boolean;
}

/** in < out, in > out, odd sizes, with and without a bias, either way round, both kinds of module that (IA)^3 knows. */
const CASES: readonly Case[] = [
  { layer: { module: 'layers.0.self_attn.k_proj', out: 24, in: 16, bias: true }, transposed: false },
  { layer: { module: 'layers.0.mlp.down_proj', out: 13, in: 31, bias: true }, transposed: false },
  { layer: { module: 'layers.0.self_attn.v_proj', out: 17, in: 16, bias: false }, transposed: false },
  { layer: { module: 'h.0.mlp.c_proj', out: 16, in: 24, bias: true }, transposed: true },
];
const TOKENS = 7;

function frozen({ layer, transposed }: Case, rng: Rng): FrozenLinear {
  const [rows, columns] = transposed ? [layer.in, layer.out] : [layer.out, layer.in];
  return { matrix: f32Matrix(rows, columns, rng.normals(rows * columns)), transposed, bias: layer.bias ? tf.tensor1d(rng.normals(layer.out)) : undefined };
}

const close = (a: tf.Tensor, b: tf.Tensor): number => {
  const norm = (t: tf.Tensor): number => tf.norm(t).dataSync()[0]!;
  return norm(tf.sub(a, b)) / Math.max(1e-12, norm(b));
};

const tree = (values: HostTree, shapes: Readonly<Record<string, { readonly shape: readonly number[] }>>): ParamTree =>
  Object.fromEntries(Object.entries(shapes).map(([name, { shape }]) => [name, tf.tensor(values[name]!, [...shape])]));

const context = (seed: number) => ({
  device: 'cpu' as const,
  rng: new Rng(seed).fork('layer'),
  blasThreads: 1,
  memoryBytes: 1e9,
  report: () => undefined,
  checkpointCancel: () => undefined,
});

/** Every trainable value moved, so that nothing is at its start. */
function moved(values: HostTree, rng: Rng): HostTree {
  return Object.fromEntries(Object.entries(values).map(([name, v]) => [name, v.map((x) => x + 0.3 * rng.normal())]));
}

for (const name of methodNames('adapter')) {
  describe(`conformance: adapter ${name}`, () => {
    let adapter: WeightAdapter;
    const plans: { c: Case; plan: LayerPlan }[] = [];
    before(async () => {
      await setupBackend('cpu', { blasThreads: 1 });
      adapter = (await loadMethod('adapter', name)).create({});
      for (const c of CASES) {
        const plan = adapter.plan(c.layer);
        if (typeof plan !== 'string') plans.push({ c, plan });
      }
    });

    it('takes at least some layers; shapes and values of the start are those of the plan', async () => {
      expect(plans).to.have.length.greaterThan(0);
      for (const { c, plan } of plans) {
        const { trainable, frozen: rest } = await adapter.init(context(1), c.layer, frozen(c, new Rng(2)));
        expect(Object.keys(trainable)).to.deep.equal(Object.keys(plan.trainable));
        expect(Object.keys(rest)).to.deep.equal(Object.keys(plan.frozen ?? {}));
        const count = Object.values(trainable).reduce((sum, v) => sum + v.length, 0);
        expect(count).to.equal(countParams(plan)).and.greaterThan(0);
        const again = await adapter.init(context(1), c.layer, frozen(c, new Rng(2)));
        expect(again, 'same seed').to.deep.equal({ trainable, frozen: rest });
      }
    });

    it('changes nothing at the start', async () => {
      for (const { c, plan } of plans) {
        const base = frozen(c, new Rng(3));
        const start = await adapter.init(context(3), c.layer, base);
        const p = { ...tree(start.trainable, plan.trainable), ...tree(start.frozen, plan.frozen ?? {}) };
        const rows: tf.Tensor2D = tf.tensor2d(base.matrix.values!, [base.matrix.rows, base.matrix.columns]);
        const w = c.transposed ? tf.transpose(rows) : rows;
        expect(close(adapter.weight(w, p, c.layer), w)).to.be.lessThan(1e-6);
      }
    });

    it("forward is x W'^T + b', within 1e-5, and so are its gradients", async () => {
      for (const { c, plan } of plans) {
        const rng = new Rng(5);
        const base = frozen(c, rng);
        const start = await adapter.init(context(5), c.layer, base);
        const fixed = tree(start.frozen, plan.frozen ?? {});
        const params = tree(moved(start.trainable, rng), plan.trainable);
        const x: tf.Tensor2D = tf.tensor2d(rng.normals(TOKENS * c.layer.in), [TOKENS, c.layer.in]);
        const dy: tf.Tensor2D = tf.tensor2d(rng.normals(TOKENS * c.layer.out), [TOKENS, c.layer.out]);
        const names = Object.keys(plan.trainable);
        const all = (given: readonly tf.Tensor[]): ParamTree => ({ ...fixed, ...Object.fromEntries(names.map((n, i) => [n, given[i]!])) });
        const inputs = names.map((n) => params[n]!);
        const fast = (x1: tf.Tensor, ...given: tf.Tensor[]): tf.Tensor => adapterForward(adapter, x1 as tf.Tensor2D, base, all(given), c.layer, PLAIN_PASS);
        const slow = (x1: tf.Tensor, ...given: tf.Tensor[]): tf.Tensor => denseForward(adapter, x1 as tf.Tensor2D, base, all(given), c.layer);
        expect(close(fast(x, ...inputs), slow(x, ...inputs))).to.be.lessThan(1e-5);
        const got = tf.grads(fast)([x, ...inputs], dy);
        const want = tf.grads(slow)([x, ...inputs], dy);
        // DoRA's norms are constants in its own backward pass: only the gradients to x and to the magnitudes are those of W'
        const same = name === 'dora' ? [0, 1 + names.indexOf('m')] : got.keys();
        for (const i of same) expect(close(got[i]!, want[i]!), i === 0 ? 'x' : names[i - 1]!).to.be.lessThan(1e-4);
      }
    });

    it('gradients are those of finite differences', async () => {
      for (const { c, plan } of plans) {
        const rng = new Rng(7);
        const base = frozen(c, rng);
        const start = await adapter.init(context(7), c.layer, base);
        const values = moved(start.trainable, rng);
        const fixed = tree(start.frozen, plan.frozen ?? {});
        const x: tf.Tensor2D = tf.tensor2d(rng.normals(TOKENS * c.layer.in), [TOKENS, c.layer.in]);
        const dy = tf.tensor2d(rng.normals(TOKENS * c.layer.out), [TOKENS, c.layer.out]);
        const loss = (p: ParamTree): tf.Scalar => tf.sum(tf.mul(adapterForward(adapter, x, base, { ...fixed, ...p }, c.layer, PLAIN_PASS), dy));
        const params = tree(values, plan.trainable);
        for (const param of name === 'dora' ? ['m'] : Object.keys(params)) {
          const g = tf.grad((t) => loss({ ...params, [param]: t }))(params[param]!);
          const exact = g.dataSync();
          for (let k = 0; k < 5; k++) {
            const at = rng.integer(values[param]!.length);
            const shifted = (h: number): number => {
              const v = values[param]!.slice();
              v[at] = v[at]! + h;
              return loss({ ...params, [param]: tf.tensor(v, [...plan.trainable[param]!.shape]) }).dataSync()[0]!;
            };
            const h = 1e-2;
            const central = (shifted(h) - shifted(-h)) / (2 * h);
            expect(Math.abs(central - exact[at]!), `${param}[${at}]`).to.be.lessThan(1e-2 * Math.max(1, Math.abs(exact[at]!)));
          }
        }
      }
    });

    it('exact factors make the same change of the weight; names for peft are those of tensors it has', async () => {
      for (const { c, plan } of plans) {
        const known = [...Object.keys(plan.trainable), ...Object.keys(plan.frozen ?? {})];
        for (const key of Object.keys(adapter.peft?.keys ?? {})) expect(known).to.include(key);
        if (adapter.toLora === undefined) continue;
        const rng = new Rng(9);
        const base = frozen(c, rng);
        const start = await adapter.init(context(9), c.layer, base);
        const values = moved(start.trainable, rng);
        const { a, b, rank } = adapter.toLora({ ...values, ...start.frozen }, c.layer);
        const zero: tf.Tensor2D = tf.zeros([c.layer.out, c.layer.in]);
        const p = { ...tree(values, plan.trainable), ...tree(start.frozen, plan.frozen ?? {}) };
        const product = tf.matMul(tf.tensor2d(b, [c.layer.out, rank]), tf.tensor2d(a, [rank, c.layer.in]));
        expect(close(product, adapter.weight(zero, p, c.layer))).to.be.lessThan(1e-5);
      }
    });

    it('unknown parameters are refused', async () => {
      const method = await loadMethod('adapter', name);
      await expectCode('BAD_PARAMS', () => method.create({ noSuchParameter: 1 }));
    });
  });
}
