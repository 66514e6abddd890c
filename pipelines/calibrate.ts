/** `pith calibrate`: sequences through a model block by block; what the inputs and gradients of its linear layers were, as a statistics file. */
import { createHash } from 'node:crypto';
import { PithError } from '../core/errors.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { byteLength } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import { pithVersion } from '../core/version.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { INPUT_STATISTICS, statInfo, type FisherStatistic, type InputStatistic, type StatsManifest } from '../formats/stats/schema.js';
import { prepareStats } from '../formats/stats/write.js';
import type { InputGroup, LinearShape, ModelRef, ModelShapeResult, RunSettings } from '../workers/messages.js';
import { checkpointName, openAny } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import {
  blockGradientStep,
  blockStep,
  embedStep,
  GRADIENT_SHARE,
  headGradientStep,
  hiddenBytes,
  passBytes,
  passContext,
  runPass,
  shareMemory,
  tokenCount,
  type PassContext,
  type PassMemory,
  type StatsTarget,
} from './block-pass.js';
import type { CalibrationData } from './calibration-data.js';
import { hashCheckpoint } from './content-hash.js';
import { Journal, takeName } from './journal.js';
import { modelRef } from './model-ref.js';
import { checkOutput, requireSpace, RESULT } from './publish.js';
import { resolveRunDevice, runSettings, type RunOptions } from './run-options.js';
import type { Step, StepDone } from './steps.js';

export interface CalibrateOptions extends RunOptions {
  readonly checkpoint: string;
  readonly out: string;
  /** The sequences, once the checkpoint is open and its number of positions known. */
  readonly data: (reader: CheckpointReader, positions: number) => Promise<CalibrationData>;
  readonly statistics: readonly Exclude<InputStatistic, 'tokens'>[];
  readonly fisher: readonly FisherStatistic[];
  /** By the name of a weight. */
  readonly selects: (weight: string) => boolean;
  readonly force: boolean;
  readonly dryRun: boolean;
  readonly resume: boolean;
}

export interface CalibrateReport {
  readonly out: string;
  readonly bytes: number;
  readonly model: string;
  /** Content hash of the checkpoint; absent in a dry run. */
  readonly contentHash?: string;
  readonly nsamples: number;
  readonly seqlen: number;
  readonly tokens: number;
  readonly modules: number;
  /** Inputs that are stored: modules that are fed the same tensor share one. */
  readonly inputs: number;
  readonly statistics: readonly string[];
  /** Mean next-token loss, nats, where gradients were asked for. */
  readonly loss?: number;
  readonly device: string;
  readonly plan?: { readonly bytes: number; readonly spoolBytes: number; readonly peakBytes: number; readonly ms: number };
}

const JOB = 'calibrate';

/** What is known before any data is passed through the model. */
interface Plan {
  readonly model: ModelRef;
  readonly shape: ModelShapeResult;
  readonly data: CalibrationData;
  readonly longest: number;
  /** By block. */
  readonly groups: readonly (readonly InputGroup[])[];
  readonly modules: readonly (readonly LinearShape[])[];
  readonly statistics: readonly InputStatistic[];
  readonly alias: Readonly<Record<string, string>>;
  readonly tensors: readonly TensorInfo[];
}

export async function* calibrate(o: CalibrateOptions): Pipeline<CalibrateReport> {
  const started = performance.now();
  checkOutput(o.out, o.force);
  await using reader = await openAny(o.checkpoint);
  const device = await resolveRunDevice(o.device);
  // one stream of work: BLAS has all threads
  const settings: RunSettings = { ...runSettings(o, device), blasThreads: o.threads, memoryBytes: o.maxMemoryBytes };
  await using pool = new WorkerPool({ threads: 1 });
  const model = await modelRef(o.checkpoint, reader);
  const shape = await pool.run({ type: 'model-shape', settings, model });
  const plan = planOf(o, model, shape, await o.data(reader, shape.maxPositions));
  const request = { maxMemoryBytes: o.maxMemoryBytes, longest: plan.longest, groups: plan.groups, gram: o.statistics.includes('inputGram') };
  const memory = shareMemory(shape, { ...request, backward: o.fisher.length > 0, source: o.checkpoint });
  const predicted = predict(o, plan, memory, settings);
  if (o.dryRun) return { ...report(o, plan, device, 0), plan: predicted };
  requireSpace(o.out, predicted.bytes + predicted.spoolBytes);
  const journal = Journal.open<StepDone>(o.out, identityOf(o, plan, device), { resume: o.resume });
  try {
    const done = yield* run({ o, plan, memory, settings, pool, journal, reader });
    journal.publishing();
    takeName(journal.spool(RESULT), o.out, o);
    journal.remove();
    yield { type: 'job.done', job: JOB, ms: performance.now() - started };
    return { ...report(o, plan, device, done.bytes), contentHash: done.contentHash, ...(done.loss === undefined ? {} : { loss: done.loss }) };
  } catch (error) {
    journal.close();
    throw error;
  }
}

