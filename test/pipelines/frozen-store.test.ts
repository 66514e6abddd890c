/** A store that was frozen when store version 1 was: today's code must bring its models back for ever. Never written by a test. */
import { expect } from 'chai';
import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Pipeline } from '../../core/events.js';
import { storeGet } from '../../pipelines/store-get.js';
import { storeGc, storeList, storeVerify } from '../../pipelines/store-list.js';
import { hashTree, ROOT, tempDir } from '../support/files.js';

const FOLDER = join(ROOT, 'test', 'fixtures', 'store-v1');
const frozen = JSON.parse(readFileSync(join(FOLDER, 'cases.json'), 'utf8')) as {
  readonly version: number;
  readonly depths: Readonly<Record<string, number>>;
  readonly models: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly store: Readonly<Record<string, string>>;
};
const RUN = { threads: 2, maxMemoryBytes: 1e9, seed: 0, device: 'cpu' as const, signal: new AbortController().signal };
const STORE = join(FOLDER, 'store');

async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}

describe('frozen store, version 1', () => {
  it('is the one that was frozen, and says the same of itself', () => {
    expect(frozen.version).to.equal(1);
    expect(hashTree(STORE)).to.deep.equal(frozen.store);
    expect(Object.fromEntries(storeList(STORE).models.map((m) => [m.name, m.depth]))).to.deep.equal(frozen.depths);
    expect(Math.max(...Object.values(frozen.depths))).to.be.greaterThan(1);
  });

  for (const [model, files] of Object.entries(frozen.models)) {
    it(`${model}: every file comes back with its frozen hash`, async () => {
      using dir = tempDir();
      await drain(storeGet({ ...RUN, store: STORE, model, out: join(dir.path, 'back'), force: false, dryRun: false, resume: true }));
      expect(hashTree(join(dir.path, 'back'))).to.deep.equal(files);
    });
  }

  it('verifies, and a gc of a copy removes nothing', async () => {
    using dir = tempDir();
    cpSync(STORE, join(dir.path, 's'), { recursive: true });
    expect((await drain(storeVerify(join(dir.path, 's'), RUN))).damaged).to.deep.equal([]);
    expect((await storeGc(join(dir.path, 's'), { olderThanMs: 0, dryRun: false, signal: RUN.signal })).removed.objects).to.equal(0);
  });
});
