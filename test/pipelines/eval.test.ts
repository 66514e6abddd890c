/** Evaluations of the shipped models: transformers' and lm-evaluation-harness' figures, every form of a checkpoint, whatever can be wrong. */
import { expect } from 'chai';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ProgressEvent } from '../../core/events.js';
import { parseDatasetSpec } from '../../formats/dataset/dataset.js';
import { deltaEncode } from '../../pipelines/delta-encode.js';
import { evaluate, type EvalOptions, type EvalReport } from '../../pipelines/eval.js';
import type { Protocol } from '../../pipelines/eval-data.js';
import { drain, RUN, WRITE } from '../support/adapters.js';
import { expectCode } from '../support/expect-error.js';
import { ROOT, tempDir } from '../support/files.js';
import { modelFolder } from '../support/goldens.js';
import { TINY_LORA, tiny } from '../support/models.js';

type Figures = Readonly<Record<string, number>>;
interface Golden {
  readonly madeBy: { readonly tolerance: number };
  readonly seqlen: number;
  readonly gptq: { readonly base: Figures; readonly tuned: Figures; readonly kld: Figures };
  readonly 'llama.cpp': Golden['gptq'];
  readonly 'lm-eval': Readonly<Record<'base' | 'tuned', { readonly units: Figures; readonly choices: Figures }>>;
}

const golden = JSON.parse(readFileSync(join(ROOT, 'test/golden/eval.json'), 'utf8')) as Golden;
const fixture = (name: string): string => join(ROOT, 'test/fixtures/eval', name);
const ROWS = fixture('rows.jsonl');
const TEMPLATE = 'Question: {question}\\nAnswer: {answer}\\n';

function same(got: object | undefined, expected: Figures): void {
  for (const [name, value] of Object.entries(expected)) {
    const v = (got as Figures | undefined)?.[name];
    expect(Math.abs(v! - value), `${name}: ${v} instead of ${value}`).to.be.at.most(golden.madeBy.tolerance * Math.max(1e-2, Math.abs(value)));
  }
}

