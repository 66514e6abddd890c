/** Counts, sums and errors of levels in wasm against plain loops. */
import { expect } from 'chai';
import { decodeF32, encodeAs } from '../../../core/float.js';
import { Rng } from '../../../core/rng.js';
import { quantize } from '../../../kernels/levels/quantize.js';
import { dequantized } from '../../../kernels/levels/rates.js';
import { BEYOND, COLUMN_SUMS, COLUMN_TOPS, LevelTally } from '../../../kernels/levels/tally.js';

describe('kernels/levels tally', () => {
  let tally: LevelTally;
  before(async () => {
    tally = await LevelTally.create();
  });
  const rng = new Rng(4);

  it('columns: levels counted and summed, of the first columns alone, in panels too', () => {
    for (const [rows, stride, columns] of [
      [5, 7, 7],
      [700, 501, 403],
      [3, 9, 0],
    ] as const) {
      const values = rng.normals(rows * stride).map((v, i) => v * 3 ** (i % 5));
      const step = 0.61;
      const levels = new Int16Array(values.length);
      quantize(values, step, levels);
      const { counts, sums } = tally.columns(values, stride, columns, step);
      expect([counts.length, sums.length]).to.deep.equal([columns * COLUMN_TOPS, columns * COLUMN_SUMS]);
      for (let k = 0; k < columns; k++) {
        const [count, sum] = [new Uint32Array(COLUMN_TOPS), new Float64Array(COLUMN_SUMS)];
        for (let i = 0; i < rows; i++) {
          const [l, v] = [Math.abs(levels[i * stride + k]!), Math.abs(values[i * stride + k]!)];
          count[Math.min(l, COLUMN_TOPS - 1)]!++;
          if (l > 8) [sum[BEYOND.product], sum[BEYOND.square]] = [sum[BEYOND.product]! + l * v, sum[BEYOND.square]! + l * l];
          else if (l > 0) sum[l]! += v;
        }
        expect(Array.from(counts.subarray(k * COLUMN_TOPS, (k + 1) * COLUMN_TOPS))).to.deep.equal(Array.from(count));
        sum.forEach((v, l) => expect(sums[k * COLUMN_SUMS + l]!).to.be.closeTo(v, 1e-9 * (1 + v)));
      }
    }
  });

  it('classes: levels, counted in their classes; the error of what they restore, rounded as the type asks', () => {
    const n = 1001;
    const [w0, w1] = [rng.normals(n), rng.normals(n)].map((v) => decodeF32('BF16', encodeAs('BF16', v))) as [Float32Array, Float32Array];
    const delta = w1.map((v, i) => v - w0[i]!);
    const classes = Uint8Array.from(delta, (_, i) => (i * i) % 16);
    for (const step of [0.02, 0.4]) {
      const levels = new Int16Array(n);
      quantize(delta, step, levels);
      const got = tally.classes({ delta, classes }, step, 16, 32);
      expect(Array.from(got.levels)).to.deep.equal(Array.from(levels));
      const counts = new Uint32Array(16 * 32);
      levels.forEach((l, i) => counts[classes[i]! * 32 + Math.min(31, Math.abs(l))]!++);
      expect(Array.from(got.counts)).to.deep.equal(Array.from(counts));
      for (let l = 1; l <= 8; l++) {
        const expected = delta.reduce((sum, v, i) => sum + (Math.abs(levels[i]!) === l ? Math.abs(v) : 0), 0);
        expect(got.sums[l]!).to.be.closeTo(expected, 1e-9 * (1 + expected));
      }
      const sizes = Float32Array.from({ length: 9 }, (_, l) => step * (l === 0 ? 0 : l - 0.1));
      const f32Step = Math.fround(step);
      const sum = dequantized(levels, sizes, f32Step).map((v, i) => v + w0[i]!);
      for (const rounded of [false, true]) {
        const what = rounded ? decodeF32('BF16', encodeAs('BF16', sum)) : sum;
        const expected = what.reduce((total, v, i) => total + (v - w1[i]!) ** 2, 0);
        expect(tally.error(w0, w1, levels, sizes, f32Step, rounded)).to.be.closeTo(expected, 1e-9 * expected);
      }
    }
  });
});
