/** The acceptance lines of the low-rank sheet: F5 spectra, tails, noise threshold, determinism. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { loadBlas } from '../../../kernels/backend/blas.js';
import { matrixOps, transposed } from '../../../kernels/linalg/matrix-ops.js';
import { effectiveRank, gavishDonoho, singularValues, truncatedSvd, type Svd } from '../../../kernels/linalg/truncated-svd.js';
import { expectCode } from '../../support/expect-error.js';
import { distance, frobenius, naiveProduct, withSpectrum } from '../../support/random-matrix.js';

const [M, N] = [512, 384];
const SPECTRA: Record<string, (i: number) => number> = { 'i^-1': (i) => 1 / i, 'i^-0.5': (i) => i ** -0.5, '0.95^i': (i) => 0.95 ** i };
const tail = (s: ArrayLike<number>, r: number): number => frobenius(Array.from(s).slice(r));
const product = (x: Svd, m: number, n: number): Float64Array => {
  const r = x.s.length;
  return naiveProduct(
    x.u.map((v, p) => v * x.s[p % r]!),
    x.vt,
    m,
    r,
    n,
  );
};

for (const useBlas of loadBlas() === undefined ? [false] : [false, true]) {
  describe(`kernels/linalg truncated svd, ${useBlas ? 'BLAS' : 'wasm'}`, () => {
    const ops = (): ReturnType<typeof matrixOps> => matrixOps({ blasThreads: 1, blas: useBlas });

    for (const [name, f] of Object.entries(SPECTRA)) {
      it(`F5 ${name}, rank 32: the optimum within 0.1 %, two power steps and oversampling 10 within 1 %`, async () => {
        const s = Array.from({ length: N }, (_, i) => f(i + 1));
        const w = withSpectrum(new Rng(5), M, N, s);
        const svd = await truncatedSvd(w, M, N, { rank: 32, ops: await ops(), rng: new Rng(1) });
        const error = distance(product(svd, M, N), w);
        expect(error / tail(s, 32)).to.be.lessThan(1.001);
        expect(Math.abs(svd.residualFro - error) / error).to.be.lessThan(1e-3);
        for (let i = 0; i < 16; i++) expect(Math.abs(svd.s[i]! / s[i]! - 1)).to.be.lessThan(1e-4);
        const cheap = await truncatedSvd(w, M, N, { rank: 32, ops: await ops(), rng: new Rng(1), oversampling: 10, filterSteps: 2 });
        expect(cheap.residualFro / tail(s, 32)).to.be.lessThan(1.01);
      });
    }

    it('a Gaussian matrix, rank 32, two power steps: within 3 %', async () => {
      const w = new Rng(7).normals(M * N);
      const all = await singularValues(w, M, N, { count: N, ops: await ops(), rng: new Rng(1) });
      const svd = await truncatedSvd(w, M, N, { rank: 32, ops: await ops(), rng: new Rng(1), oversampling: 10, filterSteps: 2 });
      expect(svd.residualFro / tail(all, 32)).to.be.within(1 - 1e-6, 1.03);
    });

    it('wide, tall and thin matrices; orthonormal factors; signs; the same seed, the same bytes', async () => {
      for (const [m, n] of [
        [40, 300],
        [300, 40],
        [9, 9],
        [1, 20],
        [20, 1],
      ] as const) {
        const w = new Rng(9).normals(m * n);
        const [a, b] = [
          await truncatedSvd(w, m, n, { rank: 8, ops: await ops(), rng: new Rng(3) }),
          await truncatedSvd(w, m, n, { rank: 8, ops: await ops(), rng: new Rng(3) }),
        ];
        expect(Buffer.compare(Buffer.from(a.u.buffer), Buffer.from(b.u.buffer))).to.equal(0);
        expect(Buffer.compare(Buffer.from(a.vt.buffer), Buffer.from(b.vt.buffer))).to.equal(0);
        const r = a.s.length;
        expect(r).to.equal(Math.min(8, m, n));
        const utu = naiveProduct(transposed(a.u, m, r), a.u, r, m, r);
        const vvt = naiveProduct(a.vt, transposed(a.vt, r, n), r, n, r);
        for (let i = 0; i < r; i++) {
          for (let j = 0; j < r; j++) {
            expect(Math.abs(utu[i * r + j]! - (i === j ? 1 : 0))).to.be.lessThan(1e-5);
            expect(Math.abs(vvt[i * r + j]! - (i === j ? 1 : 0))).to.be.lessThan(1e-5);
          }
          const column = Array.from({ length: m }, (_, p) => a.u[p * r + i]!);
          expect(column.reduce((top, v) => (Math.abs(v) > Math.abs(top) ? v : top), 0)).to.be.greaterThan(0);
        }
      }
    });

    it('zero matrices, exact low rank, a rank above the sides, values that are not finite', async () => {
      const zero = await truncatedSvd(new Float32Array(12), 3, 4, { rank: 2, ops: await ops(), rng: new Rng(1) });
      expect(zero.s.length).to.equal(0);
      expect(zero.residualFro).to.equal(0);
      const w = withSpectrum(new Rng(4), 60, 50, [3, 2, 1]);
      const svd = await truncatedSvd(w, 60, 50, { rank: 100, ops: await ops(), rng: new Rng(1) });
      expect(svd.s.length).to.be.within(3, 12);
      expect(distance(product(svd, 60, 50), w)).to.be.lessThan(1e-5);
      const bad = w.slice();
      bad[17] = NaN;
      await expectCode('NOT_FINITE', async () => truncatedSvd(bad, 60, 50, { rank: 2, ops: await ops(), rng: new Rng(1) }));
    });
  });
}

describe('kernels/linalg spectra', () => {
  it('Gavish-Donoho: exactly the 10 of a rank-10 signal in noise, none of pure noise, in 10 of 10 draws', async () => {
    const ops = await matrixOps({ blasThreads: 1 });
    const [m, n] = [300, 400];
    for (let draw = 0; draw < 10; draw++) {
      const rng = new Rng(100 + draw);
      // signal entries of variance 10: 10 products of standard normals; noise sigma 3
      const signal = naiveProduct(rng.normals(m * 10), rng.normals(10 * n), m, 10, n);
      const noise = rng.normals(m * n).map((v) => 3 * v);
      const s = await singularValues(
        noise.map((v, i) => v + signal[i]!),
        m,
        n,
        { count: m, ops, rng },
      );
      expect(gavishDonoho(s, m, n)).to.equal(10);
      expect(gavishDonoho(await singularValues(noise, m, n, { count: m, ops, rng }), m, n)).to.equal(0);
    }
  });

  it('effective rank: n for equal values, 1 for one', () => {
    expect(effectiveRank([2, 2, 2, 2])).to.be.closeTo(4, 1e-12);
    expect(effectiveRank([5, 0, 0])).to.equal(1);
    expect(effectiveRank([])).to.equal(0);
  });
});
