/** Cholesky, eigenvalues and orthonormal bases, with the machine's LAPACK and without. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { loadBlas } from '../../../kernels/backend/blas.js';
import { cholesky, choleskySolve, dampedCholesky, invertLower } from '../../../kernels/linalg/cholesky.js';
import { eigh, eigh32 } from '../../../kernels/linalg/eigh.js';
import { matrixOps, transposed } from '../../../kernels/linalg/matrix-ops.js';
import { householderQ, orthonormalBasis, orthonormalize } from '../../../kernels/linalg/qr.js';
import { distance, naiveProduct, withSpectrum } from '../../support/random-matrix.js';

const rng = new Rng(11);
const blases = [undefined, loadBlas()].filter((b, i) => i === 0 || b !== undefined);

function spd(n: number): Float64Array {
  const x = Float64Array.from({ length: n * n }, () => rng.normal());
  const g = naiveProduct(x, transpose64(x, n), n, n, n);
  for (let i = 0; i < n; i++) g[i * n + i] = g[i * n + i]! + 0.1;
  return g;
}
function transpose64(x: Float64Array, n: number): Float64Array {
  return Float64Array.from(x, (_, p) => x[(p % n) * n + Math.floor(p / n)]!);
}
const identityError = (q: ArrayLike<number>, m: number, k: number): number => {
  let worst = 0;
  for (let a = 0; a < k; a++) {
    for (let b = 0; b <= a; b++) {
      let dot = a === b ? -1 : 0;
      for (let i = 0; i < m; i++) dot += q[i * k + a]! * q[i * k + b]!;
      worst = Math.max(worst, Math.abs(dot));
    }
  }
  return worst;
};

describe('kernels/linalg dense', () => {
  it('cholesky, its inverse and its solve', () => {
    for (const n of [1, 2, 7, 40]) {
      const a = spd(n);
      const l = cholesky(a, n)!;
      expect(distance(naiveProduct(l, transpose64(l, n), n, n, n), a)).to.be.lessThan(1e-10 * n * n);
      expect(identityError(naiveProduct(invertLower(l, n), l, n, n, n), n, n)).to.be.lessThan(1e-9);
      const x = Float64Array.from({ length: n * 3 }, () => rng.normal());
      const b = naiveProduct(a, x, n, n, 3);
      choleskySolve(l, n, b, 3);
      expect(distance(b, x)).to.be.lessThan(1e-8 * n);
    }
  });

  it('says when a matrix is not positive definite, and damps it', () => {
    const a = Float64Array.of(1, 2, 2, 1);
    expect(cholesky(a, 2)).to.equal(undefined);
    expect(cholesky(Float64Array.of(NaN), 1)).to.equal(undefined);
    const { l, damp } = dampedCholesky(a, 2, 0.01);
    expect(damp).to.be.greaterThan(0.9);
    expect(l.every(Number.isFinite)).to.equal(true);
  });

  for (const blas of blases) {
    it(`eigh, ${blas === undefined ? 'TypeScript' : 'LAPACK'}`, () => {
      for (const n of [1, 2, 3, 25, 90]) {
        const a = spd(n);
        const { values, vectors } = eigh(a, n, { blas });
        for (let i = 1; i < n; i++) expect(values[i]!).to.be.at.least(values[i - 1]!);
        // A v = lambda v
        for (let i = 0; i < n; i++) {
          const v = vectors.subarray(i * n, (i + 1) * n);
          const av = naiveProduct(a, v, n, n, 1);
          expect(
            distance(
              av,
              v.map((x) => x * values[i]!),
            ),
          ).to.be.lessThan(1e-9 * (1 + values[n - 1]!));
        }
        expect(identityError(transpose64(Float64Array.from(vectors), n), n, n)).to.be.lessThan(1e-9);
        expect(distance(eigh(a, n, { blas, vectors: false }).values, values)).to.be.lessThan(1e-9 * (1 + values[n - 1]!));
      }
    });

    it(`eigh32, ${blas === undefined ? 'TypeScript' : 'LAPACK'}: values and orthonormal vectors to f32, the matrix left as it is`, () => {
      for (const n of [1, 2, 33, 90]) {
        const a = spd(n);
        const f32 = new Float32Array(a);
        const before = f32.slice();
        const { values, vectors } = eigh32(f32, n, { blas });
        expect(f32).to.deep.equal(before);
        const largest = values[n - 1]!;
        expect(distance(values, eigh(a, n).values)).to.be.lessThan(1e-5 * largest);
        expect(identityError(transpose64(Float64Array.from(vectors), n), n, n)).to.be.lessThan(1e-5);
        for (let i = 0; i < n; i++) {
          const v = Float64Array.from(vectors.subarray(i * n, (i + 1) * n));
          expect(
            distance(
              naiveProduct(a, v, n, n, 1),
              v.map((x) => x * values[i]!),
            ),
          ).to.be.lessThan(1e-5 * largest);
        }
      }
    });

    it(`CholeskyQR2 keeps Q orthonormal up to cond 1e4 and beyond, ${blas === undefined ? 'wasm' : 'BLAS'}`, async () => {
      const ops = await matrixOps({ blasThreads: 1, blas: blas !== undefined });
      const [m, k] = [300, 24];
      for (const cond of [1e1, 1e2, 1e3, 1e4, 1e7, 1e12]) {
        const y = withSpectrum(
          rng,
          m,
          k,
          Array.from({ length: k }, (_, i) => cond ** (-i / (k - 1))),
        );
        const { q } = orthonormalBasis(y, m, k, ops);
        expect(identityError(q, m, k), `cond ${cond}`).to.be.lessThan(2e-6);
      }
    });

    it(`a basis of a matrix without full rank is orthonormal all the same, ${blas === undefined ? 'wasm' : 'BLAS'}`, async () => {
      const ops = await matrixOps({ blasThreads: 1, blas: blas !== undefined });
      const y = new Float32Array(50 * 6);
      for (let i = 0; i < 50; i++) y[i * 6] = y[i * 6 + 1] = i + 1;
      expect(identityError(orthonormalize(y, 50, 6, ops), 50, 6)).to.be.lessThan(2e-6);
      expect(identityError(orthonormalize(new Float32Array(50 * 6), 50, 6, ops), 50, 6)).to.be.lessThan(2e-6);
    });

    it(`products in every orientation, ${blas === undefined ? 'wasm' : 'BLAS'}`, async () => {
      const ops = await matrixOps({ blasThreads: 1, blas: blas !== undefined });
      for (const [m, k, n] of [
        [1, 1, 1],
        [5, 3, 9],
        [70, 33, 17],
        [4, 0, 3],
      ] as const) {
        const a = rng.normals(m * k);
        const b = rng.normals(k * n);
        const expected = naiveProduct(a, b, m, k, n);
        const at = transposed(a, m, k);
        const bt = transposed(b, k, n);
        for (const [ta, tb] of [
          [false, false],
          [true, false],
          [false, true],
          [true, true],
        ] as const) {
          const c = ops.multiply(ta, tb, m, n, k, ta ? at : a, tb ? bt : b);
          expect(distance(c, expected)).to.be.lessThan(1e-4);
          const c64 = ops.multiply64(ta, tb, m, n, k, Float64Array.from(ta ? at : a), Float64Array.from(tb ? bt : b));
          expect(distance(c64, expected)).to.be.lessThan(1e-10);
        }
        expect(distance(ops.gram(a, m, k, true), naiveProduct(a, at, m, k, m))).to.be.lessThan(1e-3);
        expect(distance(ops.gram(a, m, k, false), naiveProduct(at, a, k, m, k))).to.be.lessThan(1e-3);
      }
    });
  }

  it('Householder QR is orthonormal to f64', () => {
    const y = Float64Array.from({ length: 60 * 9 }, () => rng.normal());
    expect(identityError(householderQ(y, 60, 9), 60, 9)).to.be.lessThan(1e-13);
  });
});
