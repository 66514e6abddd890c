/** The solvers against brute force in f64, and with and without BLAS. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { matrixOps, type MatrixOps } from '../../../kernels/linalg/matrix-ops.js';
import { solveSpd } from '../../../kernels/linalg/solve.js';
import { inverseFactor, invertDamped } from '../../../kernels/linalg/spd-inverse.js';
import { solveAdmm } from '../../../kernels/sparse/admm.js';
import { solveAlps } from '../../../kernels/sparse/alps.js';
import { layerError } from '../../../kernels/linalg/layer-error.js';
import { solveObs } from '../../../kernels/sparse/obs.js';
import type { Sparsity } from '../../../kernels/sparse/sparsity.js';
import { distance, frobenius, naiveProduct } from '../../support/random-matrix.js';
import { f1, outputError } from '../../support/pruning.js';

const plain = await matrixOps({ blasThreads: 1, blas: false });
const fast = await matrixOps({ blasThreads: 1 });
const both: readonly MatrixOps[] = fast.blas === undefined ? [plain] : [plain, fast];
const nothing = (): void => undefined;

function spd(rng: Rng, n: number): Float64Array {
  const x = Float64Array.from({ length: 2 * n * n }, () => rng.normal());
  const g = new Float64Array(n * n);
  for (let t = 0; t < 2 * n; t++) for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) g[i * n + j] = g[i * n + j]! + x[t * n + i]! * x[t * n + j]!;
  return g;
}

/** Removes column by column, each time with the inverse of H from that column on. */
function bruteForce(w0: Float64Array, h: Float64Array, n: number, mask: Uint8Array): Float64Array {
  const w = w0.slice();
  for (let i = 0; i < n; i++) {
    if (mask[i] === 1) continue;
    const k = n - i;
    const trailing = Float64Array.from({ length: k * k }, (_, p) => h[(i + Math.floor(p / k)) * n + i + (p % k)]!);
    const first = solveSpd(
      trailing,
      k,
      Float64Array.from({ length: k }, (_, j) => (j === 0 ? 1 : 0)),
      1,
    )!;
    const step = w[i]! / first[0]!;
    for (let j = 0; j < k; j++) w[i + j] = w[i + j]! - step * first[j]!;
    w[i] = 0;
  }
  return w;
}

