/** int: packing, the error of every width, the scale search against brute force, an independent decoder, budgets. */
import { expect } from 'chai';
import fc from 'fast-check';
import { join } from 'node:path';
import { decodeF32 } from '../../core/float.js';
import { Rng } from '../../core/rng.js';
import { DeltaFile } from '../../formats/delta/file.js';
import { packCodes, packedBytes, packInt4, unpackCodes } from '../../kernels/quant/pack.js';
import { symmetricCodes, symmetricScale } from '../../kernels/quant/symmetric.js';
import { BASE, encodePair, loadValues, matrixPair, restoreTo, TUNED } from '../support/delta-files.js';
import { tempDir } from '../support/files.js';

const [M, N] = [96, 512];
const gaussian = (folder: string, n = N) => matrixPair(folder, 'F32', [M, n], new Rng(1).normals(M * n).map((v) => v * 0.02), new Rng(2).normals(M * n).map((v) => v * 0.001)); // prettier-ignore

describe('kernels/quant', () => {
  it('codes of 1 to 8 bits pack and unpack, 4 bits as the nibbles do', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), fc.uint8Array({ maxLength: 60 }), fc.integer({ min: 0, max: 3 }), (bits, codes, at) => {
        const out = new Uint8Array(at + packedBytes(codes.length, bits) + 1).fill(255);
        packCodes(codes, bits, out, at);
        expect([...out.subarray(0, at), out.at(-1)]).to.deep.equal(Array.from({ length: at + 1 }, () => 255));
        const back = new Uint8Array(codes.length);
        unpackCodes(out, at, bits, back);
        expect(Array.from(back)).to.deep.equal(Array.from(codes, (v) => v & ((1 << bits) - 1)));
        if (bits !== 4) return;
        const nibbles = packInt4(new Int8Array(codes), 1, codes.length);
        expect(out.subarray(at, at + nibbles.length)).to.deep.equal(nibbles);
      }),
    );
  });

  it('8 codes lie as the format says', () => {
    const out = new Uint8Array(3);
    packCodes(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 0), 3, out, 0);
    const bits = [...out].reduce((sum, b, i) => sum + b * 256 ** i, 0);
    for (let i = 0; i < 8; i++) expect(Math.floor(bits / 8 ** i) % 8).to.equal((i + 1) % 8);
  });

  it('the mse scale is within 2.5 % of the best of a brute-force search', () => {
    for (const bits of [2, 3, 4, 5, 6]) {
      const codes = new Int8Array(128);
      let [found, best] = [0, 0];
      for (let seed = 0; seed < 20; seed++) {
        const x = new Rng(seed).normals(128).map((v) => 0.001 * v);
        const most = Math.max(...x.map(Math.abs));
        found += symmetricCodes(x, 0, 128, symmetricScale(x, 0, 128, bits, 'mse'), bits, codes);
        let least = Infinity;
        for (let i = 1; i <= 4000; i++) for (const sign of [1, -1]) least = Math.min(least, symmetricCodes(x, 0, 128, (sign * 1.1 * most * i) / 4000 / (2 ** (bits - 1) - 1), bits, codes)); // prettier-ignore
        best += least;
      }
      expect(found / best, `${bits} bits`).to.be.at.most(1.025);
    }
  });

  it('max: nothing is clipped, every error is at most half a step; quantizing again changes nothing', () => {
    const x = new Rng(3).normals(128);
    for (const bits of [2, 3, 4, 8]) {
      const s = symmetricScale(x, 0, 128, bits, 'max');
      const codes = new Int8Array(128);
      symmetricCodes(x, 0, 128, s, bits, codes);
      for (let i = 0; i < 128; i++) expect(Math.abs(x[i]! - s * codes[i]!)).to.be.at.most((s / 2) * (1 + 1e-6));
      const again = new Int8Array(128);
      symmetricCodes(Float32Array.from(codes, (q) => q * s), 0, 128, s, bits, again); // prettier-ignore
      expect(again).to.deep.equal(codes);
    }
  });

  it('a group of zeros has a scale and codes of zero', () => {
    const codes = new Int8Array(4).fill(9);
    const x = new Float32Array(4);
    const s = symmetricScale(x, 0, 4, 4, 'mse');
    expect([s, symmetricCodes(x, 0, 4, s, 4, codes), ...codes]).to.deep.equal([0, 0, 0, 0, 0, 0]);
  });
});

