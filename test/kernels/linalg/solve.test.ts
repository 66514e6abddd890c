/** Triangular, positive definite and least-squares systems. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { cholesky } from '../../../kernels/linalg/cholesky.js';
import { leastSquares, solveLower, solveSpd } from '../../../kernels/linalg/solve.js';
import { distance, frobenius, naiveProduct } from '../../support/random-matrix.js';

const rng = new Rng(21);
const normals = (n: number): Float64Array => Float64Array.from({ length: n }, () => rng.normal());
const transpose = (a: Float64Array, rows: number, columns: number): Float64Array =>
  Float64Array.from(a, (_, p) => a[(p % rows) * columns + Math.floor(p / rows)]!);
function spd(n: number): Float64Array {
  const x = normals(n * n);
  const g = naiveProduct(x, transpose(x, n, n), n, n, n);
  for (let i = 0; i < n; i++) g[i * n + i] = g[i * n + i]! + 1;
  return g;
}

describe('kernels/linalg solve', () => {
  it('lower triangular systems and their transposes', () => {
    for (const [n, columns] of [
      [1, 1],
      [6, 3],
      [41, 5],
    ] as const) {
      const l = cholesky(spd(n), n)!;
      const x = normals(n * columns);
      const b = naiveProduct(l, x, n, n, columns);
      solveLower(l, n, b, columns);
      expect(distance(b, x)).to.be.lessThan(1e-10 * n);
      const bt = naiveProduct(transpose(l, n, n), x, n, n, columns);
      solveLower(l, n, bt, columns, true);
      expect(distance(bt, x)).to.be.lessThan(1e-10 * n);
    }
  });

  it('positive definite systems; others are reported', () => {
    const a = spd(30);
    const x = normals(60);
    const b = naiveProduct(a, x, 30, 30, 2);
    const copy = b.slice();
    expect(distance(solveSpd(a, 30, b, 2)!, x)).to.be.lessThan(1e-9);
    expect(b).to.deep.equal(copy);
    expect(solveSpd(Float64Array.of(1, 2, 2, 1), 2, Float64Array.of(1, 1), 1)).to.equal(undefined);
  });

  it('least squares: the residual is orthogonal to the columns, exact where a solution exists', () => {
    for (const [m, n, columns] of [
      [1, 1, 1],
      [20, 20, 2],
      [50, 12, 3],
    ] as const) {
      const a = normals(m * n);
      const b = normals(m * columns);
      const x = leastSquares(a, m, n, b, columns)!;
      const fit = naiveProduct(a, x, m, n, columns);
      const residual = b.map((v, i) => v - fit[i]!);
      expect(frobenius(naiveProduct(transpose(a, m, n), residual, n, m, columns))).to.be.lessThan(1e-9);
      if (m === n) expect(frobenius(residual)).to.be.lessThan(1e-9);
      else expect(frobenius(residual)).to.be.greaterThan(1);
    }
  });

  it('least squares keeps the digits that the normal equations lose, whatever the scale', () => {
    // columns 1 and 1 + 1e-7: cond 1e7, its square beyond f64's half
    const m = 30;
    for (const scale of [1e-180, 1, 1e180]) {
      const a = new Float64Array(m * 2);
      for (let i = 0; i < m; i++) {
        a[2 * i] = scale;
        a[2 * i + 1] = scale * (1 + 1e-7 * (i % 3));
      }
      const b = Float64Array.from({ length: m }, (_, i) => 2 * a[2 * i]! - 3 * a[2 * i + 1]!);
      const x = leastSquares(a, m, 2, b, 1)!;
      expect(x[0]).to.be.closeTo(2, 1e-6);
      expect(x[1]).to.be.closeTo(-3, 1e-6);
    }
  });

  it('dependent columns and values that are not finite are reported', () => {
    expect(leastSquares(Float64Array.of(1, 2, 2, 4, 3, 6), 3, 2, Float64Array.of(1, 2, 3), 1)).to.equal(undefined);
    expect(leastSquares(new Float64Array(4), 2, 2, Float64Array.of(1, 2), 1)).to.equal(undefined);
    expect(leastSquares(Float64Array.of(NaN, 1, 2, 3), 2, 2, Float64Array.of(1, 2), 1)).to.equal(undefined);
  });
});
