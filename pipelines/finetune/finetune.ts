/**
 * `pith finetune`: a checkpoint trained on a text, its adapter, delta or model written whole. A run that was stopped goes on from its last saved
 * state to the same bytes: the order of the data, dropout and schedule follow from the seed and the step alone.
 */
import { join } from 'node:path';
import { PithError } from '../../core/errors.js';
import type { Pipeline, ProgressEvent, StepMetrics } from '../../core/events.js';
import { pithVersion } from '../../core/version.js';
import * as io from '../../formats/io.js';
import { OPTIMIZER_DEFAULTS, type OptimizerSettings } from '../../kernels/optim/optimizers.js';
import { rateAt, type Schedule } from '../../kernels/optim/schedules.js';
import { loadMethod } from '../../methods/index.js';
import type { Tokenizer } from '../../models/tokenizer/tokenizer.js';
import { readModelConfig } from '../../workers/adapted-reader.js';
import { loadTokenizer } from '../../workers/load-tokenizer.js';
import type { MethodRef, ModelRef, RunSettings, Written } from '../../workers/messages/refs.js';
import type { TrainBatch, TrainStepResult } from '../../workers/messages/train.js';
import { checkpointName, openAny } from '../../workers/open.js';
import { WorkerPool } from '../../workers/pool.js';
import { readWritten } from '../../workers/written.js';
import { taskType } from '../adapter-card.js';
import { hashTokens } from '../calibrate-plan.js';
import { Journal, takeName } from '../journal.js';
import { modelRef } from '../model-ref.js';
import { checkOutput, RESULT } from '../publish.js';
import { resolveRunDevice, runSettings, type RunOptions } from '../run-options.js';
import { finetuneWindows, stepWindows, toBatch, type FinetuneData, type Windows } from './data.js';
import { saveOutputs, type SaveKind } from './save.js';
import { selectTargets } from './targets.js';

export interface FinetuneOptions extends RunOptions {
  readonly checkpoint: string;
  readonly out: string;
  readonly data: Omit<FinetuneData, 'seed' | 'seqlen'>;
  /** Tokens of a window; the model's positions up to a usual number by default. */
  readonly seqlen: number | undefined;
  readonly method: MethodRef;
  readonly recipe: MethodRef;
  /** The method's own by default. */
  readonly targets: string | readonly string[] | undefined;
  /** Steps, or epochs where they are not given. */
  readonly steps: number | undefined;
  readonly epochs: number;
  readonly schedule: Omit<Schedule, 'steps' | 'warmup'>;
  /** Steps, or a share of all below 1. */
  readonly warmup: number;
  readonly optimizer: Pick<OptimizerSettings, 'name' | 'weightDecay'> & Partial<OptimizerSettings>;
  readonly clip: number;
  readonly saveEvery: number;
  readonly evalEvery: number;
  /** Evaluations without a better loss before the run ends; 0: never. */
  readonly patience: number;
  /** Loss of the base beside the result's. */
  readonly evaluate: boolean;
  /** A text to continue at the end. */
  readonly prompt: string | undefined;
  readonly save: readonly SaveKind[];
  readonly force: boolean;
  readonly resume: boolean;
}

export interface FinetuneReport {
  readonly out: string;
  readonly method: string;
  readonly steps: number;
  readonly trainable: number;
  readonly modules: number;
  /** Of the last step, nats. */
  readonly loss: number;
  readonly valLoss?: number;
  /** Loss of the checkpoint as it was, on the validation rows (on the first windows where there are none). */
  readonly baseLoss?: number;
  readonly tokensPerSecond: number;
  readonly windows: number;
  readonly cut: number;
  readonly dropped: number;
  readonly stoppedEarly: boolean;
  readonly sample?: string;
  readonly saved: readonly string[];
  readonly device: string;
  readonly metrics: readonly StepMetrics[];
}

export const FINETUNE_JOB = 'finetune';
/** Windows that are evaluated where no rows are kept for validation. */
const EVAL_WINDOWS = 16;
const USUAL_SEQLEN = 2048;

