/** The exact SVD, by LAPACK and by Jacobi rotations. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { loadBlas } from '../../../kernels/backend/blas.js';
import { exactSvd, type ExactSvd } from '../../../kernels/linalg/svd.js';
import { expectCode } from '../../support/expect-error.js';
import { distance, frobenius, naiveProduct, orthonormalColumns } from '../../support/random-matrix.js';

const blases = loadBlas()?.lapack === undefined ? [undefined] : [undefined, loadBlas()];
const product = ({ u, s, vt }: ExactSvd, m: number, n: number): Float64Array =>
  naiveProduct(
    u.map((v, p) => v * s[p % s.length]!),
    vt,
    m,
    s.length,
    n,
  );
const transpose = (a: Float64Array, rows: number, columns: number): Float64Array =>
  Float64Array.from(a, (_, p) => a[(p % rows) * columns + Math.floor(p / rows)]!);
const identity = (k: number): Float64Array => Float64Array.from({ length: k * k }, (_, p) => (p % (k + 1) === 0 ? 1 : 0));

function matrix(rng: Rng, m: number, n: number, s: readonly number[]): Float64Array {
  const u = orthonormalColumns(rng, m, s.length);
  const v = orthonormalColumns(rng, n, s.length);
  return naiveProduct(
    u.map((x, p) => x * s[p % s.length]!),
    transpose(v, n, s.length),
    m,
    s.length,
    n,
  );
}

for (const blas of blases) {
  describe(`kernels/linalg exact svd, ${blas === undefined ? 'Jacobi' : 'LAPACK'}`, () => {
    it('known singular values over 12 decades, orthonormal factors, the matrix itself; input untouched', () => {
      for (const [m, n, k] of [
        [40, 25, 25],
        [25, 40, 25],
        [30, 30, 30],
        [1, 5, 1],
        [5, 1, 1],
      ] as const) {
        const s = Array.from({ length: k }, (_, i) => 10 ** ((-12 * i) / k));
        const a = matrix(new Rng(m), m, n, s);
        const copy = a.slice();
        const svd = exactSvd(a, m, n, { blas });
        expect(a).to.deep.equal(copy);
        for (let i = 0; i < k; i++) expect(Math.abs(svd.s[i]! - s[i]!)).to.be.lessThan(1e-14);
        expect(distance(product(svd, m, n), a)).to.be.lessThan(1e-13);
        expect(distance(naiveProduct(transpose(svd.u, m, k), svd.u, k, m, k), identity(k))).to.be.lessThan(1e-12);
        expect(distance(naiveProduct(svd.vt, transpose(svd.vt, k, n), k, n, k), identity(k))).to.be.lessThan(1e-12);
      }
    });

    it('less than full rank: the missing vectors are completed', () => {
      for (const [m, n] of [
        [12, 7],
        [7, 12],
      ] as const) {
        const svd = exactSvd(matrix(new Rng(2), m, n, [5, 1]), m, n, { blas });
        expect(svd.s[1]).to.be.closeTo(1, 1e-13);
        expect(frobenius(svd.s.subarray(2))).to.be.lessThan(1e-13);
        expect(distance(naiveProduct(transpose(svd.u, m, 7), svd.u, 7, m, 7), identity(7))).to.be.lessThan(1e-12);
        expect(distance(naiveProduct(svd.vt, transpose(svd.vt, 7, n), 7, n, 7), identity(7))).to.be.lessThan(1e-12);
      }
      const zero = exactSvd(new Float64Array(12), 4, 3, { blas });
      expect(Array.from(zero.s)).to.deep.equal([0, 0, 0]);
      expect(distance(naiveProduct(transpose(zero.u, 4, 3), zero.u, 3, 4, 3), identity(3))).to.be.lessThan(1e-12);
      expect(exactSvd(new Float64Array(0), 0, 3, { blas }).s.length).to.equal(0);
    });

    it('values that are not finite are refused', async () => {
      await expectCode('NOT_FINITE', () => exactSvd(Float64Array.of(1, NaN, 2, 3), 2, 2, { blas }));
    });
  });
}

describe('kernels/linalg exact svd', () => {
  it('both ways agree to 1e-12, signs included', function () {
    const blas = loadBlas();
    const s = Array.from({ length: 20 }, (_, i) => 20 - i);
    const a = matrix(new Rng(3), 33, 20, s);
    const [jacobi, other] = [exactSvd(a, 33, 20), exactSvd(a, 33, 20, { blas })];
    for (const part of ['u', 's', 'vt'] as const) expect(distance(jacobi[part], other[part])).to.be.lessThan(1e-12 * 20);
  });
});
