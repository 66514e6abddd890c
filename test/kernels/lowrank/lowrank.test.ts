/** Factors, the fixed-order product and the shared budget. */
import { expect } from 'chai';
import fc from 'fast-check';
import { decodeF32, encodeAs, toBf16 } from '../../../core/float.js';
import { Rng } from '../../../core/rng.js';
import { componentBytes, FACTOR_FORMATS, factorShapes, loadFactor, storeFactor } from '../../../kernels/lowrank/factors.js';
import { PanelKernel } from '../../../kernels/lowrank/panel.js';
import { withinBytes, withinError, type RateCurve } from '../../../kernels/lowrank/water-fill.js';
import { packInt4, unpackInt4 } from '../../../kernels/quant/pack.js';

describe('kernels/lowrank', () => {
  let kernel: PanelKernel;
  before(async () => {
    kernel = await PanelKernel.create();
  });

  /** f32 arithmetic, k ascending: what the wasm must give, bit for bit. */
  function reference(w0: Float32Array, b: Float32Array, a: Float32Array, m: number, r: number, n: number): Uint16Array {
    const out = new Uint16Array(m * n);
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let k = 0; k < r; k++) sum = Math.fround(sum + Math.fround(b[i * r + k]! * a[k * n + j]!));
        out[i * n + j] = toBf16(Math.fround(w0[i * n + j]! + sum));
      }
    }
    return out;
  }

  it('the product has the bits of plain f32 arithmetic, at every shape and panel size', () => {
    const rng = new Rng(2);
    for (const [m, r, n] of [
      [1, 1, 1],
      [3, 2, 7],
      [4, 5, 8],
      [9, 16, 33],
      [70, 31, 130],
      [5, 0, 9],
    ] as const) {
      const w0 = decodeF32('BF16', encodeAs('BF16', rng.normals(m * n)));
      const base = encodeAs('BF16', w0);
      const [a, b] = [rng.normals(r * n), rng.normals(m * r)];
      const expected = reference(w0, b, a, m, r, n);
      for (const rows of [1, 4, m]) {
        const panels = kernel.factor(a, r, n, rows);
        const got = new Uint8Array(2 * m * n);
        for (let i = 0; i < m; i += rows) {
          const count = Math.min(rows, m - i);
          got.set(panels.add('BF16', base.subarray(2 * i * n, 2 * (i + count) * n), b.subarray(i * r, (i + count) * r)), 2 * i * n);
        }
        expect(Buffer.compare(got, Buffer.from(expected.buffer)), `${m} ${r} ${n} in panels of ${rows}`).to.equal(0);
      }
    }
  });

  it('bf16 rounding in wasm is that of core/float, for every kind of value', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 0xffffffff }), { minLength: 8, maxLength: 40 }), (bits) => {
        const b = new Float32Array(Uint32Array.from(bits).buffer);
        // W0 = 0 and A = 1: the sum is the value itself
        const zeros = new Uint8Array(2 * b.length);
        const got = kernel.factor(Float32Array.of(1), 1, 1, b.length).add('BF16', zeros, b);
        const expected = encodeAs(
          'BF16',
          b.map((v) => Math.fround(0 + Math.fround(0 + v))),
        );
        for (let i = 0; i < b.length; i++) {
          const [g, e] = [got[2 * i]! | (got[2 * i + 1]! << 8), expected[2 * i]! | (expected[2 * i + 1]! << 8)];
          if (Number.isNaN(b[i]!)) expect(g & 0x7fff).to.be.greaterThan(0x7f80);
          else expect(g).to.equal(e);
        }
      }),
    );
  });

  it('differences and squared errors agree with f64 sums', () => {
    const rng = new Rng(8);
    for (const dtype of ['BF16', 'F16', 'F32'] as const) {
      const n = 1003;
      const [x, y, z] = [0, 1, 2].map(() => encodeAs(dtype, rng.normals(n))) as [Uint8Array, Uint8Array, Uint8Array];
      const [fx, fy, fz] = [x, y, z].map((b) => decodeF32(dtype, b)) as [Float32Array, Float32Array, Float32Array];
      const out = new Float32Array(n);
      const [magnitude, squares] = kernel.subtract(dtype, x, y, out);
      expect(Array.from(out)).to.deep.equal(Array.from(fx, (v, i) => Math.fround(v - fy[i]!)));
      const [error, delta] = kernel.squares(dtype, z, x, y);
      let [e, d, length] = [0, 0, 0];
      for (let i = 0; i < n; i++) {
        length += Math.abs(out[i]!);
        e += (fz[i]! - fx[i]!) ** 2;
        d += (fx[i]! - fy[i]!) ** 2;
      }
      expect(error).to.be.closeTo(e, 1e-6 * e);
      expect(delta).to.be.closeTo(d, 1e-6 * d);
      expect(squares).to.be.closeTo(d, 1e-6 * d);
      expect(magnitude).to.be.closeTo(length, 1e-12 * length);
    }
  });

  for (const format of FACTOR_FORMATS) {
    it(`factors in ${format}: error bound, shapes and bytes`, () => {
      const rng = new Rng(3);
      for (const [rows, columns, axis] of [
        [5, 200, 'rows'],
        [130, 7, 'columns'],
        [1, 1, 'rows'],
        [0, 9, 'rows'],
      ] as const) {
        const values = rng.normals(rows * columns).map((v) => 0.01 * v);
        const stored = storeFactor(values, rows, columns, axis, format);
        const shapes = factorShapes(rows, columns, axis, format);
        expect([stored.values.dtype, stored.values.shape]).to.deep.equal([shapes.values.dtype, shapes.values.shape]);
        expect([stored.scale?.dtype, stored.scale?.shape]).to.deep.equal([shapes.scale?.dtype, shapes.scale?.shape]);
        const back = loadFactor(stored, rows, columns, axis, format);
        const step = { bf16: 0.0002, f16: 0.00002, f32: 0, int8: 0.04 / 127, int4: 0.04 / 7 }[format];
        for (let i = 0; i < values.length; i++) expect(Math.abs(back[i]! - values[i]!)).to.be.at.most(step);
        const bytes = stored.values.bytes.length + (stored.scale?.bytes.length ?? 0);
        const [components, length] = axis === 'rows' ? [rows, columns] : [columns, rows];
        // int4 rows start on whole bytes
        expect(bytes).to.be.within(Math.floor(components * componentBytes(format, length)), Math.ceil(components * componentBytes(format, length)) + rows);
      }
    });
  }

  it('4-bit codes pack and unpack', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 9 }),
        fc.integer({ min: 0, max: 9 }),
        fc.infiniteStream(fc.integer({ min: -8, max: 7 })),
        (rows, columns, stream) => {
          const codes = Int8Array.from([...stream.take(rows * columns)]);
          expect(unpackInt4(packInt4(codes, rows, columns), rows, columns)).to.deep.equal(codes);
        },
      ),
    );
  });
});

