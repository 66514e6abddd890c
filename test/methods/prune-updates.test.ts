/** Pruners with a weight update on small layers: counts, patterns, given masks, dead inputs, singular and broken statistics. */
import { expect } from 'chai';
import { Rng } from '../../core/rng.js';
import { solveSpd } from '../../kernels/linalg/solve.js';
import { removedCount, type Sparsity } from '../../kernels/sparse/sparsity.js';
import type { LayerWeight } from '../../methods/kinds.js';
import { expectCode } from '../support/expect-error.js';
import { ctx, f1, outputError, pruned, pruner, statsOf, updated, zeros, type Layer } from '../support/pruning.js';

const [M, N] = [24, 50];
const small = (seed: number): Layer => f1(new Rng(seed), M, N, 200);
const UPDATES = ['sparsegpt', 'admm', 'alps'] as const;
const TARGETS: readonly Sparsity[] = [
  { group: 'layer', ratio: 0.53 },
  { group: 'row', ratio: 0.7 },
  { group: 'n:m', keep: 2, of: 4 },
  { group: 'n:m', keep: 4, of: 8 },
  { group: 'n:m', keep: 3, of: 7 },
  { group: 'n:m', keep: 1, of: 24 },
  { group: 'layer', ratio: 0 },
  { group: 'layer', ratio: 1 },
];

/** Counts of the mask in every group, and +0 where it removes. */
function checkMask(w: Float32Array, mask: Uint8Array, target: Sparsity, what: string): void {
  expect(zeros(mask), what).to.equal(removedCount(target, M, N));
  w.forEach((v, i) => expect(mask[i] === 0 ? Object.is(v, 0) : Number.isFinite(v), `${what} at ${i}: ${v}`).to.equal(true));
  for (let i = 0; i < M; i++) {
    if (target.group === 'row') expect(zeros(mask, i * N, (i + 1) * N), what).to.equal(Math.floor(target.ratio * N));
    if (target.group !== 'n:m') continue;
    let g = 0;
    for (; g + target.of <= N; g += target.of) expect(zeros(mask, i * N + g, i * N + g + target.of), what).to.equal(target.of - target.keep);
    expect(zeros(mask, i * N + g, (i + 1) * N), what).to.equal(0);
  }
}

/** Each row's least squares on its support with G + damping diag(G), or G alone. */
function exact({ layer: { w }, stats }: Layer, mask: Uint8Array, damping: number): Float64Array {
  const [m, n] = [w.length / stats.inputSqNorm.length, stats.inputSqNorm.length];
  const g = Float64Array.from(stats.inputGram, (v, i) => v * (i % (n + 1) === 0 ? 1 + damping : 1));
  const out = new Float64Array(m * n);
  for (let r = 0; r < m; r++) {
    const kept = Array.from({ length: n }, (_, j) => j).filter((j) => mask[r * n + j] === 1);
    const a = Float64Array.from({ length: kept.length ** 2 }, (_, p) => g[kept[Math.floor(p / kept.length)]! * n + kept[p % kept.length]!]!);
    const b = Float64Array.from(kept, (j) => w.subarray(r * n, (r + 1) * n).reduce((sum, v, k) => sum + v * g[j * n + k]!, 0));
    solveSpd(a, kept.length, b, 1)!.forEach((v, k) => (out[r * n + kept[k]!] = v));
  }
  return out;
}

