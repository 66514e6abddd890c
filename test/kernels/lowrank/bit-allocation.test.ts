/** Widths of singular directions: the error table, the sheet's F3 figures, greedy against bands, more bits against less error. */
import { expect } from 'chai';
import { decodeF32 } from '../../../core/float.js';
import { Rng } from '../../../core/rng.js';
import { matrixOps, type MatrixOps } from '../../../kernels/linalg/matrix-ops.js';
import { orthonormalize } from '../../../kernels/linalg/qr.js';
import { sumOfSquares, truncatedSvd } from '../../../kernels/linalg/truncated-svd.js';
import { bandBits, FACTOR_ERROR, greedyBits, lostEnergy, lostShare } from '../../../kernels/lowrank/bit-allocation.js';
import { codeFactors, column, directionError, factorBytes, factorValues, groupsOf, type Directions } from '../../../kernels/lowrank/bit-factors.js';
import { affineCodes, affineValues } from '../../../kernels/quant/affine.js';
import { distance, f2Delta, frobenius } from '../../support/random-matrix.js';

const bands = (text: string, side: number, budget: number): number[] =>
  bandBits(text.split(',').map((b) => ({ bits: Number(b.split(':')[0]), count: b.endsWith('*') ? undefined : Number(b.split(':')[1]) })), side, budget); // prettier-ignore
const sum = (v: ArrayLike<number>): number => Array.from(v).reduce((a, b) => a + b, 0);

/** ||D - D^|| / ||D|| */
function relativeError(delta: Float32Array, d: Directions, m: number, n: number, bits: readonly number[], ops: MatrixOps): number {
  const f = codeFactors(d, m, n, bits);
  const { a, b } = factorValues(f, m, n);
  return distance(ops.multiply(false, false, m, n, f.s.length, b, a), delta) / frobenius(delta);
}

describe('kernels/quant affine', () => {
  it('leaves what the table of factor errors says on a Gaussian, at most half a step on any value', () => {
    const x = new Rng(1).normals(1 << 16).map((v) => v / 32);
    for (let bits = 2; bits <= 8; bits++) {
      const { codes, scales, zeros } = affineCodes(x, bits, 128);
      const s = decodeF32('F16', scales);
      const back = new Float32Array(x.length);
      affineValues(codes, s, zeros, 128, back);
      expect(distance(back, x) / frobenius(x) / FACTOR_ERROR[bits]!).to.be.within(0.98, 1.02);
      // rounding z moves the range by up to half a step, the scale by 2^-11
      for (let i = 0; i < x.length; i++) expect(Math.abs(back[i]! - x[i]!)).to.be.at.most(s[i >> 7]! * (1.01 + 2 ** (bits - 11)));
    }
  });

  it('a group of zeros restores to zeros, one-sided groups keep their range', () => {
    for (const x of [new Float32Array(5), Float32Array.of(1, 2, 3, 4), Float32Array.of(-4, -1, -2)]) {
      const { codes, scales, zeros } = affineCodes(x, 8, 128);
      const back = new Float32Array(x.length);
      affineValues(codes, decodeF32('F16', scales), zeros, 128, back);
      for (let i = 0; i < x.length; i++) expect(back[i]).to.be.closeTo(x[i]!, 0.02);
    }
  });
});

