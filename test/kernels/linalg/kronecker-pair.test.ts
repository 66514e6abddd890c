/** The leading Kronecker pair of a Fisher matrix. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { loadBlas } from '../../../kernels/backend/blas.js';
import { kroneckerPair, type Gradients } from '../../../kernels/linalg/kronecker-pair.js';
import { matrixOps, type MatrixOps } from '../../../kernels/linalg/matrix-ops.js';

const noCancel = (): void => undefined;

const of = (m: number, n: number, all: readonly Float32Array[]): Gradients => ({ m, n, count: all.length, read: (t) => all[t]! });

/** Orthogonal, by Gram-Schmidt. (n, n) */
function orthogonal(n: number, rng: Rng): Float64Array {
  const q = Float64Array.from(rng.normals(n * n));
  for (let i = 0; i < n; i++) {
    const row = q.subarray(i * n, (i + 1) * n);
    for (let pass = 0; pass < 2; pass++) {
      for (let j = 0; j < i; j++) {
        const other = q.subarray(j * n, (j + 1) * n);
        const c = row.reduce((sum, v, k) => sum + v * other[k]!, 0);
        row.forEach((v, k) => (row[k] = v - c * other[k]!));
      }
    }
    const norm = Math.hypot(...row);
    row.forEach((v, k) => (row[k] = v / norm));
  }
  return q;
}

/** Q^T diag(1, 1/2, 1/3, ...) Q and its square root's draws. */
function covariance(n: number, rng: Rng): { full: Float64Array; draw: () => Float64Array } {
  const q = orthogonal(n, rng);
  const full = new Float64Array(n * n);
  for (let k = 0; k < n; k++) for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) full[i * n + j]! += (q[k * n + i]! * q[k * n + j]!) / (k + 1);
  const draw = (): Float64Array => {
    const z = rng.normals(n);
    const x = new Float64Array(n);
    for (let k = 0; k < n; k++) for (let i = 0; i < n; i++) x[i]! += (z[k]! / Math.sqrt(k + 1)) * q[k * n + i]!;
    return x;
  };
  return { full, draw };
}

const dot = (x: ArrayLike<number>, y: ArrayLike<number>): number => Array.from(x).reduce((sum, v, i) => sum + v * y[i]!, 0);
const cosine = (x: ArrayLike<number>, y: ArrayLike<number>): number => dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y));

/** Leading singular pair of the rearrangement by plain power iteration in f64: slow and surely right. */
function power(gradients: Gradients, sweeps: number): { a: Float64Array; b: Float64Array } {
  const { m, n, count } = gradients;
  const read = (t: number): Float32Array => gradients.read(t);
  let a = new Float64Array(n * n);
  for (let i = 0; i < n; i++) a[i * n + i] = 1;
  let b = new Float64Array(m * m);
  const scaled = (x: Float64Array<ArrayBuffer>, by: number): Float64Array<ArrayBuffer> => x.map((v) => v / by);
  for (let s = 0; s < sweeps; s++) {
    a = scaled(a, Math.sqrt(dot(a, a)));
    b = new Float64Array(m * m);
    for (let t = 0; t < count; t++) sandwich(read(t), m, n, a, b, (g, i, j) => g[i * n + j]!);
    b = scaled(b, count);
    a = new Float64Array(n * n);
    for (let t = 0; t < count; t++) sandwich(read(t), n, m, b, a, (g, i, j) => g[j * n + i]!);
  }
  return { a: scaled(a, Math.sqrt(dot(a, a))), b };
}

/** out += H X H^T, H (rows, inner) by `at`. */
function sandwich(
  g: Float32Array,
  rows: number,
  inner: number,
  x: Float64Array,
  out: Float64Array,
  at: (g: Float32Array, i: number, j: number) => number,
): void {
  const hx = new Float64Array(rows * inner);
  for (let i = 0; i < rows; i++) for (let k = 0; k < inner; k++) for (let j = 0; j < inner; j++) hx[i * inner + j]! += at(g, i, k) * x[k * inner + j]!;
  for (let i = 0; i < rows; i++) for (let j = 0; j < rows; j++) for (let k = 0; k < inner; k++) out[i * rows + j]! += hx[i * inner + k]! * at(g, j, k);
}

async function eachOps(run: (ops: MatrixOps) => void): Promise<void> {
  run(await matrixOps({ blasThreads: 1, blas: false }));
  if (loadBlas() !== undefined) run(await matrixOps({ blasThreads: 1 }));
}

describe('Kronecker pair of a Fisher matrix', () => {
  it('is that of a power iteration in f64', async () => {
    const rng = new Rng(11);
    const [m, n] = [7, 10];
    const gradients = of(
      m,
      n,
      Array.from({ length: 5 }, () => rng.normals(m * n).map((v) => 1e-4 * v)),
    );
    const right = power(gradients, 2000);
    await eachOps((ops) => {
      const { a, b, sweeps } = kroneckerPair(gradients, { ops, checkpointCancel: noCancel });
      expect(sweeps).to.be.below(50);
      expect(dot(a, a)).to.be.closeTo(1, 1e-5);
      const error = (x: ArrayLike<number>, y: ArrayLike<number>): number => Math.sqrt(Array.from(x).reduce((s, v, i) => s + (v - y[i]!) ** 2, 0) / dot(y, y));
      expect(error(a, right.a), ops.name).to.be.below(1e-4);
      expect(error(b, right.b), ops.name).to.be.below(1e-4);
    });
  });

  it('finds the covariances of g x^T (spectra 1/i, 64 x 96, 4000 draws)', async function () {
    this.timeout(120_000);
    const rng = new Rng(5);
    const [m, n] = [64, 96];
    const [left, right] = [covariance(m, rng), covariance(n, rng)];
    const gradients = of(
      m,
      n,
      Array.from({ length: 4000 }, () => {
        const [g, x] = [left.draw(), right.draw()];
        return Float32Array.from({ length: m * n }, (_, i) => g[Math.floor(i / n)]! * x[i % n]!);
      }),
    );
    const ops = await matrixOps({ blasThreads: 1 });
    const { a, b } = kroneckerPair(gradients, { ops, tolerance: 1e-3, checkpointCancel: noCancel });
    expect(cosine(a, right.full)).to.be.above(0.99);
    expect(cosine(b, left.full)).to.be.above(0.99);
  });

  it('one gradient, none that is not zero', async () => {
    await eachOps((ops) => {
      // G = u v^T: A = v v^T, B = u u^T
      const [u, v] = [
        [3, 4],
        [0, 0.6, 0.8],
      ];
      const g = Float32Array.from({ length: 6 }, (_, i) => u[Math.floor(i / 3)]! * v[i % 3]!);
      const { a, b } = kroneckerPair(of(2, 3, [g]), { ops, checkpointCancel: noCancel });
      expect(cosine(a, [0, 0, 0, 0, 0.36, 0.48, 0, 0.48, 0.64])).to.be.above(1 - 1e-6);
      expect([...b].map((x) => Math.round(1e4 * x) / 1e4)).to.deep.equal([9, 12, 12, 16]);
      const none = kroneckerPair(of(2, 3, [new Float32Array(6)]), { ops, checkpointCancel: noCancel });
      expect([...none.b]).to.deep.equal([0, 0, 0, 0]);
      expect(none.a.every(Number.isFinite)).to.be.true;
    });
  });
});