describe('methods/prune: updates', () => {
  for (const name of UPDATES) {
    it(`${name}: exact counts in every group, zeros are +0`, async () => {
      for (const target of TARGETS) {
        const f = small(1);
        const { w, mask, facts } = await pruned(name, f, target);
        checkMask(w, mask, target, `${name} ${JSON.stringify(target)}`);
        expect(facts['denseTail']).to.equal(target.group === 'n:m' && N % target.of > 0 ? N % target.of : undefined);
      }
    });

    it(`${name}: rows may come in any order`, async () => {
      const f = small(2);
      const order = Array.from({ length: M }, (_, i) => (7 * i + 3) % M);
      const w = Float32Array.from(f.layer.w, (_, i) => f.layer.w[order[Math.floor(i / N)]! * N + (i % N)]!);
      const target = { group: 'row', ratio: 0.5 } as const;
      const params = name === 'admm' ? { mask: 'wanda' } : {};
      const [straight, mixed] = [await pruned(name, f, target, params), await pruned(name, { ...f, layer: { ...f.layer, w } }, target, params)];
      // alps looks at all rows together when it sets its penalty: that count does not depend on their order either
      order.forEach((from, to) => {
        for (let j = 0; j < N; j++) {
          expect(mixed.mask[to * N + j]).to.equal(straight.mask[from * N + j]);
          expect(mixed.w[to * N + j]!).to.be.closeTo(straight.w[from * N + j]!, name === 'alps' ? 1e-4 : 1e-5);
        }
      });
    });

    it(`${name}: weights of dead inputs become +0, and the others are as without them`, async () => {
      const f = small(3);
      const dead = [0, 17, 49];
      const gram = f.stats.inputGram.map((v, i) => (dead.includes(i % N) || dead.includes(Math.floor(i / N)) ? 0 : v));
      const layer: Layer = { layer: f.layer, stats: { ...f.stats, inputGram: gram } };
      for (const target of TARGETS) {
        const { w, mask, facts } = await pruned(name, layer, target);
        expect(facts['deadInputs']).to.equal(3);
        checkMask(w, mask, target, name);
        for (const j of dead) for (let i = 0; i < M; i++) expect(Object.is(w[i * N + j], 0)).to.equal(true);
      }
      const { w } = await pruned(name, layer, { group: 'row', ratio: 0 });
      w.forEach((v, i) => {
        if (!dead.includes(i % N)) expect(v).to.be.closeTo(f.layer.w[i]!, 1e-4);
      });
    });

    it(`${name}: a singular Gram matrix, with and without damping`, async () => {
      const rng = new Rng(4);
      const x = rng.normals(10 * N);
      const f: Layer = { layer: { name: 'layers.0.proj', m: M, n: N, w: rng.normals(M * N) }, stats: statsOf(x, 10, N) };
      for (const damping of [0, 0.01]) {
        const { w, mask, facts } = await pruned(name, f, TARGETS[0]!, { damping });
        checkMask(w, mask, TARGETS[0]!, name);
        // the others add rho to what they invert
        if (name === 'sparsegpt' && damping === 0) expect(facts['dampingRaised']).to.be.within(1e-10, 1e-3);
        else expect(facts['dampingRaised']).to.equal(undefined);
        // ten directions, fifty weights: half of them are more than enough
        expect(outputError(w, f)).to.be.lessThan(0.5 * outputError((await pruned('wanda', f, { group: 'row', ratio: 0.53 })).w, f));
      }
      const none: Layer = { layer: f.layer, stats: { ...f.stats, inputGram: new Float32Array(N * N) } };
      const { w, facts } = await pruned(name, none, TARGETS[0]!);
      expect(w.every((v) => Object.is(v, 0))).to.equal(true);
      expect(facts['deadInputs']).to.equal(N);
    });

    it(`${name}: statistics or weights that are not finite, or no covariance, are errors that name the layer`, async () => {
      for (const bad of [NaN, Infinity]) {
        const f = small(5);
        const gram = f.stats.inputGram.slice();
        gram[3 * N + 1] = bad;
        const error = await expectCode('NOT_FINITE', () => pruned(name, { ...f, stats: { ...f.stats, inputGram: gram } }, TARGETS[0]!));
        expect(error.message).to.contain('layers.0.proj').and.to.contain('inputGram');
        const w = f.layer.w.slice();
        w[9] = bad;
        expect((await expectCode('NOT_FINITE', () => pruned(name, { ...f, layer: { ...f.layer, w } }, TARGETS[0]!))).message).to.contain('layers.0.proj');
      }
    });
  }

  it('sparsegpt: a matrix that no damping makes a covariance', async () => {
    const f = small(6);
    const gram = f.stats.inputGram.map((v, i) => (i % (N + 1) === 0 ? v : 1e12));
    const error = await expectCode('NOT_FINITE', () => pruned('sparsegpt', { ...f, stats: { ...f.stats, inputGram: gram } }, TARGETS[0]!));
    expect(error.message).to.contain('layers.0.proj').and.to.contain('positive semidefinite');
  });

  for (const name of ['sparsegpt', 'admm'] as const) {
    it(`${name} updates any mask, leaves it as it is and lowers the error`, async () => {
      const f = small(7);
      for (const by of ['random', 'magnitude', 'wanda'] as const) {
        for (const target of TARGETS.slice(0, 3)) {
          const before = await pruned(by, f, target);
          const given = before.mask.slice();
          const { w, mask } = await updated(name, f, given);
          expect(given).to.deep.equal(before.mask);
          expect(mask).to.deep.equal(before.mask);
          checkMask(w, mask, target, name);
          expect(outputError(w, f)).to.be.lessThan(0.95 * outputError(before.w, f));
        }
      }
    });
  }

  it('admm: 20 iterations within 0.1 % of the damped masked least squares, 1.5 % of the undamped', async () => {
    const f = f1(new Rng(8), 12, 512, 2048);
    const { mask } = await pruned('wanda', f, { group: 'row', ratio: 0.5 });
    const error = async (params: object): Promise<number> => outputError((await updated('admm', f, mask, params)).w, f);
    const [damped, plain] = [outputError(exact(f, mask, 0.1), f), outputError(exact(f, mask, 0), f)];
    expect(Math.abs((await error({})) / damped - 1)).to.be.at.most(0.001);
    expect(Math.abs((await error({ iterations: 50 })) / damped - 1)).to.be.at.most(2e-5);
    expect((await error({})) / plain).to.be.within(1, 1.015);
    expect(Math.abs((await error({ damping: 0.01, iterations: 100 })) / plain - 1)).to.be.at.most(0.002);
  });

  it('sparsegpt with uncorrelated inputs of one size is magnitude by blocks, without an update', async () => {
    const f = small(9);
    const inputGram = Float32Array.from({ length: N * N }, (_, i) => (i % (N + 1) === 0 ? 3 : 0));
    const { w, mask } = await pruned('sparsegpt', { ...f, stats: { ...f.stats, inputGram } }, { group: 'row', ratio: 0.5 }, { block: 16 });
    for (let from = 0; from < N; from += 16) {
      const columns = Math.min(N, from + 16) - from;
      for (let i = 0; i < M; i++) {
        const part = f.layer.w.slice(i * N + from, i * N + from + columns);
        const block: LayerWeight = { name: 'block', m: 1, n: columns, w: part };
        const expected = await (await pruner('magnitude')).prune(ctx(), block, { tokens: 1 }, { group: 'row', ratio: 0.5 });
        expect(mask.slice(i * N + from, i * N + from + columns)).to.deep.equal(expected.mask);
        expect(w.slice(i * N + from, i * N + from + columns)).to.deep.equal(expected.w);
      }
    }
  });

  it('admm: perOut compares within rows', async () => {
    const { w, mask } = await pruned('admm', small(10), { group: 'layer', ratio: 0.5 }, { perOut: true });
    checkMask(w, mask, { group: 'row', ratio: 0.5 }, 'perOut');
  });

  it('parameters out of range are refused', async () => {
    for (const [name, params] of [
      ['admm', { damping: -1 }],
      ['admm', { iterations: 0 }],
      ['admm', { mask: 'mine' }],
      ['sparsegpt', { block: 0 }],
      ['alps', { unknown: 1 }],
    ] as const)
      await expectCode('BAD_PARAMS', () => pruner(name, params));
  });
});
