/** The task that makes vectors of texts, against the same model run on each text alone. */
import { expect } from 'chai';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type * as tfjs from '#tf';
import { Rng } from '../../core/rng.js';
import { setupBackend } from '../../kernels/backend/setup.js';
import { Batch } from '../../models/batch.js';
import { requireEncoderConfig } from '../../models/config/parse.js';
import { bertModel } from '../../models/index.js';
import { embedTokens, type Pooling } from '../../models/sentence.js';
import type { SentencesTask } from '../../workers/messages/model.js';
import { WorkerPool } from '../../workers/pool.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir } from '../support/files.js';
import { modelConfigOf, modelFolder } from '../support/goldens.js';
import { refOf } from '../support/models.js';
import { openGolden, runStack, valuesOf } from '../support/run-model.js';

const NAME = 'bert-sentence';
const rng = new Rng(808);
/** Lengths apart, so that batches are padded; the longest neither first nor last. */
const SEQUENCES = [7, 2, 31, 48, 1, 12, 13, 40].map((n) => Int32Array.from({ length: n }, () => rng.integer(48)));
/** Memory for a block and the longest text, and hardly more. */
const FILE_BYTES = 1.57e5;
const POOLING: Pooling = { modes: ['cls', 'mean'], normalize: true };

async function alone(tf: typeof tfjs): Promise<Float32Array> {
  const opened = await openGolden(NAME);
  const model = await bertModel(requireEncoderConfig(modelConfigOf(NAME), NAME), opened.table);
  const out: number[] = [];
  for (const ids of SEQUENCES) {
    const batch = new Batch({ batch: 1, length: ids.length });
    const run = { ...opened, tf, model, batch, embed: (scope: Parameters<typeof model.embed>[0]) => model.embed(scope, ids, batch) };
    const [x] = await runStack(run, (_, y) => [y]);
    out.push(...embedTokens(await valuesOf(x!), model.config.hiddenSize, POOLING));
    batch.dispose();
  }
  await opened.reader[Symbol.asyncDispose]();
  return Float32Array.from(out);
}

describe('sentences task', function () {
  this.timeout(60_000);
  let pool: WorkerPool;
  let dir: ReturnType<typeof tempDir>;
  let expected: Float32Array;
  before(async () => {
    dir = tempDir();
    mkdirSync(join(dir.path, 'work'));
    const { tf } = await setupBackend('cpu', { blasThreads: 1 });
    expected = await alone(tf);
    pool = new WorkerPool({ threads: 1 });
  });
  after(async () => {
    await pool[Symbol.asyncDispose]();
    dir[Symbol.dispose]();
  });
  const task = async (change: Partial<SentencesTask> = {}, memoryBytes = 1e9): Promise<SentencesTask> => ({
    type: 'sentences',
    settings: { seed: 0, device: 'cpu', blasThreads: 1, memoryBytes },
    model: await refOf(modelFolder(NAME)),
    sequences: SEQUENCES,
    pooling: POOLING,
    spool: join(dir.path, 'work', 'states'),
    ...change,
  });

  for (const [title, change, memory] of [
    ['batches of the memory', {}, 1e9],
    ['one text a batch', { batchTokens: 1 }, 1e9],
    ['two or three texts a batch', { batchTokens: 96 }, 1e9],
    ['states in a file', {}, FILE_BYTES],
  ] as const) {
    it(`each vector as of its text alone: ${title}`, async () => {
      const { width, embeddings } = await pool.run(await task(change, memory));
      expect(width).to.equal(64);
      expect(embeddings.length).to.equal(expected.length);
      embeddings.forEach((v, i) => expect(v, `${i}`).to.be.closeTo(expected[i]!, 2e-6));
      expect(readdirSync(join(dir.path, 'work'))).to.deep.equal([]);
    });
  }

  it('so little memory does need a file', async () => {
    const spool = join(dir.path, 'nowhere', 'states');
    await pool.run(await task({ spool }));
    await expectCode('NOT_FOUND', async () => pool.run(await task({ spool }, FILE_BYTES)));
  });

  it('the progress is the checkpoint once', async () => {
    const before = pool.doneBytes;
    await pool.run(await task());
    await using reader = (await openGolden(NAME)).reader;
    const bytes = [...reader.infos.values()].reduce((sum, t) => sum + t.shape.reduce((a, b) => a * b, 1) * (t.dtype === 'I64' ? 8 : 4), 0);
    expect((pool.doneBytes - before) / bytes).to.be.closeTo(1, 1e-3);
  });

  it('ids that the model does not have, a decoder, too little memory', async () => {
    const foreign = await expectCode('TOKEN_RANGE', async () => pool.run(await task({ sequences: [Int32Array.of(2, 48)] })));
    expect(foreign.details).to.deep.include({ tensor: 'embeddings.word_embeddings.weight', got: 48, expected: 48 });
    await expectCode('MODEL_CONFIG', async () => pool.run(await task({ model: await refOf(modelFolder('llama')) })));
    await expectCode('MEMORY_BUDGET', async () => pool.run(await task({}, 1e4)));
  });
});
