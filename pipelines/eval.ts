/** How good a model is: perplexity, divergence from a reference, what it keeps of a fine-tune, multiple choice, a sample of its text. */
import { join } from 'node:path';
import { PithError } from '../core/errors.js';
import type { Device } from '../core/device.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import type { DatasetSpec } from '../formats/dataset/dataset.js';
import type { RowTemplate } from '../formats/dataset/template.js';
import type { GenerateTask, ScoreResult } from '../workers/messages/model.js';
import { WorkerPool } from '../workers/pool.js';
import { choiceData, evalData, type ChoiceData, type EvalData, type EvalDataset, type Protocol } from './eval-data.js';
import { evalDetails, type EvalDetails } from './eval-details.js';
import { choiceFigures, divergence, perplexity, recoveredShare, unitPerplexity } from './eval-figures.js';
import type { ChoiceFigures, Divergence, Perplexity, UnitPerplexity } from './eval-figures.js';
import { compareEmbeddings, type EmbeddingFigures } from './eval-embeddings.js';
import { asDecoders, asEncoders, checkComparable, openModels, type EvalModel } from './eval-models.js';
import { passBytes, scorePass, shardCount, type ScorePass, type ScoreRun } from './eval-score.js';
import { resolveRunDevice, type RunOptions } from './run-options.js';
import { runJobs } from './schedule.js';

export interface EvalOptions extends RunOptions {
  readonly checkpoint: string;
  /** `seqlen`: the smaller of 2048 and the model's positions where absent. */
  readonly dataset?: Omit<EvalDataset, 'seqlen'> & { readonly seqlen?: number };
  readonly reference?: string;
  /** Both or none: the ends between which the model's perplexity is placed. */
  readonly base?: string;
  readonly tuned?: string;
  readonly choices?: { readonly spec: DatasetSpec; readonly template?: RowTemplate };
  readonly sample?: { readonly prompt: string; readonly tokens: number; readonly temperature: number };
  /** A folder for hidden states that memory has no room for. */
  readonly work: string;
  readonly batchTokens?: number;
}

type Placed = Perplexity & { readonly checkpoint: string };

export interface EvalReport extends Partial<Perplexity> {
  readonly checkpoint: string;
  readonly device: Device;
  readonly dataset?: string;
  readonly protocol?: Protocol;
  readonly seqlen?: number;
  readonly windows?: number;
  readonly documents?: number;
  readonly units?: UnitPerplexity;
  readonly reference?: string;
  readonly kld?: Divergence;
  readonly recovered?: { readonly share?: number; readonly base: Placed; readonly tuned: Placed };
  readonly choices?: ChoiceFigures & { readonly dataset: string };
  readonly sample?: { readonly prompt: string; readonly text: string; readonly tokens: number; readonly temperature: number };
  /** Of a text encoder, with `reference` and `dataset` and nothing else. */
  readonly embeddings?: EmbeddingFigures;
}

export interface EvalOutcome {
  readonly report: EvalReport;
  /** For a page; absent without a dataset. */
  readonly details?: EvalDetails;
}

const JOB = 'eval';
const SEQLEN = 2048;
const ROLES = ['model', 'reference', 'base', 'tuned'] as const;
type Role = (typeof ROLES)[number];

export async function* evaluate(o: EvalOptions): Pipeline<EvalOutcome> {
  const started = performance.now();
  checkOptions(o);
  const device = await resolveRunDevice(o.device);
  const { checkpoint: argument, reference, base, tuned } = o;
  await using opened = await openModels<Role>({ model: argument, ...defined({ reference, base, tuned }) });
  if (opened.models.model!.config.family === 'bert') {
    const report = yield* embeddings(o, asEncoders(opened.models), device);
    yield { type: 'job.done', job: JOB, ms: performance.now() - started };
    return { report };
  }
  const models = asDecoders(opened.models) as { model: EvalModel } & Partial<Record<Role, EvalModel>>;
  const { model } = models;
  for (const role of ROLES) if (models[role] !== undefined && models[role] !== model) await checkComparable(model, models[role]);
  const plan = await planPasses(o, models);
  for (const message of positionWarnings(plan, models)) yield { type: 'warning', job: JOB, code: 'POSITIONS', message };
  const passes = [...plan.passes.values(), ...(plan.choicePass === undefined ? [] : [plan.choicePass])];
  const totalBytes = passes.reduce((sum, p) => sum + passBytes(p, o, device), 0);
  const threads = Math.max(1, ...passes.map((p) => shardCount(p, o, device)));
  await using pool = new WorkerPool({ threads });
  const run = { ...o, job: JOB, pool, resolved: device, spool: join(o.work, 'hidden'), totalBytes };
  yield { type: 'job.start', job: JOB, totalBytes, tasks: passes.length, resumedBytes: 0 };
  const results = yield* runPasses(passes, run);
  const report: EvalReport = {
    checkpoint: argument,
    device,
    ...(plan.data === undefined ? {} : dataFigures(o, plan, models, results)),
    ...(plan.choicePass === undefined ? {} : { choices: choices(o, plan.choices!, results.get(plan.choicePass)!) }),
    ...(o.sample === undefined ? {} : { sample: yield* sample(o, o.sample, model, pool, device) }),
  };
  yield { type: 'job.done', job: JOB, ms: performance.now() - started };
  const own = plan.passes.get(model);
  return own === undefined ? { report } : { report, details: evalDetails(own, results.get(own)!, await model.tokenizer()) };
}