describe('eval', function () {
  this.timeout(120_000);
  let dir: ReturnType<typeof tempDir>;
  before(() => {
    dir = tempDir();
    mkdirSync(join(dir.path, 'work'));
  });
  after(() => dir[Symbol.dispose]());

  type Change = Partial<Omit<EvalOptions, 'dataset'>> & { protocol?: Protocol; seqlen?: number; data?: string; maxTokens?: number; dataset?: undefined };
  async function options({ protocol = 'gptq', seqlen = golden.seqlen, data = ROWS, maxTokens, ...change }: Change): Promise<EvalOptions> {
    const { parseRowTemplate } = await import('../../formats/dataset/template.js');
    const dataset = {
      spec: parseDatasetSpec(data),
      protocol,
      seqlen,
      ...(data.includes('rows.jsonl') ? { template: parseRowTemplate(TEMPLATE) } : {}),
      ...(maxTokens === undefined ? {} : { maxTokens }),
    };
    const { dataset: none, ...rest } = { dataset: 0, ...change };
    return { ...RUN, checkpoint: tiny('tuned'), work: join(dir.path, 'work'), ...(none === undefined ? {} : { dataset }), ...rest };
  }
  const report = async (change: Change): Promise<EvalReport> => (await drain(evaluate(await options(change)))).report;

  for (const protocol of ['gptq', 'llama.cpp'] as const) {
    it(`${protocol}: perplexities, divergence and errors of transformers and llama.cpp's formulas`, async () => {
      const r = await report({ protocol, reference: tiny('base') });
      same(r, golden[protocol].tuned);
      same(r.kld, golden[protocol].kld);
      same(await report({ protocol, checkpoint: tiny('base') }), golden[protocol].base);
    });
  }

  for (const name of ['base', 'tuned'] as const) {
    it(`lm-eval: word and byte perplexity, bits per byte, choices of ${name}`, async () => {
      const choices = { spec: parseDatasetSpec(fixture('choices.jsonl')) };
      const r = await report({ protocol: 'lm-eval', checkpoint: tiny(name), choices });
      same(r.units, golden['lm-eval'][name].units);
      same(r.choices, golden['lm-eval'][name].choices);
      expect(r.choices!.questions).to.equal(8);
      expect(r.documents).to.equal(10);
    });
  }

  it('the figures do not depend on threads, batches or memory', async () => {
    const change = { reference: tiny('base') };
    const one = await report({ ...change, threads: 1 });
    for (const other of [{ threads: 2 }, { threads: 4 }, { batchTokens: 64 }, { batchTokens: 300 }, { threads: 1, maxMemoryBytes: 5e6 }]) {
      const r = await report({ ...change, ...other });
      expect(Math.abs(r.ppl! / one.ppl! - 1), JSON.stringify(other)).to.be.below(1e-6);
      expect(Math.abs(r.kld!.mean / one.kld!.mean - 1), JSON.stringify(other)).to.be.below(1e-6);
    }
    expect(readdirSync(join(dir.path, 'work'))).to.deep.equal([]);
  });

  it('base + delta is the fine-tune, base + adapter is between', async () => {
    const delta = join(dir.path, 'd.safetensors');
    const method = { method: 'lossless', params: {}, selects: () => true, resume: true };
    await drain(deltaEncode({ ...RUN, ...WRITE, base: tiny('base'), tuned: tiny('tuned'), out: delta, ...method }));
    const composed = await report({ checkpoint: `${tiny('base')}+${delta}`, reference: tiny('tuned') });
    expect([composed.ppl, composed.kld!.max]).to.deep.equal([composed.kld!.pplReference, 0]);
    const lora = await report({ checkpoint: TINY_LORA, base: tiny('base'), tuned: tiny('tuned') });
    expect(lora.ppl).to.be.within(lora.recovered!.tuned.ppl, lora.recovered!.base.ppl);
    expect(lora.recovered!.share).to.be.closeTo((golden.gptq.base['ppl']! - lora.ppl!) / (golden.gptq.base['ppl']! - golden.gptq.tuned['ppl']!), 1e-5);
  });

  it('the ends of the recovered share are 0 and 1', async () => {
    const ends = { base: tiny('base'), tuned: tiny('tuned') };
    expect((await report({ checkpoint: tiny('base'), ...ends })).recovered!.share).to.equal(0);
    expect((await report({ checkpoint: tiny('tuned'), ...ends, reference: tiny('base') })).recovered!.share).to.equal(1);
  });

  it('a limit of tokens takes whole windows, or whole documents', async () => {
    const cut = await report({ maxTokens: 200 });
    expect([cut.windows, cut.tokens]).to.deep.equal([3, 3 * 63]);
    const docs = await report({ maxTokens: 200, protocol: 'lm-eval' });
    expect(docs.documents).to.equal(1);
    expect(docs.tokens).to.be.within(60, 200);
  });

  it('a sample continues the prompt; nothing else has to be asked for', async () => {
    const r = await report({ dataset: undefined, sample: { prompt: 'Question: Tom has 3', tokens: 12, temperature: 0 } });
    expect(r.ppl).to.equal(undefined);
    expect(r.sample!.tokens).to.be.within(1, 12);
    expect(r.sample!.text.length).to.be.greaterThan(3);
  });

  it('details: loss by place, divergences and the worst tokens add up to the figures', async () => {
    const { report: r, details } = await drain(evaluate(await options({ reference: tiny('base') })));
    const { byPosition, kld, worst } = details!;
    const total = byPosition.reduce((sum, b) => sum + b.tokens, 0);
    expect(total).to.equal(r.tokens);
    expect(byPosition.reduce((sum, b) => sum + b.nll * b.tokens, 0) / total).to.be.closeTo(r.nll!, 1e-9);
    expect(byPosition.reduce((sum, b) => sum + b.kld! * b.tokens, 0) / total).to.be.closeTo(r.kld!.mean, 1e-9);
    expect(kld.reduce((sum, b) => sum + b.tokens, 0)).to.equal(r.tokens);
    expect(worst[0]!.kld).to.equal(r.kld!.max);
    expect(worst.map((t) => t.kld)).to.deep.equal(worst.map((t) => t.kld).sort((a, b) => b! - a!));
    expect(worst[0]!.context.length).to.be.greaterThan(0);
  });

  it('progress runs to the end of what was announced', async () => {
    const events: ProgressEvent[] = [];
    const run = evaluate(await options({ reference: tiny('base'), base: tiny('base'), tuned: tiny('tuned') }));
    for (let step = await run.next(); step.done !== true; step = await run.next()) events.push(step.value);
    const start = events.find((e) => e.type === 'job.start')!;
    const last = events.findLast((e) => e.type === 'progress')!;
    expect(last.doneBytes / start.totalBytes).to.be.closeTo(1, 1e-3);
  });

  it('stops when it is asked to', async () => {
    const abort = new AbortController();
    const run = evaluate(await options({ signal: abort.signal, batchTokens: 64 }));
    await run.next();
    abort.abort();
    await expectCode('CANCELLED', () => drain(run));
  });

  describe('bad input', () => {
    const copy = (name: string, change: (folder: string) => void): string => {
      const folder = join(dir.path, name);
      cpSync(tiny('tuned'), folder, { recursive: true });
      change(folder);
      return folder;
    };
    const edit = (file: string, f: (json: Record<string, unknown>) => unknown): void => {
      const json = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
      writeFileSync(file, JSON.stringify(f(json)));
    };
    const refuses = (title: string, code: Parameters<typeof expectCode>[0], change: () => Change, parts: readonly string[]): void => {
      it(title, async () => {
        const error = await expectCode(code, () => report(change()));
        for (const part of parts) expect(error.message).to.contain(part);
      });
    };

    /** A model with a table of positions, and a tokenizer. */
    const learned = (): string => {
      const folder = join(dir.path, 'learned');
      cpSync(modelFolder('gpt2'), folder, { recursive: true });
      for (const name of ['tokenizer.json', 'tokenizer_config.json']) cpSync(join(tiny('base'), name), join(folder, name));
      return folder;
    };
    refuses('windows longer than a table of positions', 'USAGE', () => ({ checkpoint: learned(), seqlen: 300 }), ['--seqlen 300', 'positions', 'learned']);
    refuses('a sample longer than a table of positions', 'USAGE', () => ({
      checkpoint: learned(), dataset: undefined, sample: { prompt: 'a b', tokens: 5000, temperature: 0 },
    }), ['--sample', '5000', 'positions']); // prettier-ignore
    refuses('nothing to evaluate on', 'USAGE', () => ({ dataset: undefined }), ['--dataset']);
    refuses('a base without its fine-tune', 'USAGE', () => ({ base: tiny('base') }), ['--tuned']);
    refuses('a reference without data', 'USAGE', () => ({ dataset: undefined, reference: tiny('base'), sample: { prompt: 'a', tokens: 1, temperature: 0 } }), [
      '--reference',
    ]);
    refuses('no data file', 'NOT_FOUND', () => ({ data: '/nowhere.jsonl' }), ['/nowhere.jsonl']);
    refuses('fewer tokens than a window', 'DATASET_SHORT', () => ({ data: `${ROWS}[0:1]`, seqlen: 400 }), ['400']);
    refuses('a row that is no JSON', 'DATASET_JSON', () => {
      const file = join(dir.path, 'rows.jsonl');
      writeFileSync(file, '{"question": "a", "answer": "b"}\n{"question": \n');
      return { data: file };
    }, ['line 2']); // prettier-ignore
    refuses('an empty file', 'DATASET_EMPTY', () => {
      const file = join(dir.path, 'empty.txt');
      writeFileSync(file, '');
      return { data: file };
    }, ['empty.txt']); // prettier-ignore
    refuses('questions without choices', 'DATASET_ROW', () => ({ dataset: undefined, choices: { spec: parseDatasetSpec(ROWS) } }), ['line 1', 'choices']);
    refuses('no tokenizer', 'TOKENIZER_MISSING', () => ({ checkpoint: copy('bare', (f) => rmSync(join(f, 'tokenizer.json'))) }), ['bare']);
    refuses('no config', 'NOT_FOUND', () => ({ checkpoint: copy('no-config', (f) => rmSync(join(f, 'config.json'))) }), ['config.json']);
    refuses('a config that is no JSON', 'MODEL_CONFIG', () => ({ checkpoint: copy('torn', (f) => writeFileSync(join(f, 'config.json'), '{"model_type"')) }), [
      'config.json',
    ]);
    refuses('a model that predicts no next token', 'MODEL_CONFIG', () => ({
      checkpoint: copy('other', (f) => edit(join(f, 'config.json'), (c) => ({ ...c, model_type: 'mamba' }))),
    }), ['model_type', 'mamba']); // prettier-ignore
    refuses('a config with more layers than there are tensors', 'TENSOR_MISSING', () => ({
      checkpoint: copy('deep', (f) => edit(join(f, 'config.json'), (c) => ({ ...c, num_hidden_layers: 5 }))),
    }), ['model.layers.4.']); // prettier-ignore
    refuses('a config of another width', 'SHAPE_MISMATCH', () => ({
      checkpoint: copy('wide', (f) => edit(join(f, 'config.json'), (c) => ({ ...c, intermediate_size: 1024 }))),
    }), ['mlp', '1024', '512']); // prettier-ignore
    refuses('a reference with another vocabulary', 'VOCABULARY_MISMATCH', () => ({
      reference: copy('larger', (f) => edit(join(f, 'config.json'), (c) => ({ ...c, vocab_size: 4096 }))),
    }), ['2048', '4096', 'larger']); // prettier-ignore
    refuses('a reference whose tokens are others', 'TOKENIZER_MISMATCH', () => ({
      reference: copy('foreign', (f) =>
        edit(join(f, 'tokenizer.json'), (t) => {
          const model = t['model'] as { vocab: Record<string, number>; merges: unknown[] };
          const [a, b] = [300, 301].map((id) => Object.keys(model.vocab).find((t) => model.vocab[t] === id)!) as [string, string];
          [model.vocab[a], model.vocab[b]] = [model.vocab[b]!, model.vocab[a]!];
          return t;
        }),
      ),
    }), ['foreign', 'token 300']); // prettier-ignore
    refuses('a tokenizer with more tokens than the embedding has rows', 'TOKEN_RANGE', () => ({
      checkpoint: copy('tokens', (f) =>
        edit(join(f, 'tokenizer.json'), (t) => ({
          ...t,
          added_tokens: [...(t['added_tokens'] as object[]), { id: 2100, content: 'car', single_word: false, lstrip: false, rstrip: false, normalized: false, special: false }],
        })),
      ),
    }), ['2100', '2048', 'another model']); // prettier-ignore
    refuses('weights that are not finite', 'LOGITS_NOT_FINITE', () => ({
      checkpoint: copy('nan', (f) => {
        const file = join(f, 'model.safetensors');
        const bytes = readFileSync(file);
        const header = Number(bytes.readBigUInt64LE(0));
        const { data_offsets: [at] } = (JSON.parse(bytes.toString('utf8', 8, 8 + header)) as Record<string, { data_offsets: number[] }>)['model.norm.weight']!; // prettier-ignore
        bytes.writeUInt16LE(0x7fc0, 8 + header + at!);
        writeFileSync(file, bytes);
      }),
    }), ['nan', 'token 1 of sequence 0']); // prettier-ignore

    it('windows longer than the positions: run with a warning, as the angles go on', async () => {
      const short = copy('short', (f) => edit(join(f, 'config.json'), (c) => ({ ...c, max_position_embeddings: 32 })));
      const events: ProgressEvent[] = [];
      const run = evaluate(await options({ checkpoint: short }));
      for (;;) {
        const step = await run.next();
        if (step.done === true) {
          same(step.value.report, golden.gptq.tuned);
          break;
        }
        events.push(step.value);
      }
      const warning = events.find((e) => e.type === 'warning');
      expect(warning?.message).to.contain('64 tokens').and.contain('32 positions');
    });
  });
});
