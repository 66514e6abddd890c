/** Widths under a budget: within it, and at most a step from the best of all combinations. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { allocateWidths, type LayerWidths } from '../../../kernels/quant/allocation.js';

const BITS = [2.125, 3.125, 4.125, 8.125];
const layers = (seed: number, count: number): LayerWidths[] => {
  const rng = new Rng(seed);
  return Array.from({ length: count }, () => {
    const scale = 10 ** (2 * rng.uniform());
    return { weights: 1000 * (1 + rng.integer(8)), bitsPerWeight: BITS, cost: BITS.map((b) => scale * 4 ** -b) };
  });
};

describe('kernels/quant allocation', () => {
  for (const seed of [1, 2, 3]) {
    it(`seed ${seed}: within the budget, at most one step's cost from one width for all and from the best of all combinations`, () => {
      const all = layers(seed, 5);
      const weights = all.reduce((sum, l) => sum + l.weights, 0);
      for (const [width, budget] of BITS.entries()) {
        const got = allocateWidths(all, budget);
        expect(got.bitsPerWeight).to.be.at.most(budget + 1e-9);
        expect(got.cost).to.be.closeTo(all.reduce((sum, l, i) => sum + l.cost[got.widths[i]!]!, 0), 1e-12); // prettier-ignore
        const uniform = all.reduce((sum, l) => sum + l.cost[width]!, 0);
        let best = Infinity;
        for (let code = 0; code < BITS.length ** all.length; code++) {
          const choice = all.map((_, i) => Math.floor(code / BITS.length ** i) % BITS.length);
          const bits = all.reduce((sum, l, i) => sum + l.weights * BITS[choice[i]!]!, 0);
          if (bits <= budget * weights * (1 + 1e-12)) best = Math.min(best, all.reduce((sum, l, i) => sum + l.cost[choice[i]!]!, 0)); // prettier-ignore
        }
        const step = Math.max(...all.map((l, i) => l.cost[got.widths[i]!]! - (l.cost[got.widths[i]! + 1] ?? l.cost[got.widths[i]!]!)));
        expect(got.cost).to.be.at.most(best + step + 1e-12);
        expect(got.cost).to.be.at.most(uniform + step);
      }
    });
  }

  it('a budget below the first width leaves every layer there, no layers take nothing', () => {
    expect(allocateWidths(layers(4, 3), 1).widths).to.deep.equal([0, 0, 0]);
    expect(allocateWidths([], 4)).to.deep.equal({ widths: [], bitsPerWeight: 0, cost: 0 });
  });
});
