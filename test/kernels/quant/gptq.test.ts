/** GPTQ on F1: the sheet's bands and orderings, against a plain restatement, on every grid it is asked for. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { matrixOps, type MatrixOps } from '../../../kernels/linalg/matrix-ops.js';
import { gptq, type GptqOptions } from '../../../kernels/quant/gptq.js';
import { IntGrid, type IntGridOptions } from '../../../kernels/quant/int-grid.js';
import { inverseFactor } from '../../../kernels/quant/inverse-factor.js';
import { f1, outputError, type QuantF1 } from '../../support/f1.js';

const ROW: IntGridOptions = { bits: 4, symmetric: false, groupSize: 0, scales: 'F32' };
const within = (v: number, measured: number, share = 0.08): void => void expect(v / measured).to.be.within(1 - share, 1 + share);

function run(f: QuantF1, ops: MatrixOps, grid: IntGridOptions, how: 'rtn' | 'way' | 'static', more: Partial<GptqOptions> = {}): number {
  const g = new IntGrid(f.m, f.n, grid);
  if (how !== 'way') g.fitStatic(f.w);
  const what = how === 'rtn' ? g.nearest(f.w) : gptq(f.w, f.m, f.n, f.gram, how === 'way' ? g.fitOnTheWay() : g, { ops, damping: 0.01, ...more }).w;
  return outputError(what, f.w, f.gram, f.m, f.n, ops);
}

describe('kernels/quant gptq', () => {
  let ops: MatrixOps;
  before(async () => {
    ops = await matrixOps({ blasThreads: 1 });
  });

  for (const seed of [1, 2, 3]) {
    it(`F1, seed ${seed}: errors of round-to-nearest and GPTQ by rows, groups and act-order`, () => {
      const f = f1(new Rng(seed));
      for (const [bits, rtnRow, rtnGroup, row, group, act] of [
        [4, 0.118, 0.1, 0.072, 0.062, 0.055],
        [3, 0.25, 0.219, 0.155, 0.136, 0.119],
      ] as const) {
        const g128 = { ...ROW, bits, groupSize: 128 };
        const got = [
          run(f, ops, { ...ROW, bits }, 'rtn'),
          run(f, ops, g128, 'rtn'),
          run(f, ops, { ...ROW, bits }, 'static'),
          run(f, ops, g128, 'way'),
          run(f, ops, g128, 'static', { actOrder: true }),
        ];
        for (const [i, measured] of [rtnRow, rtnGroup, row, group, act].entries()) within(got[i]!, measured);
        expect(got[0]).to.be.greaterThan(got[1]!);
        expect(got[2]).to.be.greaterThan(got[3]!);
        expect(got[3]).to.be.greaterThan(got[4]!);
      }
    });
  }

  it('the identity gives exactly round-to-nearest', () => {
    const [m, n] = [7, 150];
    const w = new Rng(4).normals(m * n);
    const h = Float32Array.from({ length: n * n }, (_, i) => Number(i % (n + 1) === 0));
    for (const groupSize of [0, 50]) {
      const nearest = new IntGrid(m, n, { ...ROW, groupSize }).fitStatic(w).nearest(w);
      expect(gptq(w, m, n, h, new IntGrid(m, n, { ...ROW, groupSize }).fitStatic(w), { ops, damping: 0.01 }).w).to.deep.equal(nearest);
      expect(gptq(w, m, n, h, new IntGrid(m, n, { ...ROW, groupSize }).fitOnTheWay(), { ops, damping: 0.01, actOrder: true }).w).to.deep.equal(nearest);
    }
  });

  for (const [name, blas] of [
    ['the BLAS of the machine', true],
    ['plain wasm', false],
  ] as const) {
    it(`blocks and lazy updates change nothing: against one column at a time in f64, with ${name}`, async () => {
      const own = await matrixOps({ blasThreads: 1, blas });
      const [m, n] = [9, 300];
      const f = f1(new Rng(5), m, n, 700);
      for (const [groupSize, actOrder] of [
        [0, false],
        [60, false],
        [128, false],
        [200, false],
        [31, false],
      ] as const) {
        const grid = new IntGrid(m, n, { ...ROW, groupSize });
        const { w, order } = gptq(f.w, m, n, f.gram, groupSize === 0 ? grid.fitStatic(f.w) : grid.fitOnTheWay(), { ops: own, damping: 0.05, actOrder });
        const { u } = inverseFactor(f.gram, n, 0.05, own);
        const plain = Float64Array.from(f.w);
        const oracle = new IntGrid(m, n, { ...ROW, groupSize });
        if (groupSize === 0) oracle.fitStatic(f.w);
        else oracle.fitOnTheWay();
        const column = (j: number): Float32Array => Float32Array.from({ length: m }, (_, i) => plain[i * n + j]!);
        for (let j = 0; j < n; j++) {
          if (groupSize > 0 && j % groupSize === 0) {
            const count = Math.min(groupSize, n - j);
            const ahead = new Float32Array(count * m);
            for (let k = 0; k < count; k++) ahead.set(column(j + k), k * m);
            oracle.fit(ahead, j, j);
          }
          const q = new Float32Array(m);
          oracle.quantize(column(j), j, q, j);
          for (let i = 0; i < m; i++) {
            const e = (plain[i * n + j]! - q[i]!) / u[j * n + j]!;
            plain[i * n + j] = q[i]!;
            for (let k = j + 1; k < n; k++) plain[i * n + k] = plain[i * n + k]! - e * u[j * n + k]!;
          }
        }
        expect([...order.subarray(0, 3)]).to.deep.equal([0, 1, 2]);
        // a value on a boundary may round the other way in f32, and what follows with it
        const off = w.filter((v, i) => Math.abs(v - plain[i]!) > 1e-5).length;
        expect(off / w.length, `groups of ${groupSize}`).to.be.below(0.02);
      }
    });
  }

  it('dead inputs: rounded by themselves or zeros; kept columns take the errors and stay in full precision', () => {
    const [m, n] = [8, 96];
    const f = f1(new Rng(6), m, n, 300);
    const h = f.gram.slice();
    for (let i = 0; i < n; i++) h[i * n + 7] = h[7 * n + i] = 0;
    const make = (): IntGrid => new IntGrid(m, n, ROW).fitStatic(f.w);
    const nearest = make().nearest(f.w);
    const column = (w: Float32Array, j: number): number[] => Array.from({ length: m }, (_, i) => w[i * n + j]!);
    const rounded = gptq(f.w, m, n, h, make(), { ops, damping: 0.01 });
    expect([rounded.deadInputs, column(rounded.w, 7)]).to.deep.equal([1, column(nearest, 7)]);
    const zeroed = gptq(f.w, m, n, h, make(), { ops, damping: 0.01, dead: 'zero' });
    expect(column(zeroed.w, 7)).to.deep.equal(Array(m).fill(0));
    const kept = gptq(f.w, m, n, f.gram, make(), { ops, damping: 0.01, kept: [3, 50] });
    expect([...kept.order.subarray(n - 2)]).to.deep.equal([3, 50]);
    expect(outputError(kept.w, f.w, f.gram, m, n, ops)).to.be.below(run(f, ops, ROW, 'static'));
    expect(column(kept.w, 3)).not.to.deep.equal(column(f.w, 3));
  });

  it('a search for the range leaves a smaller sum of |error|^2.4 than the whole range, symmetric or not', () => {
    const f = f1(new Rng(7), 32, 128, 300);
    const loss = (o: IntGridOptions): number =>
      new IntGrid(f.m, f.n, o)
        .fitStatic(f.w)
        .nearest(f.w)
        .reduce((sum, v, i) => sum + Math.abs(v - f.w[i]!) ** 2.4, 0);
    for (const symmetric of [false, true]) {
      const o = { ...ROW, bits: 3, symmetric };
      expect(loss({ ...o, mseSteps: 80 })).to.be.below(0.95 * loss(o));
    }
    expect(loss({ ...ROW, bits: 3, mseSteps: 80, allZeros: true })).to.be.at.most(loss({ ...ROW, bits: 3, mseSteps: 80 }) * 1.001);
  });
});

describe('kernels/quant inverse factor', () => {
  it('U^T U is the inverse, by LAPACK and without; a singular matrix is damped, others refused', async () => {
    const n = 40;
    const f = f1(new Rng(8), 2, n, 200);
    for (const blas of [true, false]) {
      const own = await matrixOps({ blasThreads: 1, blas });
      const { u } = inverseFactor(f.gram, n, 0, own);
      const ug = own.multiply(false, false, n, n, n, u, f.gram);
      const back = own.multiply(true, false, n, n, n, u, ug);
      for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) expect(back[i * n + j]).to.be.closeTo(Number(i === j), 2e-3);
      expect(inverseFactor(new Float32Array(n * n).fill(1), n, 0, own).damping).to.be.greaterThan(0);
      expect(() => inverseFactor(new Float32Array(n * n).fill(NaN), n, 0.01, own)).to.throw(/Gram/);
      expect(() =>
        inverseFactor(
          new Float32Array(4).map((_, i) => (i % 3 === 0 ? 1 : 9)),
          2,
          0.01,
          own,
        ),
      ).to.throw(/semidefinite/);
    }
  });
});