describe('pipelines/delta int', () => {
  it('a Gaussian delta: 4 bits in groups of 64 leave 0.108; more bits less, mse less than max; b + 16/g bits a value', async () => {
    using dir = tempDir();
    const pair = gaussian(dir.path);
    let count = 0;
    const run = async (params: object) => {
      const r = await encodePair(pair, join(dir.path, `${count++}.safetensors`), 'int', params);
      return { error: r.error!, bytes: r.tensors[0]!.bytes };
    };
    expect((await run({ bits: 4, groupSize: 64, fit: 'max' })).error).to.be.within(0.108 * 0.98, 0.108 * 1.02);
    let last = 1;
    for (const bits of [2, 3, 4, 5, 6, 7, 8]) {
      const [mse, max] = [await run({ bits }), await run({ bits, fit: 'max' })];
      expect(mse.error, `${bits}`).to.be.at.most(max.error);
      expect(mse.error).to.be.lessThan(last);
      expect(mse.bytes).to.equal((M * N * (bits + 16 / 128)) / 8);
      last = mse.error;
    }
  });

  it('an independent decoder gives the restored values: every width, a last group that is shorter', async () => {
    using dir = tempDir();
    const n = 75;
    const pair = gaussian(dir.path, n);
    const w0 = (await loadValues(pair.base)).get('w')!;
    for (const [bits, scale] of [
      [2, 'bf16'],
      [3, 'f16'],
      [5, 'bf16'],
      [8, 'f16'],
    ] as const) {
      const [d, back] = [join(dir.path, `${bits}.safetensors`), join(dir.path, `back${bits}.safetensors`)];
      await encodePair(pair, d, 'int', { bits, scale, groupSize: 32 });
      await restoreTo(pair.base, d, back);
      using file = DeltaFile.open(d);
      expect(file.partInfo('w', 'codes').shape).to.deep.equal([M, 10, bits]);
      expect(file.partInfo('w', 'scales')).to.deep.include({ dtype: scale.toUpperCase(), shape: [M, 3] });
      const codes = file.readPart('w', 'codes');
      const scales = decodeF32(scale === 'bf16' ? 'BF16' : 'F16', file.readPart('w', 'scales'));
      const got = (await loadValues(back)).get('w')!;
      for (let i = 0; i < M; i++) {
        for (let j = 0; j < n; j++) {
          let q = 0;
          for (let b = 0; b < bits; b++) q += ((codes[i * 10 * bits + ((j * bits + b) >> 3)]! >> ((j * bits + b) & 7)) & 1) << b;
          if (q >= 2 ** (bits - 1)) q -= 2 ** bits;
          expect(got[i * n + j]).to.equal(Math.fround(w0[i * n + j]! + Math.fround(q * scales[i * 3 + Math.floor(j / 32)]!)));
        }
      }
    }
  });

  it('a budget gives every tensor its width, and is met', async () => {
    using dir = tempDir();
    const pair = { base: BASE, tuned: TUNED };
    const four = await encodePair(pair, join(dir.path, 'four.safetensors'), 'int');
    const shared = await encodePair(pair, join(dir.path, 'shared.safetensors'), 'int', {}, { target: { bytes: four.bytes } });
    expect(shared.bytes).to.be.within(0.9 * four.bytes, four.bytes);
    expect(new Set(shared.tensors.filter((t) => t.method === 'int').map((t) => t.facts!['bits'])).size).to.be.greaterThan(1);
    expect(shared.error!).to.be.at.most(four.error! * 1.01);
    const limit = await encodePair(pair, join(dir.path, 'limit.safetensors'), 'int', {}, { target: { maxError: 0.3 } });
    expect(limit.error!).to.be.within(0.2, 0.3001);
    await restoreTo(BASE, join(dir.path, 'limit.safetensors'), join(dir.path, 'back'));
  });
});
