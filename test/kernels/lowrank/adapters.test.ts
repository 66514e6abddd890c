/** Maths of adapters: merged weights against f64 sums, fewer components against the SVD of the product. */
import { expect } from 'chai';
import fc from 'fast-check';
import { Rng } from '../../../core/rng.js';
import { loadBlas } from '../../../kernels/backend/blas.js';
import { matrixOps, transposed } from '../../../kernels/linalg/matrix-ops.js';
import { addColumnSquares, mergeFactors, Merger, scaleColumns, scaleRows } from '../../../kernels/lowrank/merge.js';
import { PanelKernel } from '../../../kernels/lowrank/panel.js';
import { productSvd } from '../../../kernels/lowrank/resize.js';
import { distance, frobenius, naiveProduct, withSpectrum } from '../../support/random-matrix.js';

describe('kernels/lowrank merge', () => {
  let kernel: PanelKernel;
  before(async () => {
    kernel = await PanelKernel.create();
  });
  const size = fc.integer({ min: 1, max: 23 });

  it('W + s B A in any panels, for weights stored either way', () => {
    fc.assert(
      fc.property(size, size, fc.integer({ min: 1, max: 9 }), fc.boolean(), fc.integer({ min: 0, max: 999 }), (input, output, rank, flipped, seed) => {
        const rng = new Rng(seed);
        const [a, b, w] = [rng.normals(rank * input), rng.normals(output * rank), rng.normals(input * output)];
        const update = Float32Array.from(naiveProduct(b, a, output, rank, input), (v) => 1.5 * v);
        const expected = flipped ? transposed(update, output, input) : update;
        const [rows, columns] = flipped ? [input, output] : [output, input];
        const merger = new Merger(kernel, mergeFactors(a, b, rank, 1.5, flipped), columns, 4);
        const got = w.slice();
        for (let start = 0; start < rows; start += 4) merger.add(got.subarray(start * columns, Math.min(rows, start + 4) * columns), start);
        for (let i = 0; i < w.length; i++) expect(Math.abs(got[i]! - (w[i]! + expected[i]!))).to.be.lessThan(1e-4);
      }),
    );
  });

  it('DoRA: every output has the length of its magnitude and the direction of V, whichever way the weight lies', () => {
    fc.assert(
      fc.property(size, size, fc.integer({ min: 0, max: 999 }), (rows, columns, seed) => {
        const rng = new Rng(seed);
        const v = rng.normals(rows * columns);
        const magnitude = rng.normals(rows).map(Math.abs);
        const straight = v.slice();
        const half = Math.ceil(rows / 2);
        scaleRows(straight.subarray(0, half * columns), columns, magnitude, 0);
        scaleRows(straight.subarray(half * columns), columns, magnitude, half);
        for (let i = 0; i < rows; i++) {
          const row = Array.from(straight.subarray(i * columns, (i + 1) * columns));
          expect(frobenius(row)).to.be.closeTo(magnitude[i]!, 1e-5 * (1 + magnitude[i]!));
          row.forEach((x, j) => expect(Math.sign(x)).to.equal(Math.sign(v[i * columns + j]!)));
        }
        const flipped = transposed(v, rows, columns);
        const sums = new Float64Array(rows);
        addColumnSquares(flipped, rows, sums);
        scaleColumns(flipped, rows, magnitude, sums);
        const back = transposed(flipped, columns, rows);
        for (let i = 0; i < v.length; i++) expect(Math.abs(back[i]! - straight[i]!)).to.be.lessThan(1e-5);
      }),
    );
  });
});

for (const useBlas of loadBlas() === undefined ? [false] : [false, true]) {
  describe(`kernels/lowrank resize, ${useBlas ? 'BLAS' : 'wasm'}`, () => {
    const ops = (): ReturnType<typeof matrixOps> => matrixOps({ blasThreads: 1, blas: useBlas });

    it('singular values and best approximations of a product, and no more components than it has', async () => {
      const s = [5, 3, 2, 1, 0.5, 0.1];
      const [m, n, r] = [40, 70, 8];
      const w = withSpectrum(new Rng(3), m, n, s);
      // the same product through factors of rank 8, two of them dependent on the others
      const mix = new Rng(4);
      const u = withSpectrum(new Rng(5), m, 6, [1, 1, 1, 1, 1, 1]);
      const b = new Float32Array(naiveProduct(u, mix.normals(6 * r), m, 6, r));
      const a = mix.normals(r * n);
      const product = Float32Array.from(naiveProduct(b, a, m, r, n));
      const svd = productSvd(a, b, r, await ops());
      expect(svd.s.length).to.equal(6);
      const full = svd.keep(6);
      expect(distance(naiveProduct(full.b, full.a, m, 6, n), product) / frobenius(product)).to.be.lessThan(1e-5);
      for (let k = 1; k < 6; k++) {
        const { a: ak, b: bk } = svd.keep(k);
        const tail = Math.sqrt(svd.s.subarray(k).reduce((sum, v) => sum + v * v, 0));
        expect(distance(naiveProduct(bk, ak, m, k, n), product)).to.be.closeTo(tail, 1e-4 * frobenius(product));
      }
      const exact = productSvd(
        w,
        Float32Array.from({ length: m * m }, (_, i) => (i % (m + 1) === 0 ? 1 : 0)),
        m,
        await ops(),
      );
      s.forEach((v, i) => expect(exact.s[i]!).to.be.closeTo(v, 1e-4));
    });

    it('more components than the product can have: as many as its shorter side', async () => {
      for (const [m, n, r] of [
        [5, 7, 30],
        [7, 5, 30],
        [1, 4, 2],
      ] as const) {
        const [a, b] = [new Rng(6).normals(r * n), new Rng(7).normals(m * r)];
        const product = Float32Array.from(naiveProduct(b, a, m, r, n));
        const svd = productSvd(a, b, r, await ops());
        expect(svd.s.length).to.equal(Math.min(m, n));
        const { a: ak, b: bk } = svd.keep(svd.s.length);
        expect(distance(naiveProduct(bk, ak, m, svd.s.length, n), product) / frobenius(product)).to.be.lessThan(1e-5);
      }
    });

    it('a product of zero, or of no rows and no columns, has no component', async () => {
      const svd = productSvd(new Rng(1).normals(4 * 6), new Float32Array(5 * 4), 4, await ops());
      expect(svd.s.length).to.equal(0);
      for (const [a, b] of [[0, 0], [0, 8], [8, 0]]) expect(productSvd(new Float32Array(a!), new Float32Array(b!), 2 ** 31, await ops()).s.length).to.equal(0); // prettier-ignore
    });
  });
}
