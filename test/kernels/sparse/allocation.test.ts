/** Ratios of a model's blocks: their mean, their order, their range. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { outlierShare, owlRatios, uniformRatios, type Part } from '../../../kernels/sparse/allocation.js';

const mean = (parts: readonly Part[], ratios: readonly number[]): number =>
  ratios.reduce((sum, r, i) => sum + r * parts[i]!.size, 0) / parts.reduce((sum, p) => sum + p.size, 0);

describe('kernels/sparse allocation', () => {
  it("owl: the authors' formula for blocks of one size", () => {
    const parts = [0.02, 0.05, 0.03, 0.1].map((share) => ({ size: 7, share }));
    // 2 lambda (D - min) / (max - min) = 0, 0.06, 0.02, 0.16, mean 0.06
    const expected = [0.7 + 0.06, 0.7, 0.7 + 0.04, 0.7 - 0.1];
    owlRatios(parts, 0.7).forEach((r, i) => expect(r).to.be.closeTo(expected[i]!, 1e-12));
  });

  it('the mean holds for any sizes and ratios, every ratio is a share, more outliers lose less', () => {
    const rng = new Rng(3);
    for (let round = 0; round < 200; round++) {
      const parts = Array.from({ length: 1 + rng.integer(40) }, () => ({ size: 1 + rng.integer(1000), share: rng.uniform() ** 3 }));
      const ratio = round % 20 === 0 ? 0 : round % 20 === 1 ? 1 : rng.uniform();
      const lambda = rng.uniform();
      const ratios = owlRatios(parts, ratio, lambda);
      expect(mean(parts, ratios)).to.be.closeTo(ratio, 1e-9);
      for (const [i, r] of ratios.entries()) {
        expect(r).to.be.within(-1e-12, 1 + 1e-12);
        for (const [j, s] of ratios.entries()) if (parts[i]!.share > parts[j]!.share) expect(r).to.be.at.most(s);
      }
      expect(Math.max(...ratios) - Math.min(...ratios)).to.be.at.most(2 * lambda + 1e-12);
    }
  });

  it('equal shares are uniform', () => {
    const parts = [1, 2, 3].map((size) => ({ size, share: 0.04 }));
    expect(owlRatios(parts, 0.6)).to.deep.equal(uniformRatios(parts, 0.6));
    expect(owlRatios([], 0.6)).to.deep.equal([]);
  });

  it('outliers are counted against the mean of the whole block', () => {
    const layers = [Float32Array.of(1, 1, 1, 30), new Float32Array(16).fill(1)];
    // mean 2.45; above 12.25: one of twenty
    expect(outlierShare(() => layers)).to.equal(1 / 20);
    expect(outlierShare(() => layers, 0.4)).to.equal(1);
    expect(outlierShare(() => [])).to.equal(0);
  });
});
