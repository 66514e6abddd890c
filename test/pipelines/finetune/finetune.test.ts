/** Fine-tuning of the tiny model: the loss falls, runs that stop go on to the same bytes, packing and masks change nothing, bad input is named. */
import { expect } from 'chai';
import { readFileSync, writeFileSync, existsSync, mkdirSync, cpSync } from 'node:fs';
import { join } from 'node:path';
import type { Pipeline } from '../../../core/events.js';
import { PithError } from '../../../core/errors.js';
import { Adapter } from '../../../formats/adapter/adapter.js';
import { finetune, type FinetuneOptions, type FinetuneReport } from '../../../pipelines/finetune/finetune.js';
import { shuffled, stepWindows } from '../../../pipelines/finetune/data.js';
import { selectTargets } from '../../../pipelines/finetune/targets.js';
import { adapterLint } from '../../../pipelines/adapter-lint.js';
import { deltaVerify } from '../../../pipelines/delta-verify.js';
import { Rng } from '../../../core/rng.js';
import { openAny } from '../../../workers/open.js';
import { expectCode } from '../../support/expect-error.js';
import { hashTree, tempDir, TINY } from '../../support/files.js';

const BASE = join(TINY, 'base');
const RUN = { threads: 2, maxMemoryBytes: 1e9, seed: 7, device: 'cpu' as const };

async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}

