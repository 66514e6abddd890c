/** Figures at their edges; their values are tested against llama.cpp's formulas and lm-evaluation-harness in eval.test.ts. */
import { expect } from 'chai';
import { choiceFigures, divergence, meanOf, percentile, perplexity, recoveredShare, unitPerplexity } from '../../pipelines/eval-figures.js';

describe('eval figures', () => {
  it('a mean with its standard error: that of a small spread beside a large value is not lost', () => {
    const values = Float64Array.from({ length: 1000 }, (_, i) => 1e9 + (i % 2));
    const { mean, stderr } = meanOf(values);
    expect(mean).to.equal(1e9 + 0.5);
    expect(stderr).to.be.closeTo(0.5 / Math.sqrt(999), 1e-12);
    expect(meanOf([1, 2, 3])).to.deep.equal({ mean: 2, stderr: 0 });
    expect(meanOf([])).to.deep.equal({ mean: 0, stderr: 0 });
  });

  it('equal probabilities of V tokens are a perplexity of V without error', () => {
    const r = perplexity(new Float32Array(50).fill(Math.fround(Math.log(32))));
    expect(r.ppl).to.be.closeTo(32, 1e-5);
    expect(r.stderr).to.equal(0);
  });

  it('2 nats over 4 words and 8 bytes', () => {
    const { wordPpl, bytePpl, bitsPerByte } = unitPerplexity(Float32Array.of(0.5, 1.5), { words: 4, bytes: 8 });
    expect([wordPpl, bytePpl, bitsPerByte]).to.deep.equal([Math.exp(0.5), Math.exp(0.25), 2 / (8 * Math.LN2)]);
  });

  it('models that are the same: nothing diverges, the ratio is 1 without error', () => {
    const nll = Float32Array.from({ length: 100 }, (_, i) => 1 + (i % 7));
    const top = new Int32Array(100);
    const d = divergence({ nll, top, reference: { nll, top }, kld: new Float32Array(100) })!;
    expect(d).to.include({ mean: 0, max: 0, topTokenAgreement: 1, topTokenStderr: 0, rmsDeltaP: 0, rmsDeltaPStderr: 0, pplRatio: 1, pplRatioStderr: 0 });
    expect(d.correlation).to.be.closeTo(1, 1e-12);
    expect(divergence({ nll, top })).to.equal(undefined);
  });

  it('a share of the way, and none where there is no way', () => {
    expect([recoveredShare(30, 40, 20), recoveredShare(45, 40, 20), recoveredShare(30, 40, 40)]).to.deep.equal([0.5, -0.25, undefined]);
  });

  it('quantiles lie between neighbours in proportion', () => {
    expect([0, 0.25, 0.5, 0.9, 1].map((share) => percentile([1, 2, 4], share))).to.deep.equal([1, 1.5, 2, 3.6, 4]);
  });

  it('choices: the likeliest, a character, a byte; the first of equals', () => {
    const scores = { characters: [1, 4], bytes: [1, 8], gold: 1 };
    const f = choiceFigures([
      { ...scores, logLikelihoods: [-1, -2] },
      { ...scores, logLikelihoods: [-1, -6] },
      { ...scores, logLikelihoods: [-1, -1] },
    ]);
    expect([f.acc, f.accNorm, f.accBytes]).to.deep.equal([0, 2 / 3, 1]);
    // right, right, wrong: sample deviation 1 / sqrt(3), over sqrt(3)
    expect(f.accNormStderr).to.be.closeTo(1 / 3, 1e-12);
  });
});
