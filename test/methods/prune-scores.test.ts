/** Pruners that rank and leave kept weights alone: magnitude and Wanda. */
import { expect } from 'chai';
import { Rng } from '../../core/rng.js';
import type { Sparsity } from '../../methods/kinds.js';
import { expectCode } from '../support/expect-error.js';
import { ctx, f1, pruned, pruner, zeros, type Layer } from '../support/pruning.js';

const small = (seed: number): Layer => f1(new Rng(seed), 24, 50, 200);
const TARGETS: readonly Sparsity[] = [
  { group: 'layer', ratio: 0.5 },
  { group: 'row', ratio: 0.7 },
  { group: 'n:m', keep: 2, of: 4 },
  { group: 'n:m', keep: 3, of: 7 },
];

describe('methods/prune: scores', () => {
  for (const name of ['magnitude', 'wanda']) {
    it(`${name}: kept bits stay, zeros are +0, a second run changes nothing`, async () => {
      const f = small(1);
      for (const target of TARGETS) {
        const once = await pruned(name, f, target);
        once.w.forEach((v, i) => expect(Object.is(v, once.mask[i] === 1 ? f.layer.w[i]! : 0)).to.equal(true));
        const again = await pruned(name, { ...f, layer: { ...f.layer, w: once.w.slice() } }, target);
        expect(again.mask).to.deep.equal(once.mask);
        expect(again.w).to.deep.equal(once.w);
        expect(once.facts['denseTail']).to.equal(target.group !== 'n:m' ? undefined : 50 % target.of);
      }
    });

    it(`${name}: every kept score is at least every removed one of its group`, async () => {
      const f = small(2);
      const method = await pruner(name);
      const { mask } = await pruned(name, f, { group: 'row', ratio: 0.37 });
      const scores = method.scores!(ctx(), f.layer, f.stats);
      for (let i = 0; i < 24; i++) {
        const row = Array.from(scores.subarray(i * 50, (i + 1) * 50), (score, j) => ({ score, kept: mask[i * 50 + j] === 1 }));
        expect(row.filter((r) => !r.kept)).to.have.length(Math.floor(0.37 * 50));
        expect(Math.min(...row.filter((r) => r.kept).map((r) => r.score))).to.be.at.least(Math.max(...row.filter((r) => !r.kept).map((r) => r.score)));
      }
    });
  }

  it('wanda with constant norms is magnitude by rows', async () => {
    const f = small(3);
    const flat = { ...f, stats: { ...f.stats, inputSqNorm: new Float32Array(50).fill(4) } };
    const target = { group: 'row', ratio: 0.5 } as const;
    expect((await pruned('wanda', flat, target)).mask).to.deep.equal((await pruned('magnitude', f, target)).mask);
  });

  it('wanda does not see a scale moved from the inputs to the weights', async () => {
    const f = small(4);
    const [w, inputSqNorm] = [f.layer.w.slice(), f.stats.inputSqNorm.slice()];
    for (let i = 7; i < w.length; i += 50) w[i] = w[i]! / 16;
    inputSqNorm[7] = inputSqNorm[7]! * 256;
    const scaled = { layer: { ...f.layer, w }, stats: { ...f.stats, inputSqNorm } };
    for (const target of TARGETS) expect((await pruned('wanda', scaled, target)).mask).to.deep.equal((await pruned('wanda', f, target)).mask);
  });

  it("wanda's variant: within 0.001 of the ratio, rows of their own, prefixes of their sorted scores", async () => {
    const f = f1(new Rng(5), 64, 256, 300);
    const { mask, facts } = await pruned('wanda', f, { group: 'row', ratio: 0.5 }, { useVariant: true });
    expect(Math.abs(zeros(mask) / mask.length - 0.5)).to.be.at.most(0.001);
    const counts = Array.from({ length: 64 }, (_, i) => zeros(mask, i * 256, (i + 1) * 256));
    expect(new Set(counts).size).to.be.greaterThan(5);
    const scores = (await pruner('wanda')).scores!(ctx(), f.layer, f.stats);
    for (let i = 0; i < 64; i++) {
      const sorted = Array.from(scores.subarray(i * 256, (i + 1) * 256)).sort((a, b) => a - b);
      const sum = (k: number): number => sorted.slice(0, k).reduce((a, b) => a + b, 0);
      const limit = Number(facts['alpha']) * sum(256);
      expect(sum(counts[i]!)).to.be.at.most(limit * (1 + 1e-5));
      expect(sum(counts[i]! + 1)).to.be.greaterThan(limit * (1 - 1e-5));
    }
    await expectCode('BAD_PARAMS', () => pruned('wanda', f, { group: 'n:m', keep: 2, of: 4 }, { useVariant: true }));
  });

  it('what is not finite is an error that names the layer', async () => {
    const f = small(6);
    for (const bad of [NaN, Infinity, -Infinity]) {
      const inputSqNorm = f.stats.inputSqNorm.slice();
      inputSqNorm[3] = bad;
      const error = await expectCode('NOT_FINITE', () => pruned('wanda', { ...f, stats: { ...f.stats, inputSqNorm } }, TARGETS[1]!));
      expect(error.message).to.contain('layers.0.proj').and.to.contain('inputSqNorm');
      const w = f.layer.w.slice();
      w[5] = bad;
      expect((await expectCode('NOT_FINITE', () => pruned('magnitude', { ...f, layer: { ...f.layer, w } }, TARGETS[0]!))).message).to.contain('layers.0.proj');
    }
  });

  it('a target that is none is refused', async () => {
    for (const target of [
      { group: 'row', ratio: 1.1 },
      { group: 'layer', ratio: NaN },
      { group: 'n:m', keep: 5, of: 4 },
    ] as const)
      await expectCode('BAD_PARAMS', () => pruned('magnitude', small(7), target));
  });
});

