/** Keys keep the order of the scores; a cut over several layers removes exactly as many as are asked for. */
import { expect } from 'chai';
import fc from 'fast-check';
import { countKeys, cutBin, cutMask, scoreKeys } from '../../../kernels/sparse/score-keys.js';

const floats = fc.array(fc.float({ noNaN: true }), { minLength: 1, maxLength: 60 }).map((v) => Float32Array.from(v));

describe('kernels/sparse/score-keys', () => {
  it('keys are ordered as the scores', () => {
    fc.assert(
      fc.property(floats, (scores) => {
        const keys = scoreKeys(scores);
        for (let i = 0; i < scores.length; i++) {
          for (let j = 0; j < scores.length; j++) if (scores[i]! < scores[j]!) expect(keys[i]).to.be.below(keys[j]!);
        }
      }),
    );
  });

  it('the cut of upper, then lower halves removes exactly the smallest, first of the ties', () => {
    fc.assert(
      fc.property(floats, fc.double({ min: 0, max: 0.999, noNaN: true }), (raw, ratio) => {
        // many ties
        const scores = raw.map((v) => Math.round(Math.min(20, Math.abs(v))));
        const keys = scoreKeys(scores);
        const remove = Math.floor(ratio * keys.length);
        const upper = cutBin(countKeys(keys), remove);
        const lower = cutBin(countKeys(keys, upper.bin), remove - upper.below);
        const mask = cutMask(keys, upper.bin * 0x10000 + lower.bin, remove - upper.below - lower.below);
        const order = Array.from(scores.keys()).sort((a, b) => scores[a]! - scores[b]! || a - b);
        const right = new Uint8Array(keys.length).fill(1);
        for (const i of order.slice(0, remove)) right[i] = 0;
        expect(mask).to.deep.equal(right);
      }),
    );
  });

  it('more than there are: no bin', () => {
    expect(cutBin(countKeys(scoreKeys(Float32Array.of(1, 2))), 2)).to.deep.equal({ bin: 65536, below: 2 });
  });
});
