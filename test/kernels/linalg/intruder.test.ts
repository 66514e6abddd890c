/** Intruder dimensions: planted ones are found, and only those; what is no intruder by the definition is none. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { intruderDimensions, type Intruders } from '../../../kernels/linalg/intruder.js';
import { gram64 } from '../../../kernels/linalg/gram.js';
import { matrixOps, type MatrixOps } from '../../../kernels/linalg/matrix-ops.js';
import { exactSvd } from '../../../kernels/linalg/svd.js';
import { effectiveRank } from '../../../kernels/linalg/truncated-svd.js';
import { expectCode } from '../../support/expect-error.js';
import { frobenius, naiveProduct, orthonormalColumns, withSpectrum } from '../../support/random-matrix.js';

const DEFAULTS = { top: 10, cosine: 0.5 };
const geometric = Array.from({ length: 96 }, (_, i) => 1.15 ** -i);
const unit = (rng: Rng, n: number): Float64Array => {
  const v = Float64Array.from({ length: n }, () => rng.normal());
  const norm = frobenius(v);
  return v.map((x) => x / norm);
};
/** w + c p q^T */
const plus = (w: Float32Array, c: number, p: Float64Array, q: Float64Array): Float32Array =>
  w.map((v, i) => v + c * p[Math.floor(i / q.length)]! * q[i % q.length]!);
const largest = (w: Float32Array, m: number, n: number): number => exactSvd(new Float64Array(w), m, n).s[0]!;

/** The definition word for word, on LAPACK's or Jacobi's SVD; no two singular values alike. */
function oracle(base: Float32Array, tuned: Float32Array, m: number, n: number): { cosine: number; value: number }[] {
  const [a, b] = [exactSvd(new Float64Array(base), m, n), exactSvd(new Float64Array(tuned), m, n)];
  const k = Math.min(m, n);
  return Array.from({ length: DEFAULTS.top }, (_, j) => {
    const cosines = Array.from({ length: k }, (__, i) => {
      let dot = 0;
      for (let r = 0; r < m; r++) dot += a.u[r * k + i]! * b.u[r * k + j]!;
      return Math.abs(dot);
    });
    return { cosine: Math.max(...cosines), value: b.s[j]! };
  });
}

for (const blas of [true, false]) {
  describe(`kernels/linalg/intruder (${blas ? 'BLAS where there is one' : 'plain'})`, () => {
    let ops: MatrixOps;
    before(async () => void (ops = await matrixOps({ blasThreads: 1, blas })));
    const run = (base: Float32Array, tuned: Float32Array, m: number, n: number): Intruders => intruderDimensions(base, tuned, m, n, { ...DEFAULTS, ops });

    for (const [m, n] of [
      [128, 96],
      [96, 128],
      [96, 96],
    ] as const) {
      // prettier-ignore
      for (const kind of ['Gaussian', 'geometric'] as const) {
        it(`one planted direction of 3 s_1 is found at index 0, and nothing else: ${kind}, ${m} x ${n}`, () => {
          for (let seed = 1; seed <= 3; seed++) {
            const rng = new Rng(seed);
            const w = kind === 'Gaussian' ? rng.normals(m * n) : withSpectrum(rng, m, n, geometric);
            const tuned = plus(w, 3 * largest(w, m, n), unit(rng, m), unit(rng, n));
            const found = run(w, tuned, m, n);
            expect(found.intruders.map((v) => v.index)).to.deep.equal([0]);
            const want = oracle(w, tuned, m, n);
            for (const [j, v] of found.leading.entries()) {
              expect(v.cosine).to.be.closeTo(want[j]!.cosine, 1e-6);
              expect(v.value / want[j]!.value).to.be.closeTo(1, 1e-9);
            }
            expect(run(w, w, m, n).intruders).to.deep.equal([]);
            // signs of singular vectors do not matter: -W has the same ones
            expect(run(w.map((v) => -v), tuned, m, n).intruders.map((v) => v.index)).to.deep.equal([0]); // prettier-ignore
          }
        });
      }
    }

    it('a change on the right side alone is none', () => {
      const [m, n] = [128, 96];
      const u = orthonormalColumns(new Rng(4), m, n);
      const scaled = u.map((v, p) => v * geometric[p % n]!);
      const of = (seed: number): Float32Array => {
        const v = orthonormalColumns(new Rng(seed), n, n);
        return Float32Array.from(naiveProduct(scaled, v, m, n, n));
      };
      const found = run(of(5), of(6), m, n);
      expect(found.leading).to.have.length(10);
      expect(found.intruders).to.deep.equal([]);
    });

    it('equal singular values are one subspace', () => {
      const m = 64;
      // W = I, W' = a rotation of it: every vector is a singular vector of I
      const eye = Float32Array.from({ length: m * m }, (_, p) => (p % (m + 1) === 0 ? 1 : 0));
      const q = orthonormalColumns(new Rng(7), m, m);
      const found = run(
        eye,
        Float32Array.from(q, (v, p) => v * (1 + 0.01 * (p % m))),
        m,
        m,
      );
      expect(found.intruders).to.deep.equal([]);
      for (const v of found.leading) expect(v.cosine).to.be.closeTo(1, 1e-6);
    });

    it('directions that a base of low rank lacks are intruders; a zero matrix has no vectors', async () => {
      const [m, n] = [40, 30];
      const low = withSpectrum(new Rng(8), m, n, [3, 2, 1]);
      const found = run(low, plus(low, 10, unit(new Rng(9), m), unit(new Rng(10), n)), m, n);
      expect(found.intruders.map((v) => v.index)).to.deep.equal([0]);
      expect(found.leading).to.have.length(4);
      const zero = new Float32Array(m * n);
      expect(run(low, zero, m, n).leading).to.deep.equal([]);
      expect(run(zero, low, m, n).intruders).to.have.length(3);
      await expectCode('NOT_FINITE', () => run(low, zero.map(() => NaN), m, n)); // prettier-ignore
    });

    it('effective ranks are those of the whole spectra', () => {
      const [a, b] = [
        withSpectrum(new Rng(11), 50, 40, geometric.slice(0, 40)),
        withSpectrum(
          new Rng(12),
          50,
          40,
          Array.from({ length: 40 }, () => 1),
        ),
      ];
      const found = run(a, b, 50, 40);
      expect(found.effectiveRank.base).to.be.closeTo(effectiveRank(geometric.slice(0, 40)), 1e-3);
      expect(found.effectiveRank.tuned).to.be.closeTo(40, 1e-3);
    });

    it('gram64 is the product, both ways', () => {
      const [m, n] = [7, 5];
      const w = new Rng(13).normals(m * n);
      const t = Float32Array.from({ length: m * n }, (_, p) => w[(p % m) * n + Math.floor(p / m)]!);
      const [columns, rows] = [gram64(w, m, n, false, ops), gram64(w, m, n, true, ops)];
      naiveProduct(t, w, n, m, n).forEach((v, i) => expect(columns[i]!).to.be.closeTo(v, 1e-12));
      naiveProduct(w, t, m, n, m).forEach((v, i) => expect(rows[i]!).to.be.closeTo(v, 1e-12));
    });
  });
}