/** What a state of the journal says beside its file. */
interface Saved extends Written {
  readonly step: number;
  readonly metrics: readonly StepMetrics[];
  readonly best?: { readonly loss: number; readonly step: number };
  readonly ended?: true;
}

interface Run {
  readonly o: FinetuneOptions;
  readonly pool: WorkerPool;
  readonly journal: Journal<Saved>;
  readonly windows: Windows;
  readonly steps: number;
  readonly schedule: Schedule;
}

export async function* finetune(o: FinetuneOptions): Pipeline<FinetuneReport> {
  const started = performance.now();
  checkOutput(o.out, o.force);
  await using reader = await openAny(o.checkpoint);
  const device = await resolveRunDevice(o.device);
  const settings: RunSettings = { ...runSettings(o, device), blasThreads: o.threads, memoryBytes: o.maxMemoryBytes };
  const adapter = (await loadMethod('adapter', o.method.name)).create(o.method.params);
  (await loadMethod('recipe', o.recipe.name)).create(o.recipe.params);
  if (o.save.includes('adapter') && o.method.name === 'full')
    throw new PithError('USAGE', { message: '--save adapter: full fine-tuning has none; save a delta or a model' });
  const tokenizer = await loadTokenizer(reader);
  await using pool = new WorkerPool({ threads: 1 });
  o.signal.addEventListener('abort', () => pool.cancel(), { once: true });
  const model = await modelRef(o.checkpoint, reader);
  const shape = await pool.run({ type: 'model-shape', settings, model });
  const seqlen = o.seqlen ?? Math.min(USUAL_SEQLEN, shape.maxPositions);
  if (seqlen > shape.maxPositions) throw new PithError('SEQLEN', { file: o.checkpoint, expected: shape.maxPositions, got: seqlen });
  const linears = shape.blocks.flatMap((b) => b.linears.map((l) => l.module));
  const targets = selectTargets(o.targets ?? adapter.targets, linears, o.checkpoint);
  const windows = finetuneWindows({ ...o.data, seqlen, seed: o.seed }, tokenizer);
  const perStep = o.data.batchSize * o.data.accumulation;
  const steps = o.steps ?? Math.max(1, Math.ceil((o.epochs * windows.train.length) / perStep));
  const warmup = o.warmup < 1 ? Math.round(o.warmup * steps) : o.warmup;
  const schedule: Schedule = { ...o.schedule, steps, warmup };
  const optimizer: OptimizerSettings = { ...OPTIMIZER_DEFAULTS[o.optimizer.name], ...o.optimizer };
  const journal = Journal.open<Saved>(o.out, identityOf(o, { model, device, targets, windows, schedule, optimizer }), { resume: o.resume });
  try {
    const from = lastState(journal);
    const start = from === undefined ? {} : { start: journal.spool(stateFile(from.step)) };
    const opened = await pool.run({ type: 'train-open', settings, model, method: o.method, recipe: o.recipe, targets, optimizer, steps, ...start });
    if (opened.modules.length === 0)
      throw new PithError('USAGE', { message: `${o.checkpoint}: method "${o.method.name}" finds nothing to train in the ${targets.length} target layers` });
    const r: Run = { o, pool, journal, windows, steps, schedule };
    const done = yield* trainAll(r, from);
    const report = { ...done, method: o.method.name, trainable: opened.trainable, modules: opened.modules.length, windows: windows.train.length, device };
    const sample = o.prompt === undefined ? {} : { sample: await continued(pool, tokenizer, o.prompt) };
    const saved = yield* saveOutputs({
      o,
      pool,
      reader,
      journal,
      modules: opened.modules,
      config: await readModelConfig(reader),
      base: checkpointName(o.checkpoint),
      taskType: taskType(await readModelConfig(reader)),
      linears,
    });
    writeMetrics(join(journal.spool(RESULT), 'metrics.jsonl'), done.metrics);
    journal.publishing();
    takeName(journal.spool(RESULT), o.out, o);
    journal.remove();
    yield { type: 'job.done', job: FINETUNE_JOB, ms: performance.now() - started };
    return { out: o.out, ...report, cut: windows.cut, dropped: windows.dropped, saved, ...sample };
  } catch (error) {
    // without a state there is nothing to go on from
    if (io.readdir(journal.spool('')).some((e) => e.name.startsWith(STATE))) journal.close();
    else journal.discard();
    throw error;
  }
}

