import { expect } from 'chai';
import { PithError } from '../../../core/errors.js';
import { Rng } from '../../../core/rng.js';
import { CHUNK_ELEMENTS, ResidualCodec, SEGMENT_ELEMENTS } from '../../../kernels/residual/codec.js';

/** Chunks of 16-bit floats are decoded two at a time: counts, ends and raw bits that make the pairs change partners. */
describe('residual coder: chunks in pairs', () => {
  const lengths = [2 * CHUNK_ELEMENTS + 64, 2 * CHUNK_ELEMENTS + 69_632, 3 * CHUNK_ELEMENTS - 1, 3 * CHUNK_ELEMENTS + 16_384 + 5, SEGMENT_ELEMENTS];
  const rng = new Rng(21);
  let codec: ResidualCodec;
  before(async () => {
    codec = await ResidualCodec.create();
  });

  /** Half octaves of magnitude change along the tensor, and one difference in `every` is large: it has raw bits. */
  function pair(n: number, every: number): [Uint8Array, Uint8Array] {
    const a = Uint16Array.from({ length: n }, () => rng.integer(2) * 0x8000 + 0x3a00 + rng.integer(0x300));
    const b = a.map((w, i) => (rng.integer(every) === 0 ? rng.integer(0x10000) : (w + rng.integer(1 + ((i >> 14) % 20))) & 0xffff));
    return [new Uint8Array(a.buffer), new Uint8Array(b.buffer)];
  }

  function encode(a: Uint8Array, b: Uint8Array): Uint8Array {
    const v = codec.reserve(b.length);
    v.base.set(a);
    v.tuned.set(b);
    return codec.encodeSegment('BF16', b.length / 2, true).slice();
  }

  for (const n of lengths) {
    it(`${n} words come back, whole and by range`, () => {
      for (const every of [3, 100, 1e9]) {
        const [a, b] = pair(n, every);
        const segment = encode(a, b);
        expect(codec.stats.mode).to.equal('dense');
        const v = codec.reserve(b.length);
        v.base.set(a);
        v.tuned.fill(0);
        codec.decodeSegment(segment, 'BF16', n, true);
        expect(Buffer.compare(v.tuned, b), `1 in ${every}`).to.equal(0);
        v.tuned.fill(0);
        const [from, to] = [CHUNK_ELEMENTS - 10, CHUNK_ELEMENTS + 100];
        codec.decodeRange(segment, 'BF16', n, true, from, to);
        expect(Buffer.compare(v.tuned.subarray(2 * from, 2 * to), b.subarray(2 * from, 2 * to)), 'range').to.equal(0);
      }
    }).timeout(60_000);
  }

  it('a flipped bit in any chunk: a typed error or other words', () => {
    const n = 2 * CHUNK_ELEMENTS + 1000;
    const [a, b] = pair(n, 50);
    const segment = encode(a, b);
    let errors = 0;
    for (let i = 0; i < 60; i++) {
      const bad = segment.slice();
      bad[rng.integer(bad.length)]! ^= 1 << rng.integer(8);
      codec.reserve(b.length).base.set(a);
      try {
        codec.decodeSegment(bad, 'BF16', n, true);
      } catch (error) {
        expect(error).to.be.instanceOf(PithError);
        expect((error as PithError).code).to.equal('RESIDUAL_MALFORMED');
        errors++;
      }
    }
    expect(errors).to.be.above(30);
  }).timeout(60_000);
});
