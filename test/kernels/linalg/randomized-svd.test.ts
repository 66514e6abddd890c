/** Randomized SVD in panels: the sheet's F5 spectra, whole and by rows, error estimates, odd input; its column basis. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { loadBlas } from '../../../kernels/backend/blas.js';
import { columnBasis } from '../../../kernels/linalg/column-basis.js';
import { matrixOps, transposed } from '../../../kernels/linalg/matrix-ops.js';
import { randomizedSvd, wholeMatrix, type MatrixSource, type RandomizedSvd } from '../../../kernels/linalg/randomized-svd.js';
import { exactSvd } from '../../../kernels/linalg/svd.js';
import { expectCode } from '../../support/expect-error.js';
import { distance, frobenius, naiveProduct, withSpectrum } from '../../support/random-matrix.js';

const [M, N, R] = [512, 384, 32];
const SPECTRA: Record<string, (i: number) => number> = { 'i^-1': (i) => 1 / i, 'i^-0.5': (i) => i ** -0.5, '0.95^i': (i) => 0.95 ** i };
const tail = (s: ArrayLike<number>, r: number): number => frobenius(Array.from(s).slice(r));
const scaledU = (x: RandomizedSvd): Float32Array => x.u.map((v, p) => v * x.s[p % x.s.length]!);
const product = (x: RandomizedSvd, m: number, n: number): Float64Array => naiveProduct(scaledU(x), x.vt, m, x.s.length, n);
const bytes = (x: RandomizedSvd): Buffer => Buffer.concat([x.u, x.s, x.vt].map((a) => Buffer.from(a.buffer, a.byteOffset, a.byteLength)));

/** Largest entry of |Q^T Q - I|. */
function orthogonality(q: ArrayLike<number>, m: number, k: number): number {
  let worst = 0;
  for (let a = 0; a < k; a++) {
    for (let b = 0; b <= a; b++) {
      let dot = a === b ? -1 : 0;
      for (let i = 0; i < m; i++) dot += q[i * k + a]! * q[i * k + b]!;
      worst = Math.max(worst, Math.abs(dot));
    }
  }
  return worst;
}

