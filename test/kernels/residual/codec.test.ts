import { expect } from 'chai';
import fc from 'fast-check';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DType } from '../../../core/dtype.js';
import { PithError } from '../../../core/errors.js';
import { encodeAs } from '../../../core/float.js';
import { Rng } from '../../../core/rng.js';
import { CHUNK_ELEMENTS, ResidualCodec, SEGMENT_ELEMENTS, segmentCount, segmentSpan } from '../../../kernels/residual/codec.js';
import { ROOT } from '../../support/files.js';

let codec: ResidualCodec;
before(async () => {
  codec = await ResidualCodec.create();
});

const bytesOf = (a: ArrayBufferView): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);

function encode(dtype: DType, base: Uint8Array | undefined, tuned: Uint8Array, words: number): Uint8Array {
  const v = codec.reserve(tuned.length);
  if (base !== undefined) v.base.set(base);
  v.tuned.set(tuned);
  return codec.encodeSegment(dtype, words, base !== undefined).slice();
}

function decode(dtype: DType, base: Uint8Array | undefined, segment: Uint8Array, bytes: number, words: number): Uint8Array {
  const v = codec.reserve(bytes);
  v.tuned.fill(0xa5);
  if (base !== undefined) v.base.set(base);
  codec.decodeSegment(segment, dtype, words, base !== undefined);
  return v.tuned.slice();
}

/** Codes, decodes, compares; returns the coded size. */
function roundTrip(dtype: DType, base: Uint8Array | undefined, tuned: Uint8Array, wordBytes: number): number {
  const words = tuned.length / wordBytes;
  const segment = encode(dtype, base, tuned, words);
  const back = decode(dtype, base, segment, tuned.length, words);
  expect(Buffer.compare(back, tuned), `${dtype} ${tuned.length}`).to.equal(0);
  expect(segment.length).to.be.at.most(tuned.length + 1);
  return segment.length;
}

function shuffled(n: number, label: string): Uint16Array {
  const a = Uint16Array.from({ length: n }, (_, i) => i);
  const rng = new Rng(3).fork(label);
  for (let i = n - 1; i > 0; i--) {
    const j = rng.integer(i + 1);
    [a[i], a[j]] = [a[j]!, a[i]!];
  }
  return a;
}

/** a = bf16(0.02 N), b = bf16(a + 0.02 rho N) */
function f4(rho: number): [Uint8Array, Uint8Array] {
  const n = 1 << 20;
  const rng = new Rng(11);
  const a = rng.fork('a').normals(n);
  const d = rng.fork('d').normals(n);
  const base = encodeAs(
    'BF16',
    a.map((v) => v * 0.02),
  );
  const view = new Uint16Array(base.buffer);
  const f = new Float32Array(Uint32Array.from(view, (w) => w << 16).buffer);
  return [
    base,
    encodeAs(
      'BF16',
      f.map((v, i) => v + 0.02 * rho * d[i]!),
    ),
  ];
}