describe('pipelines: finetune', () => {
  const dir = tempDir();
  const at = (name: string): string => join(dir.path, name);
  after(() => dir[Symbol.dispose]());

  before(() => {
    const rows = Array.from({ length: 24 }, (_, i) => ({ prompt: `Number ${i} and one more is`, completion: ` ${i + 1}, which comes after ${i}.` }));
    writeFileSync(at('data.jsonl'), rows.map((r) => JSON.stringify(r)).join('\n'));
  });

  const options = (out: string, change: Partial<FinetuneOptions> = {}): FinetuneOptions => ({
    ...RUN,
    signal: new AbortController().signal,
    checkpoint: BASE,
    out: at(out),
    data: { spec: { file: at('data.jsonl') }, packing: false, trainOnInputs: false, validation: 0, batchSize: 4, accumulation: 1 },
    seqlen: 64,
    method: { name: 'lora', params: { rank: 4 } },
    recipe: { name: 'sft', params: {} },
    targets: undefined,
    steps: 6,
    epochs: 1,
    schedule: { name: 'constant', rate: 1e-2, least: 0 },
    warmup: 0,
    optimizer: { name: 'adamw', weightDecay: 0 },
    clip: 1,
    saveEvery: 2,
    evalEvery: 0,
    patience: 0,
    evaluate: false,
    prompt: undefined,
    save: ['adapter'],
    force: false,
    resume: true,
    ...change,
  });
  const run = (out: string, change: Partial<FinetuneOptions> = {}): Promise<FinetuneReport> => drain(finetune(options(out, change)));
  const data = (change: Partial<FinetuneOptions['data']>): FinetuneOptions['data'] => ({ ...options('').data, ...change });

  it("LoRA: the loss falls; the folder is peft's, lint is content, and the base with it has the run's loss", async () => {
    const r = await run('lora', { steps: 20, evaluate: true });
    expect(r.valLoss!).to.be.lessThan(0.6 * r.baseLoss!);
    using adapter = Adapter.open(at('lora'));
    expect(adapter.modules.size).to.equal(28);
    expect(
      (await drain(adapterLint({ ...RUN, signal: new AbortController().signal, adapter: at('lora'), target: 'peft', base: BASE, force: false, dryRun: false })))
        .ok,
    ).to.equal(true);
    const lines = readFileSync(at('lora/metrics.jsonl'), 'utf8').trim().split('\n');
    expect(lines).to.have.length(21);
    const composed = await run('again', { checkpoint: `${BASE}+${at('lora')}`, steps: 1, evaluate: true, save: ['model'] });
    expect(composed.baseLoss!).to.be.closeTo(r.valLoss!, 1e-4);
  });

  for (const [name, params, rate] of [
    ['dora', { rank: 4 }, 1e-2],
    ['ia3', {}, 0.1],
    ['rslora', { rank: 4 }, 1e-2],
    ['lora-plus', { rank: 4 }, 1e-3],
    ['bitfit', { create: true }, 0.1],
  ] as const) {
    // prettier-ignore
    it(`${name}: the loss falls`, async () => {
      const r = await run(name, { steps: 12, method: { name, params }, schedule: { name: 'constant', rate, least: 0 }, evaluate: true });
      expect(r.valLoss!).to.be.lessThan(0.95 * r.baseLoss!);
      const config = JSON.parse(readFileSync(at(`${name}/adapter_config.json`), 'utf8')) as Record<string, unknown>;
      expect(config['target_modules']).to.include.members((config['feedforward_modules'] as string[] | undefined) ?? []);
    });
  }

  it('full: a model and its delta, which verifies; the adapter that it does not have is refused', async () => {
    const schedule = { name: 'constant', rate: 1e-3, least: 0 } as const;
    const r = await run('full', { steps: 4, method: { name: 'full', params: {} }, schedule, save: ['delta', 'model'], evaluate: true });
    expect(r.valLoss!).to.be.lessThan(r.baseLoss!);
    const verified = await drain(
      deltaVerify({ ...RUN, signal: new AbortController().signal, base: BASE, delta: at('full/delta.safetensors'), tuned: at('full/model') }),
    );
    expect(verified.ok).to.equal(true);
    await expectCode('USAGE', () => run('none', { method: { name: 'full', params: {} } }));
  });

  it('a run that is stopped at any step goes on to the same bytes', async () => {
    const change = { method: { name: 'lora', params: { rank: 4, dropout: 0.2 } } };
    await run('whole', change);
    for (const stop of [1, 3, 5]) {
      const abort = new AbortController();
      const out = `stopped-${stop}`;
      const pipeline = finetune({ ...options(out, change), signal: abort.signal });
      const error = await (async () => {
        for await (const event of { [Symbol.asyncIterator]: () => pipeline }) if (event.type === 'train.step' && event.step === stop) abort.abort();
      })().catch((e: unknown) => e as PithError);
      expect(error).to.include({ code: 'CANCELLED' });
      expect(existsSync(at(out))).to.equal(false);
      await run(out, change);
      expect(hashTree(at(out))).to.deep.equal(hashTree(at('whole')));
    }
  });

  it('accumulation: one pass of eight sequences is two of four', async () => {
    const one = await run('one', { steps: 1, data: data({ batchSize: 8 }) });
    const two = await run('two', { steps: 1, data: data({ batchSize: 4, accumulation: 2 }) });
    expect(two.loss).to.be.closeTo(one.loss, 1e-5);
    expect(two.metrics[0]!.gradNorm!).to.be.closeTo(one.metrics[0]!.gradNorm!, 1e-4);
  });

  it('packed rows have the loss and gradient of the same rows apart', async () => {
    const apart = await run('apart', { steps: 1, data: data({ batchSize: 24 }) });
    const packed = await run('packed', { steps: 1, seqlen: 512, data: data({ batchSize: 1, accumulation: 2, packing: true }) });
    const windows = packed.windows;
    const all = windows === 2 ? packed : await run('packed-all', { steps: 1, seqlen: 512, data: data({ batchSize: windows, packing: true }) });
    expect(all.metrics[0]!.tokens).to.equal(apart.metrics[0]!.tokens);
    expect(all.loss).to.be.closeTo(apart.loss, 1e-5);
    expect(all.metrics[0]!.gradNorm!).to.be.closeTo(apart.metrics[0]!.gradNorm!, 1e-4 * apart.metrics[0]!.gradNorm!);
  });

  it('prompts are not learnt unless asked for; weights of rows count', async () => {
    const some = await run('masked', { steps: 1, data: data({ batchSize: 24 }) });
    const all = await run('unmasked', { steps: 1, data: data({ batchSize: 24, trainOnInputs: true }) });
    expect(all.metrics[0]!.tokens!).to.be.greaterThan(some.metrics[0]!.tokens!);
    writeFileSync(at('weighted.jsonl'), readFileSync(at('data.jsonl'), 'utf8').replaceAll('"prompt"', '"weight":0.5,"prompt"'));
    const half = await run('weighted', { steps: 1, data: data({ spec: { file: at('weighted.jsonl') }, batchSize: 24 }) });
    expect(half.loss).to.be.closeTo(some.loss / 2, 1e-5);
  });

  it('ends early when the validation loss no longer falls, with the best state', async () => {
    const schedule = { name: 'constant', rate: 0.5, least: 0 } as const;
    const r = await run('early', { steps: 40, schedule, evalEvery: 1, patience: 2, data: data({ validation: 4 }) });
    expect(r.stoppedEarly).to.equal(true);
    expect(r.steps).to.be.lessThan(40);
  });

  it('a loss that is not finite stops with step and rows, and keeps the state before it', async () => {
    const broken = at('broken');
    mkdirSync(broken);
    cpSync(BASE, broken, { recursive: true });
    await using reader = await openAny(BASE);
    const info = reader.infos.get('model.norm.weight')!;
    const file = readFileSync(join(broken, 'model.safetensors'));
    const header = Number(file.readBigUInt64LE(0));
    const offsets = (JSON.parse(file.subarray(8, 8 + header).toString()) as Record<string, { data_offsets: [number, number] }>)[info.name]!.data_offsets;
    file.fill(0xff, 8 + header + offsets[0], 8 + header + offsets[1]);
    writeFileSync(join(broken, 'model.safetensors'), file);
    const error = await run('nan', { checkpoint: broken }).then(() => undefined, (e: unknown) => e as PithError); // prettier-ignore
    expect(error?.code).to.equal('TRAINING_NOT_FINITE');
    expect(error?.message).to.match(/step 1: .* line \d+/);
    expect(existsSync(at('nan'))).to.equal(false);
    expect(existsSync(at('nan.pith-partial'))).to.equal(true);
  });

  it('names what is wrong before it works, and leaves nothing', async () => {
    await expectCode('SEQLEN', () => run('bad', { seqlen: 1 << 20 }));
    await expectCode('USAGE', () => run('bad', { targets: ['q_prj'] }));
    await expectCode('USAGE', () => run('bad', { method: { name: 'bitfit', params: {} } }));
    await expectCode('UNKNOWN_METHOD', () => run('bad', { method: { name: 'lroa', params: {} } }));
    await expectCode('BAD_PARAMS', () => run('bad', { method: { name: 'lora', params: { rank: 0 } } }));
    await expectCode('NOT_FOUND', () => run('bad', { data: data({ spec: { file: at('none.jsonl') } }) }));
    writeFileSync(at('weights.jsonl'), JSON.stringify({ prompt: 'a', completion: 'b', token_weights: [1, 2, 3, 4, 5, 6, 7, 8, 9] }));
    await expectCode('DATASET_ROW', () => run('bad', { data: data({ spec: { file: at('weights.jsonl') } }) }));
    expect(existsSync(at('bad'))).to.equal(false);
    expect(existsSync(at('bad.pith-partial'))).to.equal(false);
  });
});

