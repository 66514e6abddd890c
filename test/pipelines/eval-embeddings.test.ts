/** Evaluations of text encoders: cosines between two checkpoints' vectors, whatever can be wrong. */
import { expect } from 'chai';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeF32, encodeAs } from '../../core/float.js';
import { Rng } from '../../core/rng.js';
import type { ProgressEvent } from '../../core/events.js';
import type { TensorView } from '../../core/tensor.js';
import { parseDatasetSpec } from '../../formats/dataset/dataset.js';
import type { EmbeddingFigures } from '../../pipelines/eval-embeddings.js';
import { evaluate, type EvalOptions, type EvalReport } from '../../pipelines/eval.js';
import { embedTokens } from '../../models/sentence.js';
import { WorkerPool } from '../../workers/pool.js';
import { openAny } from '../../workers/open.js';
import { drain, RUN } from '../support/adapters.js';
import { letterIds, MEAN, MODULES, writeEncoder, type EncoderFiles } from '../support/encoder.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir, writeSafetensors } from '../support/files.js';
import { refOf, tiny } from '../support/models.js';

const TEXTS = ['a cat', 'the quick brown fox jumps over the lazy dog', 'no', '3.14', 'hello, world!', 'abc abc abc', 'zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz'];
const MOST = 24;

describe('eval of text encoders', function () {
  this.timeout(60_000);
  let dir: ReturnType<typeof tempDir>;
  let own: string;
  /** The same encoder with every weight a little off. */
  let other: string;
  let data: string;
  before(async () => {
    dir = tempDir();
    mkdirSync(join(dir.path, 'work'));
    own = writeEncoder(join(dir.path, 'own'));
    other = writeEncoder(join(dir.path, 'other'));
    await change(other, (v, rng) => v.map((x) => x + 0.05 * rng.normal()));
    data = join(dir.path, 'texts.jsonl');
    writeFileSync(data, TEXTS.map((text) => JSON.stringify({ text })).join('\n'));
  });
  after(() => dir[Symbol.dispose]());

  async function change(folder: string, f: (values: Float32Array, rng: Rng) => Float32Array): Promise<void> {
    const file = join(folder, 'model.safetensors');
    const rng = new Rng(33);
    const views: TensorView[] = [];
    {
      await using reader = await openAny(folder);
      for (const name of reader.infos.keys()) {
        const view = await reader.read(name);
        views.push(view.dtype === 'F32' ? { ...view, bytes: encodeAs('F32', f(decodeF32('F32', view.bytes), rng)) } : view);
      }
    }
    writeSafetensors(file, views, { format: 'pt' });
  }

  type Change = Partial<Omit<EvalOptions, 'dataset'>> & { data?: string; seqlen?: number; maxTokens?: number; dataset?: undefined };
  const options = ({ data: file = data, seqlen, maxTokens, ...rest }: Change): EvalOptions => {
    const limits = { ...(seqlen === undefined ? {} : { seqlen }), ...(maxTokens === undefined ? {} : { maxTokens }) };
    const dataset = { spec: parseDatasetSpec(file), protocol: 'gptq' as const, ...limits };
    const { dataset: none, ...others } = { dataset: 0, ...rest };
    return { ...RUN, checkpoint: own, reference: other, work: join(dir.path, 'work'), ...(none === undefined ? {} : { dataset }), ...others };
  };
  const report = async (c: Change = {}): Promise<EvalReport> => (await drain(evaluate(options(c)))).report;
  const figures = async (c: Change = {}): Promise<EmbeddingFigures> => (await report(c)).embeddings!;
  const encoder = (name: string, files: EncoderFiles): string => writeEncoder(join(dir.path, name), files);

  /** Cosines of the texts from the hidden states of single texts, by the task itself but without batches, cutting or pooling of its own. */
  async function cosines(): Promise<number[]> {
    const pool = new WorkerPool({ threads: 1 });
    const of = async (folder: string, text: string): Promise<Float32Array> => {
      const ids = letterIds(text)
        .slice(0, -1)
        .slice(0, MOST - 1);
      const task = { type: 'sentences', settings: { seed: 0, device: 'cpu', blasThreads: 1, memoryBytes: 1e9 }, model: await refOf(folder) } as const;
      const { embeddings } = await pool.run({ ...task, sequences: [Int32Array.from([...ids, 3])], pooling: { modes: ['mean'], normalize: false }, spool: '' });
      return embedTokens(embeddings, 32, { modes: ['cls'], normalize: true });
    };
    const out: number[] = [];
    for (const text of TEXTS) {
      const [a, b] = [await of(own, text), await of(other, text)];
      out.push(a.reduce((sum, v, i) => sum + v * b[i]!, 0));
    }
    await pool[Symbol.asyncDispose]();
    return out;
  }

  it('mean, minimum and quantiles over the texts; the farthest are named', async () => {
    const each = await cosines();
    const sorted = [...each].sort((a, b) => a - b);
    const r = await report();
    expect(r).to.include({ checkpoint: own, reference: other, dataset: data, device: 'cpu' });
    expect(r).not.to.have.any.keys('ppl', 'kld', 'protocol');
    const e = r.embeddings!;
    expect(e).to.include({ texts: 7, cut: 2, maxTokens: MOST, dimension: 32, pooling: 'mean, to length 1' });
    expect(e.tokens).to.equal(TEXTS.reduce((sum, t) => sum + Math.min(MOST, t.replaceAll(' ', '').length + 2), 0));
    expect(sorted[0]).to.be.lessThan(0.999);
    expect(e.cosine.mean).to.be.closeTo(each.reduce((a, b) => a + b, 0) / 7, 1e-6);
    expect(e.cosine.min).to.be.closeTo(sorted[0]!, 1e-6);
    expect(e.cosine.p01).to.be.closeTo(sorted[0]!, 1e-6);
    expect(e.cosine.median).to.be.closeTo(sorted[3]!, 1e-6);
    expect(e.lowest.map((l) => l.place)).to.deep.equal(sorted.map((c) => `line ${each.indexOf(c) + 1}`));
    expect(e.lowest.map((l) => l.text)).to.deep.equal(sorted.map((c) => TEXTS[each.indexOf(c)]));
    expect(readdirSync(join(dir.path, 'work'))).to.deep.equal([]);
  });

  it('the same checkpoint: 1', async () => {
    const { cosine } = await figures({ reference: own });
    expect(cosine).to.deep.equal({ mean: 1, min: 1, p01: 1, median: 1 });
  });

  it('the figures do not depend on threads, batches or memory', async () => {
    const one = await figures({ threads: 1 });
    for (const c of [{ threads: 4 }, { batchTokens: 1 }, { threads: 2, batchTokens: 30 }, { threads: 1, maxMemoryBytes: 2e5 }]) {
      const e = await figures(c);
      expect(Math.abs(e.cosine.mean - one.cosine.mean), JSON.stringify(c)).to.be.below(1e-6);
      expect(Math.abs(e.cosine.min - one.cosine.min), JSON.stringify(c)).to.be.below(1e-6);
    }
  });

  it('every line of a plain text is a text; empty ones are none', async () => {
    const file = join(dir.path, 'texts.txt');
    writeFileSync(file, `${TEXTS.slice(0, 3).join('\n \n')}\n\n`);
    const e = await figures({ data: file });
    expect(e.texts).to.equal(3);
    expect(e.cosine).to.deep.equal((await figures({ data: `${data}[0:3]` })).cosine);
    expect(e.lowest.map((l) => l.place).sort()).to.deep.equal(['line 1', 'line 3', 'line 5']);
  });

  it('--seqlen and --max-tokens', async () => {
    expect(await figures({ seqlen: 8 })).to.include({ maxTokens: 8, cut: TEXTS.filter((t) => letterIds(t).length > 8).length });
    expect((await figures({ seqlen: 48 })).cut).to.equal(0);
    // 4 letters and two special tokens; the second text is longer than what is left
    expect(await figures({ maxTokens: 20 })).to.include({ texts: 1, tokens: 6 });
    expect((await figures({ maxTokens: 1 })).texts).to.equal(1);
  });

  it('a checkpoint without modules.json or a tokenizer has those of the other', async () => {
    const bare = encoder('bare', { modules: null, transformer: null });
    rmSync(join(bare, 'tokenizer.json'));
    expect((await figures({ checkpoint: own, reference: bare })).cosine.min).to.equal(1);
    const plain = encoder('plain', { modules: null });
    const e = await figures({ checkpoint: plain, reference: plain });
    expect(e).to.include({ pooling: 'mean', maxTokens: 48, cut: 0 });
  });

  it('each has its own pooling', async () => {
    const cls = encoder('cls', { pooling: { ...MEAN, pooling_mode_mean_tokens: false, pooling_mode_cls_token: true } });
    const e = await figures({ checkpoint: cls, reference: own });
    expect(e.pooling).to.equal('cls, to length 1');
    expect(e.cosine.mean).to.be.below(0.99);
  });

  it('progress runs to the end of what was announced', async () => {
    const events: ProgressEvent[] = [];
    const run = evaluate(options({}));
    for (let step = await run.next(); step.done !== true; step = await run.next()) events.push(step.value);
    const start = events.find((e) => e.type === 'job.start')!;
    const last = events.findLast((e) => e.type === 'progress')!;
    expect(last.doneBytes / start.totalBytes).to.be.closeTo(1, 1e-3);
    expect(events.at(-1)!.type).to.equal('job.done');
  });

  it('stops when it is asked to', async () => {
    const abort = new AbortController();
    const run = evaluate(options({ signal: abort.signal, batchTokens: 1 }));
    await run.next();
    abort.abort();
    await expectCode('CANCELLED', () => drain(run));
  });

  describe('bad input', () => {
    const refuses = (title: string, code: Parameters<typeof expectCode>[0], c: () => Change | Promise<Change>, parts: readonly string[]): void => {
      it(title, async () => {
        const given = await c();
        const error = await expectCode(code, () => report(given));
        for (const part of parts) expect(error.message).to.contain(part);
      });
    };
    const both = (name: string, files: EncoderFiles): Change => ({ checkpoint: encoder(name, files) });
    refuses('no data', 'USAGE', () => ({ dataset: undefined }), ['--dataset']);
    refuses('a share of a fine-tune', 'USAGE', () => ({ base: own, tuned: other }), ['--base', 'text encoder']);
    refuses('a sample', 'USAGE', () => ({ sample: { prompt: 'a', tokens: 1, temperature: 0 } }), ['--sample', 'decoders']);
    refuses('more tokens than positions', 'USAGE', () => ({ seqlen: 49 }), ['--seqlen 49', '48 positions']);
    refuses('a decoder as the reference', 'MODEL_CONFIG', () => ({ reference: tiny('base') }), ['a text encoder', 'llama']);
    refuses('an encoder as the reference of a decoder', 'MODEL_CONFIG', () => ({ checkpoint: tiny('base') }), ['a decoder', 'bert']);
    refuses('vectors of another width', 'EMBEDDING_MISMATCH', () => both('wide', { pooling: { ...MEAN, pooling_mode_cls_token: true } }), ['64', '32', 'wide']);
    refuses('a step that is not built', 'MODEL_CONFIG', () => both('dense', { modules: [...MODULES.slice(0, 2), { type: 'a.Dense', path: '2_Dense' }] }), [
      'modules.json',
      'a.Dense',
    ]);
    refuses('modules.json that is no JSON', 'MODEL_CONFIG', () => {
      const folder = encoder('torn', {});
      writeFileSync(join(folder, 'modules.json'), '[{');
      return { checkpoint: folder };
    }, ['modules.json', 'JSON']); // prettier-ignore
    refuses('a missing tensor', 'TENSOR_MISSING', () => both('deep', { config: { num_hidden_layers: 3 } }), ['encoder.layer.2.']);
    refuses('a tensor of another shape', 'SHAPE_MISMATCH', () => both('flat', { config: { intermediate_size: 41 } }), ['intermediate.dense', '41', '40']);
    refuses('weights that are not finite', 'NOT_FINITE', async () => {
      const folder = encoder('nan', {});
      await change(folder, (v) => v.fill(NaN));
      return { checkpoint: folder };
    }, ['nan', 'line 1']); // prettier-ignore
    refuses('no text in the rows', 'DATASET_EMPTY', () => {
      const file = join(dir.path, 'blank.txt');
      writeFileSync(file, ' \n\n \n');
      return { data: file };
    }, ['blank.txt']); // prettier-ignore
  });

  it('no reference', async () => {
    const { reference, ...rest } = options({});
    expect(reference).to.equal(other);
    const error = await expectCode('USAGE', () => drain(evaluate(rest)));
    expect(error.message).to.contain('--reference').and.contain('text encoder');
  });
});
