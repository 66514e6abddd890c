/** Generation with kept keys and values against the likeliest tokens of whole passes. */
import { expect } from 'chai';
import { setupBackend } from '../../kernels/backend/setup.js';
import type { GenerateTask } from '../../workers/messages/model.js';
import { WorkerPool } from '../../workers/pool.js';
import { expectCode } from '../support/expect-error.js';
import { modelFolder, modelGolden } from '../support/goldens.js';
import { logitsOf, refOf, tiny } from '../support/models.js';

/** Windows, learned positions, fused projections, a soft cap. */
const MODELS = ['llama', 'gpt2', 'opt', 'gemma2', 'phi3'];
const NEW = 6;

/** One pass over all tokens for each new one. */
async function naive(path: string, ids: Int32Array, count: number): Promise<number[]> {
  const all = [...ids];
  for (let i = 0; i < count; i++) {
    const logits = await logitsOf(path, [Int32Array.from(all)]);
    const last = logits.subarray(logits.length - logits.length / all.length);
    all.push(last.indexOf(Math.max(...last)));
  }
  return all.slice(ids.length);
}

describe('generate task', function () {
  this.timeout(120_000);
  let pool: WorkerPool;
  const task = async (path: string, change: Partial<GenerateTask> = {}, memoryBytes = 1e9): Promise<GenerateTask> => ({
    type: 'generate',
    settings: { seed: 7, device: 'cpu', blasThreads: 1, memoryBytes },
    model: await refOf(path),
    ids: Int32Array.of(386, 26, 320, 1378),
    tokens: 8,
    temperature: 0,
    stop: [],
    ...change,
  });

  before(async () => {
    pool = new WorkerPool({ threads: 1 });
    await setupBackend('cpu', { blasThreads: 1 });
  });
  after(() => pool[Symbol.asyncDispose]());

  for (const name of MODELS) {
    it(`${name}: the likeliest tokens of whole passes`, async () => {
      const path = modelFolder(name);
      const ids = Int32Array.from(modelGolden(name).document.input_ids![0]!);
      const { ids: got } = await pool.run(await task(path, { ids, tokens: NEW }));
      expect([...got]).to.deep.equal(await naive(path, ids, NEW));
    });
  }

  for (const [kept, memoryBytes] of [
    ['decoded', 1e9],
    ['stored', 12e6],
    ['nothing', 1e6],
  ] as const) {
    it(`the same tokens when ${kept} of the weights stays in memory`, async () => {
      const r = await pool.run(await task(tiny('tuned'), {}, memoryBytes));
      expect(r.kept).to.equal(kept);
      expect([...r.ids]).to.deep.equal(await naive(tiny('tuned'), Int32Array.of(386, 26, 320, 1378), 8));
    });
  }

  it('ends before a token that stops it', async () => {
    const whole = [...(await pool.run(await task(tiny('tuned')))).ids];
    const stop = whole[3]!;
    const { ids } = await pool.run(await task(tiny('tuned'), { stop: [stop] }));
    expect([...ids]).to.deep.equal(whole.slice(0, whole.indexOf(stop)));
  });

  it('draws by the seed: the same again, another one with another seed', async () => {
    const t = await task(tiny('base'), { temperature: 2, tokens: 24 });
    const [a, b] = [await pool.run(t), await pool.run(t)];
    const c = await pool.run({ ...t, settings: { ...t.settings, seed: 8 } });
    expect([...a.ids])
      .to.deep.equal([...b.ids])
      .and.not.to.deep.equal([...c.ids]);
  });

  it('a token that the model does not have is refused', async () => {
    const t = await task(tiny('base'), { ids: Int32Array.of(9999) });
    await expectCode('TOKEN_RANGE', () => pool.run(t));
  });
});
