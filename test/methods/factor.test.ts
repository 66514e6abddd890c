/** The acceptance lines of the low-rank sheet for factorizers, on three seeds: F1, Fisher losses, special cases; and what they are given wrongly. */
import { expect } from 'chai';
import { Rng } from '../../core/rng.js';
import { truncatedSvd } from '../../kernels/linalg/truncated-svd.js';
import type { LayerWeight } from '../../methods/kinds.js';
import { expectCode } from '../support/expect-error.js';
import { ctx, decompose, f1, fisherLoss, fisherStats, ops, outerGradients, outputError, productOf } from '../support/factor-fixtures.js';
import { distance, frobenius, withSpectrum } from '../support/random-matrix.js';

const SEEDS = [1, 2, 3];
const tail = (s: ArrayLike<number>, r: number): number => frobenius(Array.from(s).slice(r));
const diagonal = (n: number, value: (i: number) => number): Float32Array => Float32Array.from({ length: n * n }, (_, p) => (p % (n + 1) === 0 ? value(p / (n + 1)) : 0)); // prettier-ignore

describe('methods factor', function () {
  this.timeout(120_000);

  for (const seed of SEEDS) {
    it(`F1, seed ${seed}: svd-llm <= diag <= svd near the measured figures; the error is the dropped spectrum`, async () => {
      const rng = new Rng(seed);
      const { layer, stats } = f1(rng);
      const { m, n } = layer;
      const rank = 85;
      const error = async (name: string, given: object = stats): Promise<number> =>
        outputError(productOf(await decompose(rng, name, layer, { tokens: 0, ...given }), rank, m, n), layer, stats.inputGram);
      // diag(G)^1/2: the whitening of independent channels
      const diag = await error('svd-llm', { inputGram: diagonal(n, (i) => stats.inputGram[i * n + i]!) });
      const [svd, asvd, llm] = [await error('svd'), await error('asvd'), await error('svd-llm')];
      expect(svd).to.be.closeTo(0.409, 0.04);
      expect(asvd).to.be.closeTo(0.309, 0.03);
      expect(diag).to.be.closeTo(0.306, 0.03);
      expect(llm).to.be.closeTo(0.195, 0.02);
      expect(llm).to.be.below(diag);
      expect(diag).to.be.below(svd);
      const { s, facts } = await decompose(rng, 'svd-llm', layer, stats);
      expect(facts).to.deep.equal({});
      expect(llm / (tail(s, rank) / frobenius(s))).to.be.closeTo(1, 1e-3);
    });

    it(`gradients g x^T, seed ${seed}: gfwsvd below half of fwsvd, its whitened tail is the Kronecker loss`, async () => {
      const rng = new Rng(10 + seed);
      const [m, n, rank] = [64, 96, 16];
      const outer = outerGradients(rng, m, n, 4000);
      const layer: LayerWeight = { name: 'layer', m, n, w: rng.normals(m * n) };
      const stats = { tokens: 0, ...fisherStats(outer, m, n) };
      const difference = async (name: string, params = {}): Promise<Float32Array> =>
        productOf(await decompose(rng, name, layer, stats, params), rank, m, n).map((v, i) => v - layer.w[i]!);
      const loss = async (name: string): Promise<number> => fisherLoss(outer, await difference(name), m, n);
      const [svd, fwsvd, gfwsvd] = [await loss('svd'), await loss('fwsvd'), await loss('gfwsvd')];
      expect(gfwsvd).to.be.below(0.5 * fwsvd);
      expect(fwsvd).to.be.below(1.1 * svd);
      // vec(D)^T (B x A) vec(D) = tr(D^T B D A)
      const d = await difference('gfwsvd', { damping: 0 });
      const bd = ops.multiply64(false, false, m, n, m, new Float64Array(stats.fisherB), new Float64Array(d));
      const bda = ops.multiply64(false, false, m, n, n, bd, new Float64Array(stats.fisherA));
      const kronecker = bda.reduce((sum, v, i) => sum + v * d[i]!, 0);
      const { s } = await decompose(rng, 'gfwsvd', layer, stats, { damping: 0 });
      expect(tail(s, rank) ** 2 / kronecker).to.be.closeTo(1, 1e-3);
    });

    it(`special cases, seed ${seed}: unit metrics give truncated SVD, a diagonal B gives fwsvd, B = I gives svd-llm`, async () => {
      const rng = new Rng(20 + seed);
      const [m, n, rank] = [48, 40, 9];
      const layer: LayerWeight = {
        name: 'layer',
        m,
        n,
        w: withSpectrum(
          rng,
          m,
          n,
          Array.from({ length: n }, (_, i) => 1 / (i + 1)),
        ),
      };
      const x = rng.normals(200 * n).map((v, i) => v * (1 + (i % n)));
      const inputGram = ops.gram(x, 200, n, false);
      const fisherRow = Float32Array.from({ length: m }, (_, i) => 1 + i);
      const [unitA, unitB] = [diagonal(n, () => 1), diagonal(m, () => 1)];
      const what = async (name: string, stats: object): Promise<Float32Array> => productOf(await decompose(rng, name, layer, { tokens: 200, ...stats }, name === 'gfwsvd' ? { damping: 0 } : {}), rank, m, n); // prettier-ignore
      const svd = await truncatedSvd(layer.w, m, n, { rank, ops, rng: new Rng(1) });
      const plain = ops.multiply(false, false, m, n, rank, svd.u.map((v, i) => v * svd.s[i % rank]!), svd.vt); // prettier-ignore
      const near = (a: Float32Array, b: Float32Array): void => void expect(distance(a, b) / frobenius(b)).to.be.below(1e-5);
      near(await what('svd', {}), plain);
      near(await what('gfwsvd', { fisherA: unitA, fisherB: unitB }), plain);
      near(await what('svd-llm', { inputGram: unitA }), plain);
      near(await what('asvd', { inputAbsMean: new Float32Array(n).fill(3) }), plain);
      near(await what('gfwsvd', { fisherA: unitA, fisherB: diagonal(m, (i) => 1 + i) }), await what('fwsvd', { fisherRow }));
      near(await what('gfwsvd', { fisherA: inputGram, fisherB: unitB }), await what('svd-llm', { inputGram }));
    });
  }

  it('full rank gives the weight back, tall and wide; a matrix of lower rank has components of zero', async () => {
    const rng = new Rng(4);
    for (const [m, n] of [
      [30, 20],
      [20, 30],
      [25, 25],
      [1, 7],
      [7, 1],
    ] as const) {
      // prettier-ignore
      const layer: LayerWeight = { name: 'layer', m, n, w: rng.normals(m * n) };
      const stats = { tokens: 99, inputGram: ops.gram(rng.normals(99 * n), 99, n, false), inputAbsMean: Float32Array.from({ length: n }, (_, i) => 0.1 + i) };
      for (const name of ['svd', 'asvd', 'svd-llm'])
        expect(distance(productOf(await decompose(rng, name, layer, stats), Math.min(m, n), m, n), layer.w) / frobenius(layer.w), name).to.be.below(1e-5);
      const low: LayerWeight = { ...layer, w: ops.multiply(false, false, m, n, 1, rng.normals(m), rng.normals(n)) };
      const { a, b } = (await decompose(rng, 'svd-llm', low, stats)).factors(5);
      expect([a.length, b.length]).to.deep.equal([5 * m, 5 * n]);
      expect(b.subarray(n).every((v) => v === 0)).to.be.true;
      expect(distance(ops.multiply(false, false, m, n, 5, a, b), low.w) / frobenius(low.w)).to.be.below(1e-5);
    }
  });

  it('fewer tokens than channels: the Gram matrix is damped, and says so; inputs are left as they are', async () => {
    const rng = new Rng(6);
    const [m, n] = [20, 40];
    const layer: LayerWeight = { name: 'layer', m, n, w: rng.normals(m * n) };
    const inputGram = ops.gram(rng.normals(10 * n), 10, n, false);
    const before = [layer.w.slice(), inputGram.slice()];
    const d = await decompose(rng, 'svd-llm', layer, { tokens: 10, inputGram });
    expect(d.facts['damping']).to.be.within(1e-8, 1e-4);
    const what = productOf(d, 12, m, n);
    // ten directions are all there is
    expect(outputError(what, layer, inputGram)).to.be.below(0.02);
    expect([layer.w, inputGram]).to.deep.equal(before);
    const zero = await decompose(rng, 'svd-llm', layer, { tokens: 10, inputGram: new Float32Array(n * n) });
    expect(zero.facts['damping']).to.equal(1);
    expect(distance(productOf(zero, m, m, n), layer.w) / frobenius(layer.w)).to.be.below(1e-5);
    expect((await decompose(rng, 'fwsvd', layer, { tokens: 1, fisherRow: new Float32Array(m) })).facts).to.deep.equal({ fisher: 'zero' });
    expect((await decompose(rng, 'svd', { ...layer, w: new Float32Array(m * n) }, { tokens: 1 })).factors(3).a.every((v) => v === 0)).to.be.true;
  });

  it('values that are not finite, statistics that are no covariance, parameters that are none', async () => {
    const rng = new Rng(7);
    const layer: LayerWeight = { name: 'q_proj', m: 2, n: 2, w: Float32Array.of(1, 2, 3, 4) };
    await expectCode('NOT_FINITE', () => decompose(rng, 'svd', { ...layer, w: Float32Array.of(1, NaN, 3, 4) }, { tokens: 1 }));
    await expectCode('NOT_FINITE', () => decompose(rng, 'asvd', layer, { tokens: 1, inputAbsMean: Float32Array.of(1, Infinity) }));
    await expectCode('NOT_FINITE', () => decompose(rng, 'svd-llm', layer, { tokens: 1, inputGram: Float32Array.of(1, 0, 0, NaN) }));
    await expectCode('NOT_FINITE', () => decompose(rng, 'svd-llm', layer, { tokens: 1, inputGram: Float32Array.of(1, 9, 9, 1) }));
    await expectCode('BAD_PARAMS', () => decompose(rng, 'asvd', layer, { tokens: 1 }, { alpha: -1 }));
    await expectCode('BAD_PARAMS', () => decompose(rng, 'svd', layer, { tokens: 1 }, { rank: 3 }));
    expect(ctx(rng).device).to.equal('cpu');
  });
});