describe('pipelines: finetune, order and targets', () => {
  it('every epoch takes every window once, in another order', () => {
    const steps = [1, 2, 3, 4, 5].flatMap((s) => stepWindows(s, 10, 4, 3));
    expect([...steps.slice(0, 10)].sort((a, b) => a - b)).to.deep.equal([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect([...steps.slice(10)].sort((a, b) => a - b)).to.deep.equal([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(steps.slice(0, 10)).not.to.deep.equal(steps.slice(10));
    expect(shuffled(50, new Rng(1))).not.to.deep.equal(shuffled(50, new Rng(2)));
  });

  it('names, expressions, all', () => {
    const modules = ['m.0.q_proj', 'm.0.v_proj', 'm.1.q_proj'];
    expect(selectTargets('all-linear', modules, 'f')).to.deep.equal(modules);
    expect(selectTargets(['q_proj'], modules, 'f')).to.deep.equal(['m.0.q_proj', 'm.1.q_proj']);
    expect(selectTargets('m\\.0\\..*', modules, 'f')).to.deep.equal(['m.0.q_proj', 'm.0.v_proj']);
    expect(() => selectTargets('(', modules, 'f')).to.throw(PithError, 'not a regular expression');
    expect(() => selectTargets(['k_proj'], modules, 'f')).to.throw(PithError, 'did you mean');
  });
});
