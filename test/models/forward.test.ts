/** Logits of the shipped models on every backend against transformers' (examples/tiny/golden.json). */
import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openCheckpoint } from '../../formats/open-checkpoint.js';
import { decodeF32 } from '../../core/float.js';
import { setupBackend, type Backend } from '../../kernels/backend/setup.js';
import { forEachBackend } from '../support/backends.js';
import { logitsOf, TINY, tiny, TINY_LORA } from '../support/models.js';

const { input_ids: ids } = JSON.parse(readFileSync(join(TINY, 'golden.json'), 'utf8')) as { input_ids: number[] };

forEachBackend('logits', (open) => {
  for (const [name, path] of [
    ['base', tiny('base')],
    ['tuned', tiny('tuned')],
    ['lora', TINY_LORA],
  ] as const) {
    it(`of ${name} are those of transformers`, async () => {
      await using golden = await openCheckpoint(join(TINY, 'golden.safetensors'));
      const { dtype, bytes } = await golden.read(`${name}.logits`);
      const expected = decodeF32(dtype, bytes);
      const got = await logitsOf(path, [Int32Array.from(ids)]);
      expect(got.length).to.equal(expected.length);
      const most = got.reduce((m, v, i) => Math.max(m, Math.abs(v - expected[i]!)), 0);
      expect(most).to.be.below(open().tfName === 'wasm' ? 2e-4 : 1e-3);
    });
  }
});

describe('logits', () => {
  let backend: Backend;
  before(async () => {
    backend = await setupBackend('cpu', { blasThreads: 1 });
  });

  it('are the same in batches of padded sequences', async () => {
    const [a, b] = [Int32Array.from(ids), Int32Array.from(ids.slice(3, 14))];
    const together = await logitsOf(tiny('base'), [b, a]);
    const apart = await logitsOf(tiny('base'), [b, a], 1);
    const most = apart.reduce((m, v, i) => Math.max(m, Math.abs(v - together[i]!)), 0);
    expect(most).to.be.below(1e-4);
  });

  it('leave nothing on the device', async () => {
    await logitsOf(tiny('base'), [Int32Array.from(ids)]);
    const before = backend.tf.memory().numTensors;
    await logitsOf(tiny('base'), [Int32Array.from(ids)]);
    expect(backend.tf.memory().numTensors).to.equal(before);
  });
});
