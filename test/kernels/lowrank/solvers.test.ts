/** The other solvers of the low-rank sheet: alternating least squares, Kronecker products, one-pass sketches; and the exact SVD's tail. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { matrixOps, type MatrixOps } from '../../../kernels/linalg/matrix-ops.js';
import { OnePassSketch } from '../../../kernels/linalg/nystrom.js';
import { exactSvd } from '../../../kernels/linalg/svd.js';
import { truncatedSvd } from '../../../kernels/linalg/truncated-svd.js';
import { alternatingLeastSquares } from '../../../kernels/lowrank/als.js';
import { nearestKronecker } from '../../../kernels/lowrank/kronecker-term.js';
import { productSvd } from '../../../kernels/lowrank/resize.js';
import { distance, frobenius, naiveProduct, orthonormalColumns, withSpectrum } from '../../support/random-matrix.js';

const [M, N] = [512, 384];
const harmonic = Array.from({ length: N }, (_, i) => 1 / (i + 1));
const tail = (r: number): number => frobenius(harmonic.slice(r));

describe('kernels/lowrank solvers', function () {
  this.timeout(60_000);
  let ops: MatrixOps;
  before(async () => {
    ops = await matrixOps({ blasThreads: 1 });
  });

  for (const seed of [1, 2, 3]) {
    it(`alternating least squares never raise the loss and end at the SVD (F5 i^-1, rank 16, seed ${seed})`, () => {
      const a = new Float64Array(withSpectrum(new Rng(seed), M, N, harmonic));
      const { left, right, losses } = alternatingLeastSquares(a, M, N, { rank: 16, sweeps: 200, ops, rng: new Rng(seed + 10) });
      for (let i = 1; i < losses.length; i++) expect(losses[i]!).to.be.at.most(losses[i - 1]! * (1 + 1e-9));
      const error = distance(naiveProduct(left, right, M, 16, N), a);
      expect(error / tail(16)).to.be.within(1 - 1e-4, 1 + 1e-4);
      expect(Math.sqrt(losses.at(-1)!) / error).to.be.closeTo(1, 1e-9);
    });
  }

  it('alternating least squares fill in what they do not know of a matrix of low rank; ridges hold the factors back', () => {
    const rng = new Rng(4);
    const [m, n, r] = [60, 48, 3];
    const a = naiveProduct(rng.normals(m * r), rng.normals(r * n), m, r, n);
    const chance = new Rng(5).normals(m * n);
    const known = Uint8Array.from(chance, (v) => (v > -0.3 ? 1 : 0));
    const holed = a.map((v, i) => (known[i] === 1 ? v : NaN));
    const { left, right, losses } = alternatingLeastSquares(
      holed.map((v) => (Number.isNaN(v) ? 0 : v)),
      m,
      n,
      { rank: r, sweeps: 100, ops, rng: new Rng(6), known },
    );
    for (let i = 1; i < losses.length; i++) expect(losses[i]!).to.be.at.most(losses[i - 1]! * (1 + 1e-6) + 1e-18);
    expect(distance(naiveProduct(left, right, m, r, n), a) / frobenius(a)).to.be.lessThan(1e-6);
    const held = alternatingLeastSquares(a, m, n, { rank: r, sweeps: 50, ops, rng: new Rng(6), ridge: [5, 5] });
    expect(frobenius(naiveProduct(held.left, held.right, m, r, n))).to.be.lessThan(frobenius(a));
    for (let i = 1; i < held.losses.length; i++) expect(held.losses[i]!).to.be.at.most(held.losses[i - 1]! * (1 + 1e-9));
  });

  for (const seed of [1, 2, 3]) {
    it(`an exact Kronecker product comes back to 1e-5 (seed ${seed})`, async () => {
      const rng = new Rng(seed);
      const [p, q, bm, bn] = [8, 6, 12, 10];
      const [c, d] = [rng.normals(p * q), rng.normals(bm * bn)];
      const kron = (x: Float32Array, y: Float32Array): Float32Array =>
        Float32Array.from({ length: p * bm * q * bn }, (_, at) => {
          const [i, j] = [Math.floor(at / (q * bn)), at % (q * bn)];
          return x[Math.floor(i / bm) * q + Math.floor(j / bn)]! * y[(i % bm) * bn + (j % bn)]!;
        });
      const w = kron(c, d);
      const term = await nearestKronecker(w, p * bm, q * bn, [p, q], ops, new Rng(1));
      expect(distance(kron(term.c, term.d), w) / frobenius(w)).to.be.lessThan(1e-5);
      // beside noise it is nearer than the factors that made it
      const noise = rng.normals(w.length);
      const noisy = w.map((v, i) => v + 0.3 * noise[i]!);
      const near = await nearestKronecker(noisy, p * bm, q * bn, [p, q], ops, new Rng(1));
      expect(distance(kron(near.c, near.d), noisy)).to.be.lessThan(distance(w, noisy));
    });
  }

  for (const seed of [1, 2, 3]) {
    it(`one pass: panels in any order; clearly worse than two passes, better from a wider sketch (F5 i^-1, rank 32, seed ${seed})`, async () => {
      const w = withSpectrum(new Rng(seed), M, N, harmonic);
      const sketch = (k: number): OnePassSketch => {
        const s = new OnePassSketch(M, N, k, ops, new Rng(seed + 20));
        for (const start of [256, 0, 384, 128]) s.add(w.subarray(start * N, (start + 128) * N), start);
        return s;
      };
      const error = (left: Float32Array, right: Float32Array, k: number): number => distance(naiveProduct(left, right, M, k, N), w);
      const plain = sketch(32).factors()!;
      const onePass = error(plain.left, plain.right, 32) / tail(32);
      const svd = await truncatedSvd(w, M, N, { rank: 32, ops, rng: new Rng(1) });
      expect(onePass).to.be.greaterThan(1.3 * (svd.residualFro / tail(32)));
      const wide = sketch(52).factors()!;
      const { a, b } = productSvd(wide.right, wide.left, 52, ops).keep(32);
      expect(error(b, a, 32) / tail(32)).to.be.lessThan(onePass);
    });
  }

  it("one pass over a matrix of the sketch's own rank is exact", () => {
    const w = new Float32Array(naiveProduct(orthonormalColumns(new Rng(1), 64, 8), new Rng(2).normals(8 * 40), 64, 8, 40));
    const of = (k: number): OnePassSketch => {
      const s = new OnePassSketch(64, 40, k, ops, new Rng(3));
      s.add(w, 0);
      return s;
    };
    const f = of(8).factors()!;
    expect(distance(naiveProduct(f.left, f.right, 64, 8, 40), w) / frobenius(w)).to.be.lessThan(1e-4);
  });

  for (const [name, f] of [
    ['i^-1', (i: number) => 1 / i],
    ['i^-0.5', (i: number) => i ** -0.5],
    ['0.95^i', (i: number) => 0.95 ** i],
  ] as const) {
    // prettier-ignore
    it(`the exact SVD cut at rank 32 leaves the tail, within 1e-5 (F5 ${name})`, () => {
      const s = Array.from({ length: N }, (_, i) => f(i + 1));
      const w = new Float64Array(withSpectrum(new Rng(5), M, N, s));
      const { u, s: values, vt } = exactSvd(w, M, N, { blas: ops.blas });
      const scaled = u.map((v, at) => v * values[at % N]!);
      const cut = scaled.map((v, at) => (at % N < 32 ? v : 0));
      const error = distance(naiveProduct(cut, vt, M, N, N), w);
      expect(error / frobenius(Array.from(values).slice(32))).to.be.closeTo(1, 1e-5);
      expect(error / frobenius(s.slice(32))).to.be.closeTo(1, 1e-4);
    });
  }
});