describe('methods/prune: baselines', () => {
  it('random: the mask follows from the seed, and is close to even', async () => {
    const method = await pruner('random');
    const { layer, stats } = f1(new Rng(8), 64, 100, 50);
    const run = async (seed: number): Promise<Uint8Array> =>
      (await method.prune(ctx(seed), { ...layer, w: layer.w.slice() }, stats, { group: 'layer', ratio: 0.5 })).mask;
    const [a, again, b] = [await run(1), await run(1), await run(2)];
    expect(again).to.deep.equal(a);
    const agree = a.reduce((count, v, i) => count + (v === b[i] ? 1 : 0), 0) / a.length;
    expect(agree).to.be.within(0.45, 0.55);
    for (let i = 0; i < 64; i++) expect(zeros(a, 100 * i, 100 * i + 100)).to.be.within(25, 75);
  });

  it('movement-proxy: weights that grew stay, those that shrank go', async () => {
    const rng = new Rng(9);
    const base = rng.normals(64);
    const grown = new Set<number>();
    while (grown.size < 32) grown.add(rng.integer(64));
    // the grown half moves by 1 away from zero, the other half to zero
    const w = base.map((v, i) => (grown.has(i) ? v + Math.sign(v) : 0));
    const method = await pruner('movement-proxy');
    const target = { group: 'layer', ratio: 0.5 } as const;
    const { mask } = await method.prune(ctx(), { name: 'layers.0.proj', m: 4, n: 16, w: w.slice(), base }, { tokens: 0 }, target);
    mask.forEach((v, i) => expect(v).to.equal(grown.has(i) ? 1 : 0));
    const ofBase = await (await pruner('magnitude')).prune(ctx(), { name: 'layers.0.proj', m: 4, n: 16, w: base.slice() }, { tokens: 0 }, target);
    expect([...grown].filter((i) => ofBase.mask[i] === 1).length).to.be.within(8, 24);
    await expectCode('BAD_PARAMS', () => method.prune(ctx(), { name: 'layers.0.proj', m: 4, n: 16, w }, { tokens: 0 }, target));
  });
});