describe('kernels/sparse solvers', () => {
  for (const ops of both) {
    it(`inverses of damped matrices, f32 and f64 (${ops.name})`, () => {
      for (const n of [1, 2, 33, 70]) {
        const a = spd(new Rng(n), n);
        const mean = a.reduce((sum, v, i) => sum + (i % (n + 1) === 0 ? v / n : 0), 0);
        const damped = a.map((v, i) => v + (i % (n + 1) === 0 ? 0.01 * mean : 0));
        for (const Type of [Float64Array, Float32Array]) {
          const tolerance = Type === Float64Array ? 1e-9 : 2e-3;
          const identity = Float64Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0));
          const inverse = new Type(a);
          expect(invertDamped(inverse, n, 0.01, ops)).to.equal(0.01);
          expect(distance(naiveProduct(inverse, damped, n, n, n), identity)).to.be.lessThan(tolerance * n);
          const u = new Type(a);
          expect(inverseFactor(u, n, 0.01, ops)).to.equal(0.01);
          for (let i = 0; i < n; i++) u.fill(0, i * n, i * n + i);
          const ut = u.map((_, p) => u[(p % n) * n + Math.floor(p / n)]!);
          expect(distance(naiveProduct(ut, u, n, n, n), inverse)).to.be.lessThan(tolerance * frobenius(inverse));
        }
      }
    });

    it(`damping is raised until a singular matrix factors (${ops.name})`, () => {
      const ones = new Float32Array(36).fill(1);
      const d = invertDamped(ones, 6, 0, ops);
      expect(d).to.be.within(1e-7, 1e-3);
      expect(ones.every(Number.isFinite)).to.equal(true);
      const again = new Float64Array(36).fill(1);
      expect(inverseFactor(again, 6, 0, ops)).to.be.within(1e-13, 1e-6);
    });

    it(`a given mask, one row, n = 16: brute-force OBS to 1e-10, whatever the blocks (${ops.name})`, () => {
      const n = 16;
      for (let seed = 0; seed < 20; seed++) {
        const rng = new Rng(seed);
        const h = spd(rng, n);
        const w0 = Float64Array.from({ length: n }, () => rng.normal());
        const mask = Uint8Array.from({ length: n }, () => rng.uint32() & 1);
        const expected = bruteForce(w0, h, n, mask);
        const u = h.slice();
        inverseFactor(u, n, 0, ops);
        for (const block of [1, 3, 16, 128]) {
          const w = w0.slice();
          solveObs({ m: 1, n, w, u, mask: mask.slice(), target: undefined, block }, ops, nothing);
          expect(distance(w, expected)).to.be.at.most(1e-10 * Math.max(1, frobenius(expected)));
        }
      }
    });

    it(`blocks and steps do not change a given mask's result over many rows and columns (${ops.name})`, () => {
      const [m, n] = [5, 67];
      const rng = new Rng(31);
      const h = spd(rng, n);
      const u = h.slice();
      inverseFactor(u, n, 0, ops);
      const w0 = Float64Array.from({ length: m * n }, () => rng.normal());
      const mask = Uint8Array.from({ length: m * n }, () => rng.uint32() & 1);
      for (const block of [16, 40, 128]) {
        const w = w0.slice();
        const loss = solveObs({ m, n, w, u, mask: mask.slice(), target: undefined, block }, ops, nothing);
        let cost = 0;
        for (let r = 0; r < m; r++) {
          const row = bruteForce(w0.slice(r * n, (r + 1) * n), h, n, mask.subarray(r * n, (r + 1) * n));
          expect(distance(w.subarray(r * n, (r + 1) * n), row)).to.be.lessThan(1e-9);
          const delta = row.map((v, j) => v - w0[r * n + j]!);
          const product = naiveProduct(delta, h, 1, n, n);
          cost += delta.reduce((sum, v, j) => sum + v * product[j]!, 0) / 2;
        }
        // (w - q)^2 / U_ii^2 / 2 is what the output moves, in the units of H
        expect(loss / cost).to.be.closeTo(1, 1e-9);
      }
    });
  }

  it('with BLAS as without: masks but for near ties, errors within 0.1 %', () => {
    const [m, n] = [40, 96];
    const f = f1(new Rng(12), m, n, 400);
    const targets: readonly Sparsity[] = [
      { group: 'layer', ratio: 0.5 },
      { group: 'n:m', keep: 2, of: 4 },
    ];
    for (const target of targets) {
      const solve = {
        obs(ops: MatrixOps, w: Float32Array) {
          const u = f.stats.inputGram.slice();
          inverseFactor(u, n, 0.01, ops);
          const mask = new Uint8Array(m * n);
          solveObs({ m, n, w, u, mask, target, block: 128 }, ops, nothing);
          return mask;
        },
        admm: (ops: MatrixOps, w: Float32Array) =>
          solveAdmm(w, f.stats.inputGram.slice(), m, n, target, { iterations: 20, maskIterations: 15, damping: 0.1 }, ops, nothing).mask,
        alps: (ops: MatrixOps, w: Float32Array) =>
          solveAlps(w, f.stats.inputGram.slice(), m, n, target, { iterations: 300, damping: 0.01, cgSteps: 10 }, ops, nothing).mask,
      };
      for (const [name, run] of Object.entries(solve)) {
        const [a, b] = [f.layer.w.slice(), f.layer.w.slice()];
        const [maskA, maskB] = [run(plain, a), run(fast, b)];
        const same = maskA.reduce((count, v, i) => count + (v === maskB[i] ? 1 : 0), 0);
        expect(same / maskA.length, name).to.be.at.least(0.998);
        expect(Math.abs(outputError(a, f) / outputError(b, f) - 1), name).to.be.at.most(0.001);
      }
    }
  });

  it("the layer's error: f32 panels against f64", () => {
    const f = f1(new Rng(13), 40, 96, 400);
    const what = f.layer.w.map((v, i) => (i % 3 === 0 ? 0 : v));
    for (const ops of both) expect(layerError(f.layer.w, what, 40, 96, f.stats.inputGram, ops)).to.be.closeTo(outputError(what, f), 1e-5);
    expect(layerError(what, what, 40, 96, f.stats.inputGram, plain)).to.equal(0);
  });
});