for (const useBlas of loadBlas() === undefined ? [false] : [false, true]) {
  const ops = (): ReturnType<typeof matrixOps> => matrixOps({ blasThreads: 1, blas: useBlas });

  describe(`kernels/linalg randomized svd, ${useBlas ? 'BLAS' : 'wasm'}`, () => {
    for (const [name, f] of Object.entries(SPECTRA)) {
      it(`F5 ${name}: the defaults within 0.2 % of the optimum, ten more columns and two steps within 1 %`, async () => {
        const s = Array.from({ length: N }, (_, i) => f(i + 1));
        const w = withSpectrum(new Rng(5), M, N, s);
        const own = await randomizedSvd(wholeMatrix(w, M, N), { rank: R, ops: await ops(), rng: new Rng(1) });
        const error = distance(product(own, M, N), w);
        expect(error / tail(s, R)).to.be.within(1 - 1e-5, 1.002);
        expect(Math.abs(own.residualFro - error) / error).to.be.lessThan(1e-3);
        expect(Math.abs(own.frobeniusSq / frobenius(s) ** 2 - 1)).to.be.lessThan(1e-5);
        const classical = await randomizedSvd(wholeMatrix(w, M, N), { rank: R, ops: await ops(), rng: new Rng(1), block: R + 10, powerSteps: 2 });
        expect(distance(product(classical, M, N), w) / tail(s, R)).to.be.lessThan(1.01);
      });
    }

    it('a Gaussian matrix: two steps within 3 %', async () => {
      const w = new Rng(7).normals(M * N);
      const { s } = exactSvd(Float64Array.from(w), M, N, { blas: loadBlas() });
      const svd = await randomizedSvd(wholeMatrix(w, M, N), { rank: R, ops: await ops(), rng: new Rng(1), block: R + 10, powerSteps: 2 });
      expect(svd.residualFro / tail(s, R)).to.be.within(1 - 1e-6, 1.03);
    });

    it('row panels of any height give what the whole matrix gives, each read in order', async () => {
      for (const [m, n] of [
        [130, 70],
        [70, 130],
      ] as const) {
        const w = withSpectrum(
          new Rng(m),
          m,
          n,
          Array.from({ length: 70 }, (_, i) => 0.9 ** i),
        );
        const whole = await randomizedSvd(wholeMatrix(w, m, n), { rank: 9, ops: await ops(), rng: new Rng(2) });
        for (const panelRows of [1, 17, m - 1]) {
          // one buffer for all panels: a panel is valid until the next call only
          const buffer = new Float32Array(panelRows * n);
          const source: MatrixSource = {
            rows: m,
            columns: n,
            panelRows,
            async panel(start, end) {
              buffer.fill(NaN);
              buffer.set(w.subarray(start * n, end * n));
              return buffer.subarray(0, (end - start) * n);
            },
          };
          const parts = await randomizedSvd(source, { rank: 9, ops: await ops(), rng: new Rng(2) });
          expect(parts.s.length).to.equal(9);
          for (let i = 0; i < 9; i++) expect(Math.abs(parts.s[i]! / whole.s[i]! - 1)).to.be.lessThan(1e-6);
          expect(distance(product(parts, m, n), product(whole, m, n)) / frobenius(w)).to.be.lessThan(1e-6);
        }
      }
    });

    it('orthonormal factors, positive largest entries, the same bytes for a seed and others for another', async () => {
      for (const [m, n] of [
        [120, 40],
        [40, 120],
        [25, 25],
        [1, 9],
        [9, 1],
      ] as const) {
        const w = new Rng(m).normals(m * n);
        const run = async (seed: number): Promise<RandomizedSvd> => randomizedSvd(wholeMatrix(w, m, n), { rank: 6, ops: await ops(), rng: new Rng(seed) });
        const a = await run(3);
        const r = Math.min(6, m, n);
        expect(a.s.length).to.equal(r);
        expect(bytes(a).equals(bytes(await run(3)))).to.equal(true);
        if (m === 120) expect(bytes(a).equals(bytes(await run(4)))).to.equal(false);
        expect(orthogonality(a.u, m, r)).to.be.lessThan(1e-5);
        expect(orthogonality(transposed(a.vt, r, n), n, r)).to.be.lessThan(1e-5);
        for (let k = 0; k < r; k++) {
          const column = Array.from({ length: m }, (_, i) => a.u[i * r + k]!);
          expect(column.reduce((top, v) => (Math.abs(v) > Math.abs(top) ? v : top), 0)).to.be.greaterThan(0);
        }
      }
    });

    it('the spectral bound holds and is not idle', async () => {
      const s = Array.from({ length: 60 }, (_, i) => 0.8 ** i);
      const w = withSpectrum(new Rng(8), 90, 60, s);
      const svd = await randomizedSvd(wholeMatrix(w, 90, 60), { rank: 8, ops: await ops(), rng: new Rng(1), block: 8, powerSteps: 1, probes: 10 });
      const error = Float64Array.from(product(svd, 90, 60), (v, i) => w[i]! - v);
      const spectral = exactSvd(error, 90, 60).s[0]!;
      expect(spectral).to.be.at.least(s[8]! * (1 - 1e-5));
      // 10 sqrt(2 / pi) times the longest of ten vectors of mean squared length ||error||_F^2
      expect(svd.spectralBound!).to.be.within(spectral, 16 * frobenius(error));
    });

    it('a block below the rank takes the steps that the rank needs', async () => {
      const s = Array.from({ length: 50 }, (_, i) => 0.9 ** i);
      const w = withSpectrum(new Rng(9), 80, 50, s);
      const svd = await randomizedSvd(wholeMatrix(w, 80, 50), { rank: 20, ops: await ops(), rng: new Rng(1), block: 3, powerSteps: 0 });
      expect(svd.s.length).to.equal(20);
      expect(svd.residualFro / tail(s, 20)).to.be.lessThan(1.2);
    });

    it('exact low rank, a rank above the sides, steep spectra, zero and empty matrices', async () => {
      const low = withSpectrum(new Rng(4), 60, 50, [3, 2, 1]);
      const svd = await randomizedSvd(wholeMatrix(low, 60, 50), { rank: 100, ops: await ops(), rng: new Rng(1) });
      expect(svd.s.length).to.be.within(3, 12);
      expect(distance(product(svd, 60, 50), low)).to.be.lessThan(1e-5);
      const steep = withSpectrum(
        new Rng(4),
        60,
        50,
        Array.from({ length: 20 }, (_, i) => 10 ** (-i / 5)),
      );
      const ten = await randomizedSvd(wholeMatrix(steep, 60, 50), { rank: 20, ops: await ops(), rng: new Rng(1) });
      for (let i = 0; i < 20; i++) expect(Math.abs(ten.s[i]! / 10 ** (-i / 5) - 1)).to.be.lessThan(1e-2);
      for (const [m, n] of [
        [3, 4],
        [0, 4],
        [4, 0],
      ] as const) {
        const zero = await randomizedSvd(wholeMatrix(new Float32Array(m * n), m, n), { rank: 2, ops: await ops(), rng: new Rng(1), probes: 3 });
        expect([zero.s.length, zero.u.length, zero.vt.length, zero.residualFro, zero.frobeniusSq, zero.spectralBound]).to.deep.equal([0, 0, 0, 0, 0, 0]);
      }
      const none = await randomizedSvd(wholeMatrix(low, 60, 50), { rank: 0, ops: await ops(), rng: new Rng(1) });
      expect(none.s.length).to.equal(0);
      expect(Math.abs(none.residualFro / Math.sqrt(14) - 1)).to.be.lessThan(1e-5);
    });

    it('very small and large values; those that are not finite are refused', async () => {
      const w = withSpectrum(new Rng(4), 30, 20, [3, 2, 1]);
      for (const scale of [1e-25, 1e25]) {
        const scaled = w.map((v) => v * scale);
        const svd = await randomizedSvd(wholeMatrix(scaled, 30, 20), { rank: 3, ops: await ops(), rng: new Rng(1) });
        for (const [i, v] of [3, 2, 1].entries()) expect(Math.abs(svd.s[i]! / (v * scale) - 1)).to.be.lessThan(1e-5);
      }
      for (const value of [NaN, Infinity]) {
        const bad = w.slice();
        bad[17] = value;
        await expectCode('NOT_FINITE', async () => randomizedSvd(wholeMatrix(bad, 30, 20), { rank: 2, ops: await ops(), rng: new Rng(1) }));
      }
      const huge = new Float32Array(600).fill(3e38);
      await expectCode('NOT_FINITE', async () => randomizedSvd(wholeMatrix(huge, 30, 20), { rank: 2, ops: await ops(), rng: new Rng(1) }));
    });

    it('column basis: orthonormal for cond 1 to 1e12, orthogonal to another basis, cut to its strongest directions', async () => {
      const o = await ops();
      for (const cond of [1, 1e1, 1e2, 1e3, 1e4, 1e8, 1e12]) {
        const s = Array.from({ length: 24 }, (_, i) => cond ** (-i / 23));
        const y = Float64Array.from(withSpectrum(new Rng(6), 200, 24, s));
        const { q, k } = columnBasis(y.slice(), 200, 24, o);
        // directions below the rounding of f32 may go
        expect(k).to.be.within(s.filter((v) => v > 1e-5).length, 24);
        expect(orthogonality(q, 200, k), `cond ${cond}`).to.be.lessThan(1e-9);
        // the span: (I - Q Q^T) Y is rounding
        const inside = naiveProduct(q, naiveProduct(transpose(q, 200, k), y, k, 200, 24), 200, k, 24);
        expect(distance(inside, y)).to.be.lessThan(1e-5);
        const next = columnBasis(Float64Array.from(new Rng(7).normals(200 * 30)), 200, 30, o, { against: q, width: k, most: 5 });
        expect(next.k).to.equal(5);
        expect(frobenius(naiveProduct(transpose(q, 200, k), next.q, k, 200, 5))).to.be.lessThan(1e-9);
        expect(orthogonality(next.q, 200, 5)).to.be.lessThan(1e-9);
      }
      expect(columnBasis(new Float64Array(40), 10, 4, o).k).to.equal(0);
    });
  });
}

const transpose = (a: Float64Array, rows: number, columns: number): Float64Array =>
  Float64Array.from(a, (_, p) => a[(p % rows) * columns + Math.floor(p / rows)]!);