describe('kernels/lowrank water-fill', () => {
  /** Components of cost c with gains s^2. */
  function curve(s: readonly number[], cost: number): RateCurve {
    const total = s.reduce((sum, v) => sum + v * v, 0);
    let left = total;
    const errorSq = [total, ...s.map((v) => Math.max(0, (left -= v * v)))];
    return { bytes: errorSq.map((_, i) => i * cost), errorSq, deltaSq: total };
  }
  const spectrum = (decay: number, scale: number): number[] => Array.from({ length: 64 }, (_, i) => scale * (i + 1) ** -decay);

  it('the sheet: four layers at a quarter of the budget lose 0.10 of the energy where uniform ranks lose 0.31', () => {
    const layers = [spectrum(1.5, 1), spectrum(0.3, 1), spectrum(0.8, 3), spectrum(1, 0.2)];
    const curves = layers.map((s) => curve(s, 1));
    const budget = 64;
    const shared = withinBytes(curves, budget);
    const uniform = curves.reduce((sum, c) => sum + c.errorSq[16]!, 0);
    expect(shared.bytes).to.be.at.most(budget);
    expect(shared.bytes).to.be.greaterThan(budget - 1);
    expect(shared.errorSq).to.be.lessThan(uniform);
    expect(shared.points[1]).to.be.greaterThan(shared.points[3]!);
  });

  it('is never worse than any equal split, and never over the budget; the way back likewise', () => {
    // whole gains: sums are exact, and each component is a step of its own
    const gains = fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1, maxLength: 12 });
    const layer = fc.tuple(gains, fc.integer({ min: 1, max: 9 })).map(([g, cost]): RateCurve => {
      const errorSq = [0, ...g.sort((a, b) => a - b)].map((_, i, all) => all.slice(0, all.length - i).reduce((sum, v) => sum + v, 0));
      return { bytes: errorSq.map((_e, i) => i * cost), errorSq, deltaSq: errorSq[0]! };
    });
    fc.assert(
      fc.property(fc.array(layer, { minLength: 1, maxLength: 6 }), fc.integer({ min: 0, max: 200 }), (curves, budget) => {
        const got = withinBytes(curves, budget);
        expect(got.bytes).to.be.at.most(budget);
        const largest = Math.max(...curves.map((c) => c.bytes[1]!));
        for (let r = 0; r <= 12; r++) {
          const ranks = curves.map((c) => Math.min(r, c.bytes.length - 1));
          const bytes = ranks.reduce((sum, p, i) => sum + curves[i]!.bytes[p]!, 0);
          const error = ranks.reduce((sum, p, i) => sum + curves[i]!.errorSq[p]!, 0);
          // optimal up to one component: compare with what fits when one is set aside
          if (bytes + largest <= budget) expect(got.errorSq).to.be.at.most(error);
          const least = withinError(curves, error);
          expect(least.errorSq).to.be.at.most(error);
          expect(least.bytes).to.be.below(bytes + largest);
        }
        const back = withinError(curves, got.errorSq);
        expect(back.errorSq).to.be.at.most(got.errorSq);
        expect(back.bytes).to.be.below(got.bytes + largest);
      }),
      { numRuns: 1000 },
    );
  });

  it('takes the hull of a curve that is not convex', () => {
    const c: RateCurve = { bytes: [0, 10, 20, 30], errorSq: [100, 99, 20, 19], deltaSq: 100 };
    expect(withinBytes([c], 20).points).to.deep.equal([2]);
    expect(withinBytes([c], 15).points).to.deep.equal([0]);
    expect(withinError([c], 25).points).to.deep.equal([2]);
  });
});
