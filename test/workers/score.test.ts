/** The score task against the same figures from whole logits in f64. */
import { expect } from 'chai';
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PithError } from '../../core/errors.js';
import { Rng } from '../../core/rng.js';
import { encodeAs } from '../../core/float.js';
import { setupBackend } from '../../kernels/backend/setup.js';
import type { ScoreResult, ScoreTask } from '../../workers/messages/model.js';
import { WorkerPool } from '../../workers/pool.js';
import { openAny } from '../../workers/open.js';
import { expectCode } from '../support/expect-error.js';
import { writeSafetensors } from '../support/files.js';
import { modelFolder, modelGolden } from '../support/goldens.js';
import { logitsOf, refOf, tiny } from '../support/models.js';

const VOCABULARY = 2048;
const rng = new Rng(90125);
/** Of several lengths, the longest neither first nor last. */
const SEQUENCES = [40, 7, 64, 2, 33, 64].map((n) => Int32Array.from({ length: n }, () => rng.integer(VOCABULARY)));
const FROM = [1, 3, 32, 1, 20, 63];

interface Expected {
  readonly nll: number[];
  readonly top: number[];
  readonly referenceNll: number[];
  readonly kld: number[];
}

/** Of one model against itself or another, from logits that lie in memory whole. */
async function naive(path: string, reference: string): Promise<Expected> {
  const inputs = SEQUENCES.map((s) => s.subarray(0, -1));
  const [z, r] = [await logitsOf(path, inputs), await logitsOf(reference, inputs)];
  const out: Expected = { nll: [], top: [], referenceNll: [], kld: [] };
  let row = 0;
  SEQUENCES.forEach((ids, s) => {
    for (let i = 1; i < ids.length; i++, row++) {
      if (i < FROM[s]!) continue;
      const [p, q] = [z, r].map((all) => logSoftmax(Array.from(all.subarray(row * VOCABULARY, (row + 1) * VOCABULARY)))) as [number[], number[]];
      out.nll.push(-p[ids[i]!]!);
      out.referenceNll.push(-q[ids[i]!]!);
      out.top.push(p.indexOf(Math.max(...p)));
      out.kld.push(q.reduce((sum, b, j) => sum + Math.exp(b) * (b - p[j]!), 0));
    }
  });
  return out;
}

function logSoftmax(z: number[]): number[] {
  const m = Math.max(...z);
  const lse = m + Math.log(z.reduce((sum, v) => sum + Math.exp(v - m), 0));
  return z.map((v) => v - lse);
}

