/** Blocks of every type against what Python's gguf makes of them: scripts/golden/gguf.py. */
import { expect } from 'chai';
import { join } from 'node:path';
import { GGML_TYPES } from '../../../core/ggml.js';
import { elementCount } from '../../../core/shape.js';
import { GgufFile } from '../../../formats/gguf/file.js';
import { SafetensorsFile } from '../../../formats/safetensors/file.js';
import { canDecode, decodeBlocks } from '../../../kernels/quant/ggml.js';
import { expectCode } from '../../support/expect-error.js';
import { GGUF_GOLDEN } from '../../support/gguf.js';

describe('ggml blocks', () => {
  using stored = GgufFile.open(join(GGUF_GOLDEN, 'blocks.gguf'));
  using wanted = SafetensorsFile.open(join(GGUF_GOLDEN, 'blocks.f32.safetensors'));
  const cases = [...stored.tensors.values()].map((entry) => {
    const raw = new Uint8Array(entry.bytes);
    stored.readInto(entry, 0, raw);
    const { bytes } = wanted.read(entry.name);
    return { entry, raw, want: new Float32Array(bytes.slice().buffer) };
  });

  it('the golden holds every type that can be decoded', () => {
    const decodable = [...GGML_TYPES.values()].filter((t) => canDecode(t.name)).map((t) => t.name);
    expect(cases.map((c) => c.entry.name)).to.have.members(decodable);
    for (const { entry } of cases) expect(entry.type.name).to.equal(entry.name);
  });

  for (const { entry, raw, want } of cases) {
    it(`${entry.name}: bit for bit`, () => {
      // an odd place in memory, as blocks of a file have it
      const shifted = new Uint8Array(raw.length + 3);
      shifted.set(raw, 3);
      for (const bytes of [raw, shifted.subarray(3)]) {
        const out = new Float32Array(elementCount(entry.shape));
        decodeBlocks(entry.type.name, bytes, out);
        const [got, bits] = [new Uint32Array(out.buffer), new Uint32Array(want.buffer)];
        const wrong = [...got.keys()].filter((i) => got[i] !== bits[i] && !(Number.isNaN(out[i]) && Number.isNaN(want[i])));
        expect(wrong, `${wrong.length} values, the first ${out[wrong[0]!]} for ${want[wrong[0]!]}`).to.deep.equal([]);
      }
    });
  }

  it('the golden has rows with NaN and infinities, and a NaN of blocks has the same bits on every machine', () => {
    const seen = { nan: 0, infinite: 0 };
    for (const { entry, raw, want } of cases.filter((c) => c.entry.type.dtype === undefined)) {
      const out = new Float32Array(want.length);
      decodeBlocks(entry.type.name, raw, out);
      const bits = new Uint32Array(out.buffer);
      out.forEach((v, i) => {
        if (Number.isNaN(v)) {
          seen.nan++;
          expect(bits[i], entry.name).to.equal(0x7fc00000);
        } else if (!Number.isFinite(v)) seen.infinite++;
      });
    }
    expect(seen.nan).to.be.greaterThan(1000);
    expect(seen.infinite).to.be.greaterThan(1000);
  });

  it('refuses types it does not know and pieces of blocks', async () => {
    await expectCode('DTYPE_UNSUPPORTED', () => decodeBlocks('IQ2_XXS', new Uint8Array(66), new Float32Array(256)));
    await expectCode('INTERNAL', () => decodeBlocks('Q8_0', new Uint8Array(33), new Float32Array(32)));
    await expectCode('INTERNAL', () => decodeBlocks('Q8_0', new Uint8Array(34), new Float32Array(31)));
  });
});
