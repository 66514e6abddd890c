/** `pith calibrate`: sequences through a model block by block; what the inputs and gradients of its linear layers were, as a statistics file. */
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { pithVersion } from '../core/version.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import type { StatsManifest } from '../formats/stats/schema.js';
import { prepareStats } from '../formats/stats/write.js';
import type { RunSettings } from '../workers/messages/refs.js';
import { checkpointName, openAny } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import {
  blockGradientStep,
  blockStep,
  embedStep,
  headGradientStep,
  passBytes,
  passContext,
  runPass,
  shareMemory,
  type PassContext,
  type PassMemory,
  type StatsTarget,
} from './block-pass.js';
import { hashTokens, memoryNeeds, planCalibration, predict, type CalibrateOptions, type CalibratePlan, type CalibratePrediction } from './calibrate-plan.js';
import { hashCheckpoint } from './content-hash.js';
import { Journal, takeName } from './journal.js';
import { modelRef } from './model-ref.js';
import { checkOutput, requireSpace, RESULT } from './publish.js';
import { resolveRunDevice, runSettings } from './run-options.js';
import type { Step, StepDone } from './steps.js';

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
  readonly plan?: CalibratePrediction;
}

const JOB = 'calibrate';

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
  const plan = planCalibration(o, model, shape, await o.data(reader, shape.maxPositions));
  const memory = shareMemory(shape, { ...memoryNeeds(o, plan), maxMemoryBytes: o.maxMemoryBytes, groups: plan.groups, source: o.checkpoint });
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

/** Everything that decides the bytes but for rounding: how memory was shared is kept in the journal. */
function identityOf(o: CalibrateOptions, plan: CalibratePlan, device: string): object {
  const { model, data, tensors, alias } = plan;
  const { name, sha256 } = data;
  return { command: JOB, version: pithVersion(), device, seed: o.seed, model, name, sha256, tokens: hashTokens(data.sequences), tensors, alias };
}

interface Run {
  readonly o: CalibrateOptions;
  readonly plan: CalibratePlan;
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
  const setup = yield* setUp(r);
  const files = prepareStats(journal.spool(RESULT), manifestOf(o, plan, setup.contentHash), plan.tensors);
  const { model, shape, data } = plan;
  const c = passContext({ job: JOB, pool, journal, signal: o.signal, settings: r.settings, model, shape, memory: setup.memory }, data.sequences);
  let loss: number | undefined;
  const steps = stepsOf(c, o, plan, { file: RESULT, places: () => files.places }, (mean) => (loss = mean));
  yield* runPass(c, steps, [RESULT]);
  files.finish();
  return { bytes: files.bytes, contentHash: setup.contentHash, loss };
}

/** How far what an earlier run shared out may be above what this one would: the default follows the free memory. */
const TOLERANCE = 1.25;

/** The hash is taken once; memory stays shared as it was, unless there is now much less of it: then the steps are others, and begin anew. */
async function* setUp(r: Run): AsyncGenerator<ProgressEvent, Setup, void> {
  const { o, plan, memory, pool, journal, reader } = r;
  const before = journal.done.get(SETUP)?.result as Setup | undefined;
  if (before !== undefined && passBytes(plan.shape, before.memory, memoryNeeds(o, plan)) <= TOLERANCE * o.maxMemoryBytes) return before;
  const options = { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal };
  const contentHash = before?.contentHash ?? (yield* hashCheckpoint(reader, plan.model.checkpoint, options));
  const setup: Setup = { contentHash, memory };
  journal.append(SETUP, { parts: [], result: setup });
  return setup;
}

/** What statistics of these sequences say of themselves. */
export function manifestOf(
  o: Pick<CalibrateOptions, 'checkpoint' | 'seed'>,
  { data, longest, alias }: Pick<CalibratePlan, 'data' | 'longest' | 'alias'>,
  contentHash: string,
): StatsManifest {
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

/** Embeddings; blocks, in one pass or several each; with gradients the output layer, then the blocks from the last one backwards. */
function stepsOf(c: PassContext, o: CalibrateOptions, plan: CalibratePlan, target: StatsTarget, lossIs: (loss: number) => void): Step[] {
  const steps = [embedStep(c)];
  const backward = o.fisher.length > 0;
  // what lies behind the last block that is asked for is only for the gradients
  const last = backward ? plan.shape.blocks.length : plan.groups.findLastIndex((g) => g.length > 0);
  for (const [block, passes] of c.memory.passes.entries()) {
    const output = block < last;
    for (const [i, groups] of (passes.length === 0 ? [[]] : passes).entries()) {
      if (groups.length === 0 && !output) continue;
      const key = `block ${block} of ${c.memory.batchTokens}: ${groups.map((g) => g.modules[0]!).join(' ')}`;
      const isLast = i === Math.max(0, passes.length - 1);
      steps.push(blockStep(c, { key, block, groups, statistics: plan.statistics, output: output && isLast, target }));
    }
  }
  if (!backward) return steps;
  steps.push({ ...headGradientStep(c), finished: (loss) => lossIs(loss as number) });
  const first = plan.modules.findIndex((m) => m.length > 0);
  for (let block = plan.shape.blocks.length - 1; block >= first; block--) {
    steps.push(blockGradientStep(c, { block, modules: plan.modules[block]!, statistics: o.fisher, output: block > first, target }));
  }
  return steps;
}

function report(o: CalibrateOptions, plan: CalibratePlan, device: string, bytes: number): CalibrateReport {
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
