import { expect } from 'chai';
import { decodeF32, encodeAs, toBf16, toF16 } from '../../core/float.js';
import type { DType } from '../../core/dtype.js';

/** Value by the definition, one pattern at a time. */
function naive(dtype: DType, w: number): number {
  const [e, m, bias, inf, fnuz] = {
    F16: [5, 10, 15, true, false],
    BF16: [8, 7, 127, true, false],
    F8_E5M2: [5, 2, 15, true, false],
    F8_E4M3: [4, 3, 7, false, false],
    F8_E5M2FNUZ: [5, 2, 16, false, true],
    F8_E4M3FNUZ: [4, 3, 8, false, true],
  }[dtype as string] as [number, number, number, boolean, boolean];
  const s = w >> (e + m) ? -1 : 1;
  const x = (w >> m) & ((1 << e) - 1);
  const f = w & ((1 << m) - 1);
  if (fnuz) {
    if (s < 0 && x === 0 && f === 0) return NaN;
  } else if (x === (1 << e) - 1) {
    if (inf) return f === 0 ? s * Infinity : NaN;
    if (f === (1 << m) - 1) return NaN;
  }
  return x === 0 ? s * f * 2 ** (1 - bias - m) : s * (2 ** m + f) * 2 ** (x - bias - m);
}

describe('core/float', () => {
  for (const dtype of ['F16', 'BF16', 'F8_E5M2', 'F8_E4M3', 'F8_E5M2FNUZ', 'F8_E4M3FNUZ'] as const) {
    it(`${dtype}: every pattern decodes to its value`, () => {
      const wide = dtype === 'F16' || dtype === 'BF16';
      const n = wide ? 65536 : 256;
      const bytes = wide ? new Uint8Array(Uint16Array.from({ length: n }, (_, i) => i).buffer) : Uint8Array.from({ length: n }, (_, i) => i);
      const got = decodeF32(dtype, bytes);
      for (let w = 0; w < n; w++)
        expect(Object.is(got[w], Math.fround(naive(dtype, w))) || (Number.isNaN(got[w]) && Number.isNaN(naive(dtype, w))), `${dtype} ${w}`).to.equal(true);
    });
  }

  it('bf16 and f16: every value encodes to its own pattern', () => {
    const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i);
    for (const dtype of ['BF16', 'F16'] as const) {
      const values = decodeF32(dtype, new Uint8Array(patterns.buffer));
      const back = new Uint16Array(encodeAs(dtype, values).buffer);
      for (let w = 0; w < 65536; w++) if (!Number.isNaN(values[w])) expect(back[w], `${dtype} ${w}`).to.equal(w);
    }
  });

  it('rounding is to the nearest, ties to even', () => {
    const half = (dtype: 'BF16' | 'F16', w: number): [number, number, number] => {
      const [a, b] = decodeF32(dtype, new Uint8Array(Uint16Array.of(w, w + 1).buffer));
      return [a!, b!, (a! + b!) / 2];
    };
    for (const [dtype, to, top] of [
      ['BF16', toBf16, 0x7f7f],
      ['F16', toF16, 0x7bff],
    ] as const) {
      for (let w = 0; w < top; w += 7) {
        const [a, b, middle] = half(dtype, w);
        expect(to(middle), `${dtype} tie at ${w}`).to.equal(w % 2 === 0 ? w : w + 1);
        expect(to(Math.fround(a + (b - a) * 0.26))).to.equal(w);
        expect(to(Math.fround(a + (b - a) * 0.74))).to.equal(w + 1);
      }
    }
    expect(toF16(65520)).to.equal(0x7c00);
    expect(toF16(65519)).to.equal(0x7bff);
    expect(toF16(NaN) & 0x7c00).to.equal(0x7c00);
    expect(toBf16(-0)).to.equal(0x8000);
    expect(toF16(-Infinity)).to.equal(0xfc00);
  });

  it('F8_E8M0 is a power of two', () => {
    expect([...decodeF32('F8_E8M0', Uint8Array.of(127, 128, 126, 255))]).to.deep.equal([1, 2, 0.5, NaN]);
  });
});