describe('kernels/residual', () => {
  for (const dtype of ['BF16', 'F16', 'I16', 'U16'] as const) {
    it(`${dtype}: all 65,536 patterns against all, in random order`, () => {
      const a = bytesOf(shuffled(65536, 'a'));
      const b = bytesOf(shuffled(65536, 'b'));
      roundTrip(dtype, a, b, 2);
      roundTrip(dtype, undefined, b, 2);
      roundTrip(dtype, a, bytesOf(shuffled(65536, 'a').map((w, i) => (i % 50 === 0 ? w ^ 0xffff : w))), 2);
    });
  }

  for (const dtype of ['F8_E4M3', 'F8_E5M2', 'F8_E4M3FNUZ', 'F8_E5M2FNUZ', 'F8_E8M0', 'I8', 'U8', 'BOOL'] as const) {
    it(`${dtype}: all pairs of patterns`, () => {
      const a = Uint8Array.from({ length: 65536 }, (_, i) => i & 255);
      const b = Uint8Array.from({ length: 65536 }, (_, i) => i >> 8);
      roundTrip(dtype, a, b, 1);
      roundTrip(dtype, undefined, b, 1);
    });
  }

  for (const dtype of ['F32', 'I32', 'U32', 'F64', 'I64', 'U64', 'C64'] as const) {
    it(`${dtype}: any bits (property)`, () => {
      const word = fc.oneof(
        fc.integer({ min: 0, max: 0xffffffff }),
        fc.constantFrom(0, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00001, 0xffffffff, 0x7fffffff, 1),
      );
      fc.assert(
        fc.property(fc.array(fc.tuple(word, word), { maxLength: 300 }), (pairs) => {
          const a = bytesOf(Uint32Array.from(pairs, (p) => p[0]));
          const b = bytesOf(Uint32Array.from(pairs, (p) => p[1]));
          roundTrip(dtype, a, b, 4);
          roundTrip(dtype, undefined, b, 4);
        }),
        { numRuns: 60 },
      );
    });
  }

  it('lengths around every boundary', () => {
    const rng = new Rng(5);
    for (const n of [0, 1, 2, 3, 63, 64, 65, 127, 128, CHUNK_ELEMENTS - 1, CHUNK_ELEMENTS, CHUNK_ELEMENTS + 1, SEGMENT_ELEMENTS - 1, SEGMENT_ELEMENTS]) {
      const a = Uint16Array.from({ length: n }, () => 0x3c00 + rng.integer(300));
      for (const share of [0, 0.005, 0.5]) {
        const b = a.map((w) => (rng.uniform() < share ? w + rng.integer(9) - 4 : w));
        roundTrip('BF16', bytesOf(a), bytesOf(b), 2);
      }
    }
  });

  it('segments cover a tensor without gaps', () => {
    for (const n of [0, 1, SEGMENT_ELEMENTS, SEGMENT_ELEMENTS + 1, 5 * SEGMENT_ELEMENTS - 1]) {
      const spans = Array.from({ length: segmentCount(n) }, (_, i) => segmentSpan(n, i));
      expect(spans.reduce((at, [from, to]) => (expect(from).to.equal(at), to), 0)).to.equal(n);
    }
  });

  // order-0 ratios given the exponent, measured (methods/delta.md); at most 3 % or 2 KiB above
  for (const [rho, ratio] of [
    [1e-1, 0.453],
    [3e-2, 0.341],
    [1e-2, 0.241],
    [3e-3, 0.138],
    [1e-3, 0.06],
    [1e-4, 0.006],
  ] as const) {
    it(`fixture F4, rho ${rho}: at most 3 % or 2 KiB above ${ratio}`, () => {
      const [a, b] = f4(rho);
      const bytes = roundTrip('BF16', a, b, 2);
      expect(bytes).to.be.at.most(Math.max(ratio * 1.03 * a.length, ratio * a.length + 2048));
    });
  }

  it('identical: under 0.1 %; Gaussian alone: 0.66 to 0.67; random bytes: under 0.5 % more', () => {
    const [a] = f4(1e-4);
    expect(roundTrip('BF16', a, a, 2)).to.be.lessThan(a.length / 1000);
    expect(roundTrip('BF16', undefined, a, 2) / a.length).to.be.within(0.65, 0.67);
    const noise = Uint8Array.from({ length: 1 << 20 }, (_, i) => Math.imul(i, 2654435761) >>> 24);
    const rng = new Rng(9);
    for (let i = 0; i < noise.length; i++) noise[i] = rng.uint32();
    expect(roundTrip('U8', undefined, noise, 1)).to.be.lessThan(noise.length * 1.005);
  });

  it('bf16 values stored as f32 cost no more than as bf16, but for the zeros', () => {
    const [a, b] = f4(1e-2);
    const wide = (x: Uint8Array): Uint8Array => bytesOf(Uint32Array.from(new Uint16Array(x.buffer), (w) => w << 16));
    const narrow = roundTrip('BF16', a, b, 2);
    expect(roundTrip('F32', wide(a), wide(b), 4)).to.be.lessThan(narrow * 1.03);
    expect(roundTrip('F32', undefined, wide(b), 4)).to.be.lessThan(roundTrip('BF16', undefined, b, 2) * 1.03);
  });

  it('sparse changes take the sparse mode and less than the dense one', () => {
    const [a] = f4(1e-2);
    const rng = new Rng(13);
    for (const share of [0.001, 0.01]) {
      const b = new Uint16Array(a.buffer).map((w) => (rng.uniform() < share ? w + 1 + rng.integer(3) : w));
      const bytes = roundTrip('BF16', a, bytesOf(b), 2);
      expect(codec.stats.mode).to.equal('sparse');
      // entropy of the positions alone, plus 3 bits a value
      const entropy = -(share * Math.log2(share) + (1 - share) * Math.log2(1 - share));
      expect(bytes).to.be.lessThan((((entropy + share * 3) * b.length) / 8) * 1.1 + 500);
    }
  });

  it('decodeRange gives the range', () => {
    const [a, b] = f4(1e-2);
    const segment = encode('BF16', a, b, 1 << 20);
    const [from, to] = [300_000, 300_100];
    const v = codec.reserve(a.length);
    v.base.set(a);
    v.tuned.fill(0);
    codec.decodeRange(segment, 'BF16', 1 << 20, true, from, to);
    expect(Buffer.compare(v.tuned.slice(from * 2, to * 2), b.slice(from * 2, to * 2))).to.equal(0);
    expect(v.tuned[0]).to.equal(0);
  });

  it('damaged streams: a typed error or other words, never anything else', () => {
    const [a, b] = f4(1e-2);
    const n = 3000;
    for (const base of [a.slice(0, 2 * n), undefined]) {
      const segment = encode('BF16', base, b.slice(0, 2 * n), n);
      const attempt = (bytes: Uint8Array): void => {
        try {
          decode('BF16', base, bytes, 2 * n, n);
        } catch (error) {
          expect(error).to.be.instanceOf(PithError).with.property('code', 'RESIDUAL_MALFORMED');
        }
      };
      for (let i = 0; i < segment.length; i++) {
        for (const flip of [0x01, 0xff]) {
          const bytes = segment.slice();
          bytes[i]! ^= flip;
          attempt(bytes);
        }
      }
      for (let cut = 0; cut < segment.length; cut += 7) attempt(segment.subarray(0, cut));
    }
    roundTrip('BF16', a.slice(0, 2 * n), b.slice(0, 2 * n), 2);
  });

  it('frozen fixtures of version 1 decode for ever', () => {
    const folder = join(ROOT, 'test', 'fixtures', 'residual-v1');
    const cases = JSON.parse(readFileSync(join(folder, 'cases.json'), 'utf8')) as {
      name: string;
      dtype: DType;
      words: number;
      hasBase: boolean;
      mode: string;
    }[];
    expect(new Set(cases.map((c) => c.mode))).to.deep.equal(new Set(['identical', 'raw', 'dense', 'sparse', 'plane']));
    for (const c of cases) {
      const read = (part: string): Uint8Array => new Uint8Array(readFileSync(join(folder, `${c.name}.${part}`)));
      const tuned = read('tuned');
      expect(Buffer.compare(decode(c.dtype, c.hasBase ? read('base') : undefined, read('segment'), tuned.length, c.words), tuned), c.name).to.equal(0);
      expect(codec.stats.mode).to.equal(c.mode);
    }
  });
});