/** DATASET_EMPTY (66); SEQLEN (64) for sequences that the model has no positions for; USAGE when nothing is selected. */
function planOf(o: CalibrateOptions, model: ModelRef, shape: ModelShapeResult, data: CalibrationData): Plan {
  const longest = data.sequences.reduce((most, s) => Math.max(most, s.length), 0);
  if (longest === 0) throw new PithError('DATASET_EMPTY', { file: data.name, message: 'it gives no tokens' });
  if (longest > shape.maxPositions) throw new PithError('SEQLEN', { file: o.checkpoint, expected: shape.maxPositions, got: longest });
  const selected = (module: string): boolean => o.selects(`${module}.weight`);
  const modules = shape.blocks.map((b) => b.linears.filter((l) => selected(l.module)));
  if (modules.every((m) => m.length === 0)) {
    throw new PithError('USAGE', {
      message: `${o.checkpoint}: no linear layer of its blocks is selected; the names are as "${shape.blocks[0]?.linears[0]?.module ?? ''}.weight"`,
    });
  }
  const own = shape.blocks.map((b) => b.groups.map((g) => ({ ...g, modules: g.modules.filter(selected) })).filter((g) => g.modules.length > 0));
  const groups = o.statistics.length === 0 ? own.map(() => []) : own;
  const statistics = INPUT_STATISTICS.filter((s) => s === 'tokens' || o.statistics.includes(s));
  const alias = Object.fromEntries(groups.flat().flatMap(({ modules: [first, ...rest] }) => rest.map((m) => [m, first!])));
  const inputs = groups.flat().flatMap((g) => statistics.map((s) => statInfo(g.modules[0]!, s, { in: g.in, out: 0 })));
  const gradients = modules.flat().flatMap((m) => o.fisher.map((s) => statInfo(m.module, s, m)));
  return { model, shape, data, longest, groups, modules, statistics, alias, tensors: [...inputs, ...gradients] };
}

/** Everything that decides the bytes but for rounding: how memory was shared is kept in the journal. */
function identityOf(o: CalibrateOptions, plan: Plan, device: string): object {
  const { model, data, tensors, alias } = plan;
  const { name, sha256 } = data;
  return { command: JOB, version: pithVersion(), device, seed: o.seed, model, name, sha256, tokens: hashTokens(data.sequences), tensors, alias };
}

/** SHA-256 of the ids: int32, little-endian, one sequence after the other. */
function hashTokens(sequences: readonly Int32Array[]): string {
  const hash = createHash('sha256');
  for (const s of sequences) hash.update(new Uint8Array(s.buffer, s.byteOffset, s.byteLength));
  return hash.digest('hex');
}

interface Run {
  readonly o: CalibrateOptions;
  readonly plan: Plan;
  readonly memory: PassMemory;
  readonly settings: RunSettings;
  readonly pool: WorkerPool;
  readonly journal: Journal<StepDone>;
  readonly reader: CheckpointReader;
}

/** Key of what the journal keeps of the run itself. */
const SETUP = 'setup';

interface Setup {
  readonly contentHash: string;
  readonly memory: PassMemory;
}

async function* run(r: Run): AsyncGenerator<ProgressEvent, { bytes: number; contentHash: string; loss: number | undefined }, void> {
  const { o, plan, journal, pool } = r;
  const setup = (journal.done.get(SETUP)?.result as Setup | undefined) ?? (yield* firstSetup(r));
  const files = prepareStats(journal.spool(RESULT), manifestOf(o, plan, setup.contentHash), plan.tensors);
  const { model, shape, data } = plan;
  const c = passContext({ job: JOB, pool, journal, signal: o.signal, settings: r.settings, model, shape, memory: setup.memory }, data.sequences);
  let loss: number | undefined;
  const steps = stepsOf(c, o, plan, { file: RESULT, places: () => files.places }, (mean) => (loss = mean));
  yield* runPass(c, steps, [RESULT]);
  files.finish();
  return { bytes: files.bytes, contentHash: setup.contentHash, loss };
}

async function* firstSetup({ o, plan, memory, pool, journal, reader }: Run): AsyncGenerator<ProgressEvent, Setup, void> {
  const options = { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal };
  const contentHash = yield* hashCheckpoint(reader, plan.model.checkpoint, options);
  const setup: Setup = { contentHash, memory };
  journal.append(SETUP, { parts: [], result: setup });
  return setup;
}