function checkOptions(o: EvalOptions): void {
  const usage = (message: string): never => {
    throw new PithError('USAGE', { message });
  };
  if (o.dataset === undefined && o.choices === undefined && o.sample === undefined)
    usage('give --dataset, --choices or --sample: there is nothing to evaluate on');
  if ((o.base === undefined) !== (o.tuned === undefined)) usage('--base and --tuned belong together: the share is counted from one to the other');
  if (o.dataset !== undefined) return;
  for (const name of ['reference', 'base'] as const) if (o[name] !== undefined) usage(`--${name} needs --dataset`);
}

interface Plan {
  readonly data: EvalData | undefined;
  readonly seqlen: number;
  /** By the model whose figures it gives; base and tuned may be the model or its reference. */
  readonly passes: ReadonlyMap<EvalModel, ScorePass>;
  readonly choices: ChoiceData | undefined;
  readonly choicePass: ScorePass | undefined;
}

async function planPasses(o: EvalOptions, models: { model: EvalModel } & Partial<Record<Role, EvalModel>>): Promise<Plan> {
  const { model, reference } = models;
  const seqlen = o.dataset?.seqlen ?? Math.min(SEQLEN, model.config.maxPositions);
  const tokenizer = await model.tokenizer();
  const data = o.dataset === undefined ? undefined : evalData({ ...o.dataset, seqlen }, tokenizer);
  const passes = new Map<EvalModel, ScorePass>();
  if (data !== undefined) {
    const { sequences, from } = data;
    passes.set(model, { model, sequences, from, ...(reference === undefined ? {} : { reference }) });
    for (const other of [models.base, models.tuned]) {
      if (other !== undefined && other !== reference && !passes.has(other)) passes.set(other, { model: other, sequences, from });
    }
  }
  const asked = o.choices === undefined ? undefined : choiceData(o.choices.spec, o.choices.template, tokenizer, model.config.maxPositions);
  return { data, seqlen, passes, choices: asked, choicePass: asked && { model, sequences: asked.sequences, from: asked.from } };
}

/** Longer windows than the model has positions: refused where these are rows of a table, as transformers would fail; else run, as there. */
function positionWarnings({ data, seqlen }: Plan, models: Partial<Record<Role, EvalModel>>): string[] {
  if (data === undefined) return [];
  return [...new Set(Object.values(models))].flatMap(({ argument, config }) => {
    if (seqlen <= config.maxPositions) return [];
    const text = `${argument} has ${config.maxPositions} positions`;
    if (config.family !== 'llama') throw new PithError('USAGE', { message: `--seqlen ${seqlen}: ${text}, each a row of a table; give fewer` });
    return [`windows of ${seqlen} tokens are longer than what the model was made for: ${text}`];
  });
}

async function* runPasses(passes: readonly ScorePass[], run: Omit<ScoreRun, 'doneBytes'>): AsyncGenerator<ProgressEvent, Map<ScorePass, ScoreResult>, void> {
  const results = new Map<ScorePass, ScoreResult>();
  let doneBytes = 0;
  for (const pass of passes) {
    results.set(pass, yield* scorePass(pass, { ...run, doneBytes }));
    doneBytes += passBytes(pass, run, run.resolved);
  }
  return results;
}

