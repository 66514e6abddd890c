/** The singular basis and its quantized form: what is estimated from samples of it is what coding gives. */
import { expect } from 'chai';
import { Rng } from '../../../core/rng.js';
import { loadBlas } from '../../../kernels/backend/blas.js';
import { CENTROIDS, entropyBits } from '../../../kernels/levels/quantize.js';
import { LevelTally } from '../../../kernels/levels/tally.js';
import { matrixOps, transposed } from '../../../kernels/linalg/matrix-ops.js';
import { sumOfSquares } from '../../../kernels/linalg/truncated-svd.js';
import { Bases, factors, type Basis } from '../../../kernels/lowrank/singular-basis.js';
import { BasisSample, codeBasis, dequantize } from '../../../kernels/lowrank/transform.js';
import { distance, frobenius, naiveProduct, withSpectrum } from '../../support/random-matrix.js';

for (const useBlas of loadBlas() === undefined ? [false] : [false, true]) {
  describe(`kernels/lowrank transform, ${useBlas ? 'BLAS' : 'wasm'}`, () => {
    const basesOf = async (d: Float32Array, m: number, n: number): Promise<Bases> =>
      new Bases(d, m, n, sumOfSquares(d), await matrixOps({ blasThreads: 1, blas: useBlas }), new Rng(2));
    const product = (b: Basis, x: Float32Array, y: Float32Array): Float64Array =>
      naiveProduct(
        x.map((v, i) => v / b.s[i % b.rank]!),
        transposed(y, b.n, b.rank),
        b.m,
        b.rank,
        b.n,
      );

    for (const [m, n] of [
      [150, 90],
      [90, 150],
    ] as const) {
      it(`${m} x ${n}: a fine step has the whole matrix, small values included; every other row is every other row`, async () => {
        const d = withSpectrum(
          new Rng(3),
          m,
          n,
          Array.from({ length: 90 }, (_, i) => (i < 60 ? 10 / (i + 1) : 2e-2)),
        );
        const bases = await basesOf(d, m, n);
        const b = await bases.upTo(1e-5);
        expect(b.rank).to.equal(90);
        for (const [i, s] of b.s.entries()) expect(s / (i < 60 ? 10 / (i + 1) : 2e-2)).to.be.closeTo(1, 3e-2);
        const { x, y } = factors(b, b.rank);
        expect(distance(product(b, x, y), d)).to.be.lessThan(1e-4 * frobenius(d));
        // one basis serves all coarser steps
        expect(await bases.upTo(1e-3)).to.equal(b);
        const sampled = factors(b, 7, 3, 2);
        for (const [whole, part, rows, stride] of [
          [x, sampled.x, m, 3],
          [y, sampled.y, n, 2],
        ] as const) {
          expect(part.length).to.equal(7 * Math.ceil(rows / stride));
          for (let i = 0; i < part.length / 7; i++) for (let k = 0; k < 7; k++) expect(part[7 * i + k]!).to.be.closeTo(whole[i * stride * b.rank + k]!, 1e-4);
        }
      });
    }

    it('a coarse step has what stands out and no more than it needs; a very coarse one has nothing', async () => {
      const d = withSpectrum(new Rng(3), 120, 100, [50, 40, 30, ...Array.from({ length: 97 }, () => 0.1)]);
      const bases = await basesOf(d, 120, 100);
      expect((await bases.upTo(1e4)).rank).to.equal(0);
      const b = await bases.upTo(2);
      expect(b.rank).to.be.at.least(3);
      expect(codeBasis(b, 2, await LevelTally.create()).rank).to.equal(3);
    });

    it('bytes and error by estimate are those of the coded factors', async () => {
      const [m, n] = [800, 200];
      const d = withSpectrum(
        new Rng(8),
        m,
        n,
        Array.from({ length: n }, (_, i) => 30 / Math.sqrt(i + 1)),
      );
      const tally = await LevelTally.create();
      const total = sumOfSquares(d);
      const bases = await basesOf(d, m, n);
      for (const step of [0.2, 0.1]) {
        const b = await bases.upTo(step);
        const e = new BasisSample(b).estimate(step, total, tally);
        const coded = codeBasis(b, step, tally);
        const r = coded.rank;
        const x = dequantize(coded.x, r, coded.centroidsX, () => step, false);
        const ratios = new Float32Array(Uint32Array.from(coded.ratios, (v) => v << 16).buffer);
        const y = dequantize(coded.y, r, coded.centroidsY, (k) => ratios[k]!, true);
        const error = distance(naiveProduct(x, transposed(y, n, r), m, r, n), d) ** 2;
        expect(e.errorSq / error).to.be.closeTo(1, 0.05);
        let bits = 24 * r;
        for (const levels of [coded.x, coded.y]) {
          const counts = new Uint32Array(256 * r);
          levels.forEach((l, i) => counts[256 * (i % r) + l + 128]!++);
          for (let k = 0; k < r; k++) bits += entropyBits(counts.subarray(256 * k, 256 * (k + 1)));
        }
        expect((8 * e.bytes) / bits).to.be.closeTo(1, 0.03);
        expect(coded.centroidsX.length).to.equal(CENTROIDS);
      }
    });
  });
}