describe('kernels/lowrank bit allocation', () => {
  it('bands: in order, within the budget when one is open, never beyond the side', () => {
    const released = bands('8:2,3:32,2:*', 4096, 4096 ** 2 / 8192);
    expect([released.length, sum(released)]).to.deep.equal([2 + 32 + 968, 2048]);
    expect(bands('8:2,3:32,2:*', 40, 30)).to.deep.equal([8, 8, 3, 3, 3, 3, 2]);
    expect(bands('8:2,3:4', 5, 1)).to.deep.equal([8, 8, 3, 3, 3]);
    expect(bands('4:*', 100, 50).length).to.equal(12);
  });

  it('greedy: within the budget, wider for stronger directions, no exchange of widths is better', () => {
    const s = Float64Array.from({ length: 40 }, (_, i) => (i + 1) ** -0.7);
    for (const budget of [0, 2, 3, 17, 60, 200, 1000]) {
      const bits = greedyBits(s, budget);
      expect(sum(bits)).to.be.at.most(budget);
      if (budget < 300) expect(sum(bits)).to.be.greaterThan(budget - 3);
      for (let k = 1; k < bits.length; k++) expect(bits[k]).to.be.at.most(bits[k - 1]!);
      for (const spec of ['8:2,3:32,2:*', '4:*', '3:*', '8:2,4:4,3:*']) {
        const fixed = bands(spec, 40, budget);
        // one step of three bits may not fit
        expect(lostEnergy(s, bits)).to.be.at.most(lostEnergy(s, fixed) + (s[Math.floor(budget / 8)] ?? 0) ** 2);
      }
    }
    expect(lostShare(0)).to.equal(1);
  });

  describe('F3 at a 16th (bits x rank 512), rounded to nearest', () => {
    const N = 1024;
    let ops: MatrixOps;
    let [u, v] = [new Float32Array(0), new Float32Array(0)];
    before(async () => {
      ops = await matrixOps({ blasThreads: 2 });
      [u, v] = [1, 2].map((seed) => orthonormalize(new Rng(seed).normals(N * N), N, N, ops)) as [Float32Array<ArrayBuffer>, Float32Array<ArrayBuffer>];
    });
    const MEASURED: Record<number, Record<string, number>> = { 0.5: { '4:*': 0.54, '8:2,4:32,3:*': 0.526 }, 0.8: { '4:*': 0.219, '8:8,4:*': 0.183 } };

    for (const power of [0.3, 0.5, 0.8, 1.2]) {
      it(`s_i = i^-${power}: the measured figures; greedy <= bands; mixed <= single <= fp16 where the sheet says so`, async () => {
        const s = Float64Array.from({ length: N }, (_, i) => (i + 1) ** -power);
        const delta = ops.multiply(false, true, N, N, N, u.map((x, i) => x * s[i % N]!), v); // prettier-ignore
        const d = await truncatedSvd(delta, N, N, { rank: 256, ops, rng: new Rng(3) });
        const R = (bits: readonly number[]): number => relativeError(delta, d, N, N, bits, ops);
        const of = (spec: string): number => R(bands(spec, N, 512));
        const greedy = greedyBits(d.s, 512);
        expect(sum(greedy)).to.be.within(510, 512);
        const best = R(greedy);
        expect(best).to.be.at.most(of('8:2,3:32,2:*'));
        const predicted = Math.sqrt(lostEnergy(s, greedy)) / frobenius(s);
        expect(best / predicted).to.be.within(0.98, 1.02);
        for (const [spec, measured] of Object.entries(MEASURED[power] ?? {})) expect(of(spec) / measured, spec).to.be.within(0.98, 1.02);
        if (MEASURED[power] === undefined) return;
        const fp16 = frobenius(s.subarray(32)) / frobenius(s);
        const single = Math.min(of('3:*'), of('4:*'), of('8:*'));
        const mixed = Math.min(best, ...Object.keys(MEASURED[power]).map(of));
        expect(mixed).to.be.at.most(single);
        expect(single).to.be.at.most(fp16);
      });
    }
  });

  it('F2: with the same rank, more bits in any band never leave more; sizes are what is counted', async () => {
    const { delta, m, n } = f2Delta(new Rng(2));
    const ops = await matrixOps({ blasThreads: 2 });
    const d = await truncatedSvd(delta, m, n, { rank: 48, ops, rng: new Rng(3) });
    const R = (a: number, b: number, c: number): number => relativeError(delta, d, m, n, bands(`${a}:2,${b}:14,${c}:32`, m, 0), ops);
    for (const [a, b, c] of [
      [8, 3, 2],
      [4, 3, 2],
      [3, 3, 3],
      [7, 5, 4],
    ] as const) {
      const here = R(a, b, c);
      for (const [x, y, w] of [
        [a + 1, b, c],
        [a, b + 1, c],
        [a, b, c + 1],
      ] as const)
        if (x <= 8) expect(R(x, y, w), `${x} ${y} ${w}`).to.be.at.most(here);
    }
    const bits = bands('8:2,3:14,2:32', m, 0);
    const f = codeFactors(d, m, n, bits);
    const stored = 4 * f.s.length + f.bits.length + f.codes.length + f.scales.length + f.zeros.length;
    expect(stored).to.equal(factorBytes(m, n, bits));
    expect(f.codes.length).to.equal((sum(bits) * (m + n)) / 8);
    expect(f.zeros.length).to.equal(bits.length * groupsOf(m, n));
    // each direction's own error: the cross terms between directions are small
    const left = sumOfSquares(delta) + bits.reduce((e, b, k) => e + d.s[k]! ** 2 * (directionError(column(d.u, m, k), d.vt.subarray(k * n, (k + 1) * n), b) - 1), 0); // prettier-ignore
    expect(Math.sqrt(left / sumOfSquares(delta)) / relativeError(delta, d, m, n, bits, ops)).to.be.within(0.97, 1.03);
  });
});
