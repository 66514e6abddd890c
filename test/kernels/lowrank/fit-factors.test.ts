/** Factors fitted to inputs: less output error than rounding to nearest with the same bands, the same parts, either orientation. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { matrixOps, transposed, type MatrixOps } from '../../../kernels/linalg/matrix-ops.js';
import { sumOfSquares, truncatedSvd } from '../../../kernels/linalg/truncated-svd.js';
import { bandBits } from '../../../kernels/lowrank/bit-allocation.js';
import { codeFactors, factorValues, type BitFactors, type Directions } from '../../../kernels/lowrank/bit-factors.js';
import { fitFactors } from '../../../kernels/lowrank/fit-factors.js';
import { f1, outputError } from '../../support/f1.js';
import { withSpectrum } from '../../support/random-matrix.js';

const [M, N] = [160, 256];

describe('kernels/lowrank fitted factors', () => {
  let ops: MatrixOps;
  before(async () => {
    ops = await matrixOps({ blasThreads: 1 });
  });

  const svd = (delta: Float32Array, m: number, n: number, rank: number, seed: number): Promise<Directions> =>
    truncatedSvd(delta, m, n, { rank, ops, rng: new Rng(seed), frobeniusSq: sumOfSquares(delta) });
  const values = (f: BitFactors, m: number, n: number): Float32Array => {
    const { a, b } = factorValues(f, m, n);
    return ops.multiply(false, false, m, n, f.s.length, b, a);
  };

  for (const seed of [1, 2, 3]) {
    it(`seed ${seed}: output error below rounding to nearest for every set of bands, most with 2 bits`, async () => {
      const f = f1(new Rng(seed), M, N, 1024);
      const delta = withSpectrum(new Rng(seed + 10), M, N, Array.from({ length: M }, (_, i) => (i + 1) ** -0.5)); // prettier-ignore
      const gains: number[] = [];
      for (const [bands, share] of [
        [[{ bits: 2, count: 60 }], 0.8],
        [[{ bits: 3, count: 40 }], 0.95],
        [
          [
            { bits: 8, count: 2 },
            { bits: 3, count: 8 },
            { bits: 2, count: 40 },
          ],
          0.9,
        ],
        [[{ bits: 8, count: 20 }], 1],
      ] as const) {
        const bits = bandBits(bands, M, 1e9);
        const d = await svd(delta, M, N, bits.length, seed);
        const [plain, fitted] = [codeFactors(d, M, N, bits), fitFactors(delta, d, M, N, bits, { gram: f.gram, transposed: false, ops })];
        expect([fitted.codes.length, fitted.scales.length, [...fitted.bits]]).to.deep.equal([plain.codes.length, plain.scales.length, [...plain.bits]]);
        const [before, after] = [plain, fitted].map((x) => outputError(values(x, M, N), delta, f.gram, M, N, ops)) as [number, number];
        gains.push(after / before);
        expect(after, JSON.stringify(bands)).to.be.below(share * before);
      }
      expect(gains[0]).to.be.below(gains[3]!);
    });
  }

  it('a matrix that is stored the other way round gives the same products', async () => {
    const f = f1(new Rng(4), M, N, 1024);
    const delta = withSpectrum(new Rng(5), M, N, Array.from({ length: M }, (_, i) => 0.9 ** i)); // prettier-ignore
    const bits = bandBits([{ bits: 4, count: 12 }], M, 1e9);
    const d = await svd(delta, M, N, 12, 1);
    const straight = fitFactors(delta, d, M, N, bits, { gram: f.gram, transposed: false, ops });
    const turned = { u: transposed(d.vt, 12, N), s: d.s, vt: transposed(d.u, M, 12) };
    const other = fitFactors(transposed(delta, M, N), turned, N, M, bits, { gram: f.gram, transposed: true, ops });
    const [a, b] = [values(straight, M, N), transposed(values(other, N, M), N, M)];
    for (let i = 0; i < a.length; i++) expect(b[i]).to.be.closeTo(a[i]!, 1e-6);
  });
});