function manifestOf(o: CalibrateOptions, { data, longest, alias }: Plan, contentHash: string): StatsManifest {
  const { name, sha256, sequences } = data;
  return {
    version: 1,
    generator: `pith ${pithVersion()}`,
    model: { name: checkpointName(o.checkpoint), contentHash },
    dataset: { name, sha256 },
    nsamples: sequences.length,
    seqlen: longest,
    seed: o.seed,
    tokens: sequences.reduce((sum, s) => sum + s.length, 0),
    tokensHash: hashTokens(sequences),
    alias,
  };
}

/** Embeddings; every block, in one pass or several; with gradients the output layer, then the blocks from the last to the first. */
function stepsOf(c: PassContext, o: CalibrateOptions, plan: Plan, target: StatsTarget, lossIs: (loss: number) => void): Step[] {
  const steps = [embedStep(c)];
  const last = plan.shape.blocks.length - 1;
  c.memory.passes.forEach((passes, block) => {
    // the last block's output is only for the gradient
    const output = block < last || o.fisher.length > 0;
    const all = passes.length === 0 ? [[]] : passes;
    all.forEach((groups, i) => {
      if (groups.length === 0 && !output) return;
      const isLast = i === all.length - 1;
      steps.push(blockStep(c, { key: `block ${block}.${i}`, block, groups, statistics: plan.statistics, output: output && isLast, target }));
    });
  });
  if (o.fisher.length === 0) return steps;
  steps.push({ ...headGradientStep(c), finished: (loss) => lossIs(loss as number) });
  for (let block = last; block >= 0; block--) steps.push(blockGradientStep(c, { block, modules: plan.modules[block]!, statistics: o.fisher, target }));
  return steps;
}

/** Measured on two cores (docs/calibrate.md). */
const TYPICAL = { flopsPerThreadMs: 25e6, mainBytes: 90 << 20, workerBytes: 150 << 20, startMs: 1500 };

function predict(o: CalibrateOptions, plan: Plan, memory: PassMemory, settings: RunSettings): NonNullable<CalibrateReport['plan']> {
  const { shape, data, longest } = plan;
  const lengths = data.sequences.map((s) => s.length);
  const tokens = tokenCount({ file: '', lengths });
  const [gram, backward] = [o.statistics.includes('inputGram'), o.fisher.length > 0];
  const states = hiddenBytes({ shape, tokens: { file: '', lengths } });
  const values = (linears: readonly LinearShape[]): number => linears.reduce((sum, l) => sum + l.in * l.out, 0);
  const forward = shape.blocks.reduce((sum, b, i) => sum + 2 * values(b.linears) * Math.max(1, memory.passes[i]!.length), 0);
  const grams = gram ? plan.groups.flat().reduce((sum, g) => sum + g.in ** 2, 0) : 0;
  const gradients = backward ? GRADIENT_SHARE * forward + 6 * shape.head.vocabulary * shape.head.columns : 0;
  const pairs = o.fisher.some((s) => s !== 'fisherRow');
  // about ten sweeps, each of four products for every sequence
  const sweeps = pairs ? plan.modules.flat().reduce((sum, m) => sum + 40 * m.in * m.out * (m.in + m.out), 0) * lengths.length : 0;
  const flops = tokens * (forward + grams + gradients) + sweeps;
  const largest = Math.max(0, ...plan.modules.map((m) => (pairs ? 4 * lengths.length * values(m) : 0)));
  return {
    bytes: plan.tensors.reduce((sum, t) => sum + byteLength(t.dtype, t.shape), 0),
    spoolBytes: states * (backward ? shape.blocks.length + 3 : 2) + largest,
    peakBytes: TYPICAL.mainBytes + TYPICAL.workerBytes + passBytes(shape, memory, { longest, gram, backward }),
    ms: Math.round(TYPICAL.startMs + flops / (TYPICAL.flopsPerThreadMs * settings.blasThreads)),
  };
}

function report(o: CalibrateOptions, plan: Plan, device: string, bytes: number): CalibrateReport {
  const { data, longest, groups, modules, statistics } = plan;
  return {
    out: o.out,
    bytes,
    model: checkpointName(o.checkpoint),
    nsamples: data.sequences.length,
    seqlen: longest,
    tokens: data.sequences.reduce((sum, s) => sum + s.length, 0),
    modules: modules.flat().length,
    inputs: groups.flat().length,
    statistics: [...(groups.flat().length === 0 ? [] : statistics), ...o.fisher],
    device,
  };
}