describe('score task', function () {
  this.timeout(120_000);
  let folder: string;
  let pool: WorkerPool;
  let expected: Expected;
  let tunedVersusBase: ScoreResult;

  const task = async (change: Partial<ScoreTask> = {}, memoryBytes = 1e9): Promise<ScoreTask> => ({
    type: 'score',
    settings: { seed: 0, device: 'cpu', blasThreads: 1, memoryBytes },
    model: await refOf(tiny('tuned')),
    reference: await refOf(tiny('base')),
    sequences: SEQUENCES,
    from: FROM,
    spool: join(folder, 'spool'),
    ...change,
  });
  const deviation = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
    expect(a.length).to.equal(b.length);
    return Array.from(a).reduce((most, v, i) => Math.max(most, Math.abs(v - b[i]!)), 0);
  };
  const mean = (a: ArrayLike<number>): number => Array.from(a).reduce((sum, v) => sum + v, 0) / a.length;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'pith-score-'));
    pool = new WorkerPool({ threads: 2 });
    await setupBackend('cpu', { blasThreads: 1 });
    expected = await naive(tiny('tuned'), tiny('base'));
    tunedVersusBase = await pool.run(await task());
  });
  after(async () => {
    await pool[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });

  it('log probabilities, likeliest tokens and divergences are those of whole logits', () => {
    const r = tunedVersusBase;
    expect(r.nll.length).to.equal(SEQUENCES.reduce((sum, s, i) => sum + s.length - FROM[i]!, 0));
    expect(deviation(r.nll, expected.nll)).to.be.below(1e-5);
    expect(deviation(r.reference!.nll, expected.referenceNll)).to.be.below(1e-5);
    expect(Array.from(r.top)).to.deep.equal(expected.top);
    expect(deviation(r.kld!, expected.kld)).to.be.below(2e-6);
    expect(mean(r.kld!)).to.be.above(0.01);
  });

  for (const name of ['gemma2', 'gpt2', 'opt-post-norm', 'qwen3-tied', 'phi3-longrope-long']) {
    it(`${name}: log probabilities of transformers`, async () => {
      const golden = modelGolden(name);
      const { document } = golden;
      const { values } = golden.tensor('logits');
      const ids = document.input_ids!.map((row) => Int32Array.from(row));
      const vocabulary = values.length / ids.reduce((sum, row) => sum + row.length, 0);
      const expected = ids.flatMap((row, s) =>
        Array.from(row.subarray(1), (target, i) => {
          const at = (s * row.length + i) * vocabulary;
          return -logSoftmax(Array.from(values.subarray(at, at + vocabulary)))[target]!;
        }),
      );
      // padding is at the end or the beginning: where there is any, rows without it
      const whole = ids.flatMap((row, s) => Array<boolean>(row.length - 1).fill(document.attention_mask?.[s]?.includes(0) !== true));
      const r = await pool.run({
        ...(await task()),
        model: await refOf(modelFolder(name)),
        sequences: ids,
        from: ids.map(() => 1),
        reference: undefined as never,
      });
      expect(whole).to.include(true);
      expect(
        deviation(
          r.nll.filter((_, i) => whole[i]),
          expected.filter((_, i) => whole[i]),
        ),
      ).to.be.below(2e-5);
    });
  }

  it('a model does not diverge from itself', async () => {
    const r = await pool.run(await task({ reference: await refOf(tiny('tuned')) }));
    expect(deviation(r.kld!, new Float32Array(r.kld!.length))).to.equal(0);
    expect(deviation(r.nll, r.reference!.nll)).to.equal(0);
  });

  it('without a reference there are no divergences, and the same log probabilities', async () => {
    const t: { -readonly [K in keyof ScoreTask]: ScoreTask[K] } = await task();
    delete t.reference;
    const r = await pool.run(t);
    expect(r.kld).to.equal(undefined);
    expect(deviation(r.nll, tunedVersusBase.nll)).to.be.below(1e-5);
  });

  for (const [what, change, memoryBytes] of [
    ['one sequence a batch', { batchTokens: 1 }, 1e9],
    ['three sequences a batch', { batchTokens: 200 }, 1e9],
    ['two BLAS threads', { settings: { seed: 0, device: 'cpu', blasThreads: 2, memoryBytes: 1e9 } }, 1e9],
    ['hidden states in files, the output layer in two panels', {}, 3e6],
  ] as const) {
    it(`the mean does not depend on ${what}`, async () => {
      const r = await pool.run(await task(change, memoryBytes));
      for (const [a, b] of [
        [r.nll, tunedVersusBase.nll],
        [r.kld!, tunedVersusBase.kld!],
      ] as const) {
        expect(Math.abs(mean(a) / mean(b) - 1)).to.be.below(1e-6);
      }
      expect(readdirSync(folder)).to.deep.equal([]);
    });
  }

  it('progress counts the bytes of both checkpoints', async () => {
    const before = pool.doneBytes;
    const t = await task();
    await pool.run(t);
    let bytes = 0;
    for (const path of [tiny('tuned'), tiny('base')]) {
      await using reader = await openAny(path);
      for (const name of reader.infos.keys()) bytes += (await reader.read(name)).bytes.length;
    }
    expect(Math.abs((pool.doneBytes - before) / bytes - 1)).to.be.below(1e-4);
  });

  it('stops when it is cancelled', async () => {
    const own = new WorkerPool({ threads: 1 });
    try {
      const running = own.run(await task({ batchTokens: 1 }));
      own.cancel();
      await expectCode('CANCELLED', () => running);
    } finally {
      await own[Symbol.asyncDispose]();
    }
    expect(readdirSync(folder)).to.deep.equal([]);
  });

  it('a budget that one block does not fit is refused with what it takes', async () => {
    const t = await task({}, 1e5);
    const error = await expectCode('MEMORY_BUDGET', () => pool.run(t));
    expect(error.message).to.match(/one block and one sequence of 63 tokens take \d+ MB/);
  });

  it('a token that the embedding does not have names it', async () => {
    const t = await task({ sequences: [Int32Array.of(1, 2, VOCABULARY, 3)], from: [1] });
    const error = await expectCode('TOKEN_RANGE', () => pool.run(t));
    expect(error.message).to.contain(`token id ${VOCABULARY}`).and.contain('model.embed_tokens.weight');
  });

  describe('a checkpoint that its config contradicts', () => {
    /** The tiny base with a tensor replaced, renamed or left out. */
    async function changed(name: string, config: Record<string, unknown>, change: Record<string, number[] | undefined>): Promise<string> {
      const path = join(folder, name);
      cpSync(tiny('base'), path, { recursive: true });
      await using reader = await openAny(tiny('base'));
      const tensors = [];
      for (const info of reader.infos.values()) {
        if (!(info.name in change)) tensors.push(await reader.read(info.name));
        else if (change[info.name] !== undefined) {
          const shape = change[info.name]!;
          tensors.push({ ...info, shape, bytes: encodeAs('BF16', new Float32Array(shape.reduce((a, b) => a * b, 1))) });
        }
      }
      writeSafetensors(join(path, 'model.safetensors'), tensors, { format: 'pt' });
      const { writeFileSync, readFileSync } = await import('node:fs');
      const file = join(path, 'config.json');
      writeFileSync(file, JSON.stringify({ ...(JSON.parse(readFileSync(file, 'utf8')) as object), ...config }));
      return path;
    }
    afterEach(() => readdirSync(folder).forEach((f) => rmSync(join(folder, f), { recursive: true })));

    const attempt = async (path: string): Promise<ScoreResult> => pool.run(await task({ model: await refOf(path) }));

    it('a missing tensor is named', async () => {
      const path = await changed('missing', {}, { 'model.layers.2.mlp.up_proj.weight': undefined });
      expect((await expectCode('TENSOR_MISSING', () => attempt(path))).message).to.contain('model.layers.2.mlp.up_proj.weight');
    });

    it('a tensor of another shape is named with both', async () => {
      const path = await changed('shape', {}, { 'model.layers.1.self_attn.k_proj.weight': [64, 256] });
      const { message } = await expectCode('SHAPE_MISMATCH', () => attempt(path));
      expect(message).to.contain('model.layers.1.self_attn.k_proj.weight').and.contain('[128, 256]').and.contain('[64, 256]');
    });

    it('a reference with another vocabulary is refused with both sizes', async () => {
      const path = await changed('vocabulary', { vocab_size: 100 }, { 'model.embed_tokens.weight': [100, 256] });
      const t = await task({ reference: await refOf(path), sequences: [Int32Array.of(1, 2, 3)], from: [1] });
      const error = await expectCode('VOCABULARY_MISMATCH', () => pool.run(t));
      expect(error).to.be.instanceOf(PithError);
      expect(error.message).to.contain('2048').and.contain('100').and.contain(path);
    });
  });
});