function dataFigures(
  o: EvalOptions,
  { data, seqlen, passes }: Plan,
  models: { model: EvalModel } & Partial<Record<Role, EvalModel>>,
  results: ReadonlyMap<ScorePass, ScoreResult>,
): Partial<EvalReport> {
  const { model, reference, base, tuned } = models;
  const own = results.get(passes.get(model)!)!;
  const placed = (m: EvalModel): Placed => {
    const nll = m === reference ? own.reference!.nll : results.get(passes.get(m)!)!.nll;
    return { checkpoint: m.argument, ...perplexity(nll) };
  };
  const figures = perplexity(own.nll);
  const kld = divergence(own);
  const { spec, protocol } = o.dataset!;
  return {
    dataset: spec.file,
    protocol,
    seqlen,
    windows: data!.sequences.length,
    ...(protocol === 'lm-eval' ? { documents: data!.documents } : {}),
    ...figures,
    ...(data!.units === undefined ? {} : { units: unitPerplexity(own.nll, data!.units) }),
    ...(reference === undefined ? {} : { reference: reference.argument }),
    ...(kld === undefined ? {} : { kld }),
    ...(base === undefined || tuned === undefined ? {} : { recovered: recovered(figures.ppl, placed(base), placed(tuned)) }),
  };
}

function recovered(ppl: number, base: Placed, tuned: Placed): NonNullable<EvalReport['recovered']> {
  const share = recoveredShare(ppl, base.ppl, tuned.ppl);
  return { ...(share === undefined ? {} : { share }), base, tuned };
}

function choices(o: EvalOptions, { questions, sequences, from }: ChoiceData, { nll }: ScoreResult): ChoiceFigures & { dataset: string } {
  const sums: number[] = [];
  let at = 0;
  sequences.forEach((ids, s) => {
    let sum = 0;
    for (let i = from[s]!; i < ids.length; i++) sum -= nll[at++]!;
    sums.push(sum);
  });
  const scores = questions.map(({ first, ...q }) => ({ ...q, logLikelihoods: q.bytes.map((_, c) => sums[first + c]!) }));
  return { dataset: o.choices!.spec.file, ...choiceFigures(scores) };
}

async function* sample(
  o: EvalOptions,
  { prompt, tokens, temperature }: NonNullable<EvalOptions['sample']>,
  model: EvalModel,
  pool: WorkerPool,
  device: Device,
): AsyncGenerator<ProgressEvent, NonNullable<EvalReport['sample']>, void> {
  const tokenizer = await model.tokenizer();
  const encoded = tokenizer.encode(prompt);
  const ids = encoded.length > 0 ? encoded : Int32Array.of(tokenizer.special.bos ?? tokenizer.required('eos'));
  const { maxPositions, family } = model.config;
  if (family !== 'llama' && ids.length + tokens > maxPositions)
    throw new PithError('USAGE', { message: `--sample: ${ids.length} tokens and ${tokens} more; the model has ${maxPositions} positions` });
  const settings = { seed: o.seed, device, blasThreads: o.threads, memoryBytes: o.maxMemoryBytes };
  const task: GenerateTask = { type: 'generate', settings, model: model.ref, ids, tokens, temperature, stop: tokenizer.eosIds };
  let out: Int32Array = new Int32Array(0);
  let kept = '';
  const job = { task, bytes: tokens, memoryBytes: o.maxMemoryBytes, label: 'sample' };
  yield { type: 'phase', job: JOB, phase: 'sample' };
  yield* runJobs([job], { job: 'sample', pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes: tokens }, (_, r) => {
    out = r.ids;
    kept = r.kept;
    return undefined;
  });
  if (kept === 'nothing')
    yield { type: 'warning', job: JOB, code: 'MEMORY', message: 'the weights do not fit in --max-memory: they were read again for every token of the sample' };
  return { prompt, text: tokenizer.decode(out, { skipSpecial: true }), tokens: out.length, temperature };
}

/** Of a text encoder: only how near its vectors are to the reference's. */
async function* embeddings(
  o: EvalOptions,
  { model, reference }: ReturnType<typeof asEncoders<Role>>,
  device: Device,
): AsyncGenerator<ProgressEvent, EvalReport, void> {
  const { dataset, base, choices: questions, sample: text } = o;
  const usage = (message: string): PithError => new PithError('USAGE', { message: `${o.checkpoint} is a text encoder: ${message}` });
  for (const [flag, value] of Object.entries({ base, choices: questions, sample: text })) {
    if (value !== undefined) throw usage(`--${flag} is for decoders`);
  }
  if (dataset === undefined || reference === undefined) throw usage('give --dataset and --reference, whose vectors its own are compared with');
  const { spec, template, seqlen, maxTokens } = dataset;
  const run = { ...o, job: JOB, resolved: device, makePool: (threads: number) => new WorkerPool({ threads }) };
  const figures = yield* compareEmbeddings({ model: model!, reference }, { spec, ...defined({ template, seqlen, maxTokens }) }, run);
  return { checkpoint: o.checkpoint, device, dataset: spec.file, reference: reference.argument, embeddings: figures };
}

const defined = <T extends object>(o: T): { [K in keyof T]?: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined)) as never;