interface Decided {
  readonly model: ModelRef;
  readonly device: string;
  readonly targets: readonly string[];
  readonly windows: Windows;
  readonly schedule: Schedule;
  readonly optimizer: OptimizerSettings;
}

/** Everything that decides the bytes. */
function identityOf(o: FinetuneOptions, { model, device, targets, windows, schedule, optimizer }: Decided): object {
  const tokens = hashTokens([...windows.train, ...windows.validation].flatMap((w) => [w.inputs, w.targets]));
  const { method, recipe, clip, seed, evalEvery, patience, save, threads } = o;
  const { batchSize, accumulation } = o.data;
  return {
    command: FINETUNE_JOB,
    version: pithVersion(),
    device,
    model,
    targets,
    tokens,
    schedule,
    optimizer,
    method,
    recipe,
    clip,
    seed,
    evalEvery,
    patience,
    save,
    threads,
    batchSize,
    accumulation,
  };
}

const STATE = 'state-';
const stateFile = (step: number): string => `${STATE}${step}`;

/** The newest state whose file is whole. */
function lastState(journal: Journal<Saved>): Saved | undefined {
  const states = [...journal.done.values()].sort((a, b) => b.step - a.step);
  return states.find((s) => readWritten({ file: journal.spool(stateFile(s.step)), position: 0 }, s.bytes)?.crc32 === s.crc32);
}

type Trained = Pick<FinetuneReport, 'steps' | 'loss' | 'valLoss' | 'baseLoss' | 'tokensPerSecond' | 'stoppedEarly' | 'metrics'>;

async function* trainAll(r: Run, from: Saved | undefined): AsyncGenerator<ProgressEvent, Trained, void> {
  const { o, pool, journal, steps } = r;
  const metrics: StepMetrics[] = [...(from?.metrics ?? [])];
  const validation = evalBatches(r);
  let best = from?.best;
  let ended = from?.ended === true;
  yield { type: 'job.start', job: FINETUNE_JOB, totalBytes: steps, tasks: steps, resumedBytes: from?.step ?? 0 };
  if (from === undefined && o.evaluate) metrics.push({ step: 0, valLoss: (await pool.run({ type: 'train-eval', batches: validation })).loss });
  const started = performance.now();
  let tokens = 0;
  let step = from?.step ?? 0;
  const save = async (): Promise<void> => {
    const written = await pool.run({ type: 'train-state', file: journal.spool(stateFile(step)) });
    journal.append(`step ${step}`, { ...written, step, metrics, ...(best === undefined ? {} : { best }), ...(ended ? { ended } : {}) });
    for (const s of io.readdir(journal.spool(''))) {
      const old = Number(/^state-(\d+)$/.exec(s.name)?.[1] ?? step);
      if (old !== step && old !== best?.step) io.remove(journal.spool(s.name));
    }
  };
  while (step < steps && !ended) {
    if (o.signal.aborted) throw new PithError('CANCELLED');
    const result = await oneStep(r, step + 1, save);
    step++;
    tokens += result.tokens;
    const evaluated = o.evalEvery > 0 && (step % o.evalEvery === 0 || step === steps) ? await pool.run({ type: 'train-eval', batches: validation }) : undefined;
    const { loss, gradNorm, tokens: own } = result;
    metrics.push({ step, loss, lr: rateAt(r.schedule, step), gradNorm, tokens: own, ...(evaluated === undefined ? {} : { valLoss: evaluated.loss }) });
    if (evaluated !== undefined && (best === undefined || evaluated.loss < best.loss)) best = { loss: evaluated.loss, step };
    ended = o.patience > 0 && best !== undefined && evaluated !== undefined && step - best.step >= o.patience * o.evalEvery;
    const isBest = o.patience > 0 && best?.step === step && evaluated !== undefined;
    if (ended || isBest || (o.saveEvery > 0 && step % o.saveEvery === 0) || step === steps) await save();
    yield { type: 'train.step', job: FINETUNE_JOB, ...metrics.at(-1)!, tokensPerSecond: (1000 * tokens) / (performance.now() - started) };
    yield { type: 'progress', job: FINETUNE_JOB, doneBytes: step, totalBytes: steps, label: `loss ${loss.toFixed(4)}` };
  }
  const tokensPerSecond = (1000 * tokens) / Math.max(1, performance.now() - started);
  if (ended && best !== undefined && best.step !== step) await pool.run({ type: 'train-state', file: journal.spool(stateFile(best.step)), load: true });
  const last = o.evaluate ? (await pool.run({ type: 'train-eval', batches: validation })).loss : metrics.findLast((m) => m.valLoss !== undefined)?.valLoss;
  const baseLoss = o.evaluate ? metrics.find((m) => m.step === 0)?.valLoss : undefined;
  return {
    steps: step,
    loss: metrics.findLast((m) => m.loss !== undefined)?.loss ?? NaN,
    ...(last === undefined ? {} : { valLoss: last }),
    ...(baseLoss === undefined ? {} : { baseLoss }),
    tokensPerSecond,
    stoppedEarly: ended,
    metrics,
  };
}

