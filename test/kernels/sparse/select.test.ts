/** Selection against a stable sort: exact counts, ties, patterns. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { MAGNITUDE, Selector, sortable, WHOLE } from '../../../kernels/sparse/select.js';
import { removedCount, type Sparsity } from '../../../kernels/sparse/sparsity.js';
import { wordsOf } from '../../../kernels/sparse/top-k.js';
import { zeros } from '../../support/pruning.js';

/** 0 for the `count` first of a stable ascending sort. */
function sortedMask(values: ArrayLike<number>, count: number): Uint8Array {
  const mask = new Uint8Array(values.length).fill(1);
  const order = Array.from({ length: values.length }, (_, i) => i).sort((a, b) => values[a]! - values[b]!);
  for (const i of order.slice(0, count)) mask[i] = 0;
  return mask;
}

const CASES: readonly [string, (rng: Rng) => Float32Array][] = [
  ['normals', (rng) => rng.normals(20000)],
  ['few distinct values', (rng) => rng.normals(9000).map((v) => Math.round(2 * v))],
  ['all equal', () => new Float32Array(5000).fill(-3)],
  ['zeros of both signs and subnormals', (rng) => rng.normals(6000).map((v, i) => (i % 3 === 0 ? -0 : i % 3 === 1 ? 0 : 1e-42 * v))],
  ['one octave', (rng) => rng.normals(30000).map((v) => 1 + 1e-6 * Math.abs(v))],
  ['one value', () => Float32Array.of(2)],
];

describe('kernels/sparse select', () => {
  for (const [name, make] of CASES) {
    it(`as a stable sort does: ${name}`, () => {
      const x = make(new Rng(5));
      const mask = new Uint8Array(x.length);
      for (const share of [0, 1e-4, 0.25, 0.5, 0.7, 0.999, 1]) {
        const count = Math.floor(share * x.length);
        new Selector(MAGNITUDE).removeSmallest(wordsOf(x), 0, x.length, count, mask);
        expect(mask).to.deep.equal(sortedMask(x.map(Math.abs), count));
        new Selector(WHOLE).removeSmallest(sortable(x.slice()), 0, x.length, count, mask);
        expect(mask).to.deep.equal(sortedMask(x, count));
      }
    });
  }

  it('exact counts of a layer, of every row, of every group', () => {
    const [m, n] = [37, 83];
    const x = new Rng(6).normals(m * n);
    const mask = new Uint8Array(m * n);
    const select = (target: Sparsity): void => {
      new Selector(MAGNITUDE).select(wordsOf(x), m, n, target, mask);
      expect(zeros(mask)).to.equal(removedCount(target, m, n));
    };
    select({ group: 'layer', ratio: 0.61 });
    expect(mask).to.deep.equal(sortedMask(x.map(Math.abs), Math.floor(0.61 * m * n)));
    select({ group: 'row', ratio: 0.61 });
    for (let i = 0; i < m; i++) expect(zeros(mask, i * n, (i + 1) * n)).to.equal(Math.floor(0.61 * n));
    for (const [keep, of] of [
      [2, 4],
      [4, 8],
      [1, 3],
      [5, 7],
      [0, 2],
      [3, 3],
    ] as const) {
      select({ group: 'n:m', keep, of });
      for (let i = 0; i < m; i++) {
        let g = 0;
        for (; g + of <= n; g += of) {
          const [from, to] = [i * n + g, i * n + g + of];
          expect(mask.slice(from, to)).to.deep.equal(sortedMask(x.slice(from, to).map(Math.abs), of - keep));
        }
        expect(zeros(mask, i * n + g, (i + 1) * n), 'the tail stays').to.equal(0);
      }
    }
  });

  it('of equal scores the lower index goes first', () => {
    const mask = new Uint8Array(8);
    const selector = new Selector(MAGNITUDE);
    const x = Float32Array.of(1, -1, 1, 1, 2, 2, -2, 2);
    selector.removeSmallest(wordsOf(x), 0, 8, 5, mask);
    expect([...mask]).to.deep.equal([0, 0, 0, 0, 0, 1, 1, 1]);
    selector.select(wordsOf(x), 1, 8, { group: 'n:m', keep: 2, of: 4 }, mask);
    expect([...mask]).to.deep.equal([0, 0, 1, 1, 0, 0, 1, 1]);
  });
});