/** TRAINING_NOT_FINITE (65) says which rows; the state before the step is kept. */
async function oneStep({ o, pool, windows, schedule }: Run, step: number, save: () => Promise<void>): Promise<TrainStepResult> {
  const { batchSize, accumulation } = o.data;
  const chosen = stepWindows(step, windows.train.length, batchSize * accumulation, o.seed).map((i) => windows.train[i]!);
  const groups = Array.from({ length: accumulation }, (_, i) => chosen.slice(i * batchSize, (i + 1) * batchSize));
  const batches = groups.map((g) => toBatch(g, windows.rows.train, windows.padId));
  const result = await pool.run({ type: 'train-step', batches, step, rate: rateAt(schedule, step), clip: o.clip });
  if (result.badBatch === undefined) return result;
  await save();
  const bad = result.badBatch < 0 ? chosen : groups[result.badBatch]!;
  const rows = [...new Set(bad.flatMap((w) => w.rows.map((i) => windows.rows.train[i]!.row.place)))];
  throw new PithError('TRAINING_NOT_FINITE', {
    file: o.data.spec.file,
    step,
    what: result.badBatch < 0 ? 'gradient' : 'loss',
    rows: rows.slice(0, 8).join(', '),
  });
}

/** The validation rows, or some windows of the training data. */
function evalBatches({ o, windows }: Run): TrainBatch[] {
  const { batchSize } = o.data;
  const [from, rows] =
    windows.validation.length > 0 ? [windows.validation, windows.rows.validation] : [windows.train.slice(0, EVAL_WINDOWS), windows.rows.train];
  const groups = Array.from({ length: Math.ceil(from.length / batchSize) }, (_, i) => from.slice(i * batchSize, (i + 1) * batchSize));
  return groups.map((g) => toBatch(g, rows, windows.padId));
}

const SAMPLE_TOKENS = 48;

async function continued(pool: WorkerPool, tokenizer: Tokenizer, prompt: string): Promise<string> {
  const ids = tokenizer.encode(prompt);
  if (ids.length === 0) return '';
  const stop = tokenizer.special.eos === undefined ? [] : [tokenizer.special.eos];
  return tokenizer.decode(await pool.run({ type: 'train-sample', ids, tokens: SAMPLE_TOKENS, stop }));
}

function writeMetrics(file: string, metrics: readonly StepMetrics[]): void {
  io.writeFileDurably(file, Buffer.from(metrics.map((m) => `${JSON.stringify(m)}\n`).join(''), 'utf8'));
}
