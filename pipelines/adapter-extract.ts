/** `pith adapter extract`: what a fine-tune added to its base, as a PEFT LoRA adapter. */
import { basename } from 'node:path';
import { DTYPES } from '../core/dtype.js';
import type { Device } from '../core/device.js';
import { PithError } from '../core/errors.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { byteLength, totalByteLength } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import { KEY_PREFIX } from '../formats/adapter/adapter.js';
import { configJson } from '../formats/adapter/config.js';
import { AdapterWriter, headerBytes, type SpooledTensor } from '../formats/adapter/write.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { checkpointStamp } from '../formats/stamp.js';
import { withinBytes } from '../kernels/lowrank/water-fill.js';
import { shortestNames } from '../models/modules.js';
import type { ExtractResult, ExtractTask, RankRule } from '../workers/messages/adapters.js';
import { readModelConfig } from '../workers/adapted-reader.js';
import { openAny } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import { planExtract, sameBytes, type ExtractPlan, type ExtractSelection, type LoraPlan } from './adapter-plan.js';
import { adapterCard, taskType } from './adapter-card.js';
import { checkOutput, published, requireSpace, RESULT } from './publish.js';
import { readerWarnings } from './reader-warnings.js';
import { resolveRunDevice, runSettings, type RunOptions } from './run-options.js';
import { runJobs, type Job } from './schedule.js';

export interface ExtractOptions extends RunOptions, ExtractSelection {
  readonly base: string;
  readonly tuned: string;
  readonly out: string;
  readonly rule: RankRule;
  /** Bytes of the adapter's weights, shared over all modules; ranks stay at or below the rule's. */
  readonly targetBytes?: number;
  readonly distributeScale: boolean;
  /** undefined: the fine-tune's own type. */
  readonly dtype?: 'BF16' | 'F16' | 'F32';
  readonly force: boolean;
  readonly dryRun: boolean;
}

export interface ExtractedModule {
  readonly name: string;
  readonly rank: number;
  /** ||D - B A||_F / ||D||_F */
  readonly residual: number;
  readonly bytes: number;
}

export interface ExtractReport {
  readonly out: string;
  readonly bytes: number;
  readonly rawBytes: number;
  readonly device: string;
  /** Largest rank. */
  readonly rank: number;
  /** Over all modules with factors. */
  readonly residual: number;
  readonly modules: readonly ExtractedModule[];
  readonly saved: readonly string[];
  readonly unchanged: number;
  readonly skipped: readonly { readonly name: string; readonly reason: string }[];
  readonly dryRun?: true;
}

const JOB = 'adapter extract';
const SCRATCH_BYTES = 64 << 20;

interface Run {
  readonly o: ExtractOptions;
  readonly base: CheckpointReader;
  readonly tuned: CheckpointReader;
  readonly plan: ExtractPlan;
  readonly pool: WorkerPool;
  readonly device: Device;
}

export async function* adapterExtract(o: ExtractOptions): Pipeline<ExtractReport> {
  const started = performance.now();
  checkOutput(o.out, o.force);
  const pool = o.dryRun ? undefined : new WorkerPool({ threads: o.threads });
  try {
    await using tuned = await openAny(o.tuned);
    await using base = await openAny(o.base);
    const plan = await planExtract({ base, tuned }, await readModelConfig(tuned), o);
    if (plan.lora.length === 0 && plan.saved.length === 0) throw new PithError('NOTHING_TO_EXTRACT', { file: o.tuned, base: o.base });
    yield* readerWarnings(JOB, base, tuned);
    for (const message of plan.warnings) yield { type: 'warning', job: JOB, code: 'ADAPTER', message };
    const most = plan.lora.flatMap((m) => factorInfos(o, m, Math.min(o.rule.maxRank, ...m.sides)));
    const bytes =
      totalByteLength(plan.saved.map((s) => s.key)) +
      totalByteLength(most) +
      headerBytes(
        plan.saved.map((s) => s.key),
        most,
        o.out,
      );
    requireSpace(o.out, Math.min(bytes, o.targetBytes ?? bytes));
    if (pool === undefined) return planned(o, plan, Math.min(bytes, o.targetBytes ?? bytes));
    const run: Run = { o, base, tuned, plan, pool, device: await resolveRunDevice(o.device) };
    const report = yield* published(o.out, o.force, (spool) => extractInto(run, most, spool));
    yield { type: 'job.done', job: JOB, ms: performance.now() - started };
    return report;
  } finally {
    await pool?.[Symbol.asyncDispose]();
  }
}

const rawBytes = (plan: ExtractPlan): number => totalByteLength([...plan.lora.map((m) => m.weight), ...plan.saved.map((s) => s.key)]);

function dtypeOf(o: ExtractOptions, m: LoraPlan): 'BF16' | 'F16' | 'F32' {
  const { dtype } = m.weight;
  return o.dtype ?? (dtype === 'BF16' || dtype === 'F16' ? dtype : 'F32');
}

/** A (r, in) and B (out, r) under peft's names. */
function factorInfos(o: ExtractOptions, m: LoraPlan, rank: number): [a: TensorInfo, b: TensorInfo] {
  const [input, output] = m.sides;
  const names = m.embedding ? ['lora_embedding_A', 'lora_embedding_B'] : ['lora_A.weight', 'lora_B.weight'];
  const at = (name: string, shape: number[]): TensorInfo => ({ name: `${KEY_PREFIX}${m.path}.${name}`, dtype: dtypeOf(o, m), shape });
  return [at(names[0]!, [rank, input]), at(names[1]!, [output, rank])];
}

function planned(o: ExtractOptions, plan: ExtractPlan, bytes: number): ExtractReport {
  const modules = plan.lora.map((m) => {
    const rank = Math.min(o.rule.maxRank, ...m.sides);
    return { name: m.path, rank, residual: 0, bytes: totalByteLength(factorInfos(o, m, rank)) };
  });
  const rank = Math.max(0, ...modules.map((m) => m.rank));
  const { unchanged, skipped, savedModules: saved } = plan;
  return { out: o.out, bytes, rawBytes: rawBytes(plan), device: 'cpu', rank, residual: 0, modules, saved, unchanged, skipped, dryRun: true };
}

async function* extractInto(run: Run, most: readonly TensorInfo[], spool: (name: string) => string): AsyncGenerator<ProgressEvent, ExtractReport, void> {
  const { o, plan, tuned } = run;
  const biases = await changedBiases(run);
  const writer = new AdapterWriter(spool(RESULT), [...plan.saved.map((s) => s.key), ...biases.map((b) => b.key)], most);
  const sources = new Map([...plan.saved, ...biases].map((s) => [s.key.name, s.source]));
  const copied = writer.writeSaved((info, begin, target) => tuned.readInto(sources.get(info.name)!, begin, target));
  // an early failure of the copy waits for the tasks to end
  const settled = copied.catch(() => undefined);
  try {
    const found = yield* runTasks(run, spool);
    await copied;
    const kept = plan.lora.filter((m) => found.get(m.path)!.rank > 0);
    if (kept.length === 0 && plan.saved.length === 0) throw new PithError('NOTHING_TO_EXTRACT', { file: o.tuned, base: o.base });
    const factors = kept.flatMap((m): SpooledTensor[] => {
      const [a, b] = factorInfos(o, m, found.get(m.path)!.rank);
      const file = spool(spoolName(plan.lora.indexOf(m)));
      return [
        { ...a, file, position: 0 },
        { ...b, file, position: byteLength(a.dtype, a.shape) },
      ];
    });
    const bytes = writer.finish(factors, config(run, kept, found, biases.length > 0), { 'README.md': adapterCard(o, plan.config) });
    return report(run, kept, found, bytes);
  } finally {
    await settled;
    writer.close();
  }
}

const spoolName = (index: number): string => `factors-${index}`;

/** Biases that differ, of modules whose weight goes into factors: peft loads them beside the factors with bias "all". */
async function changedBiases({ plan, base, tuned }: Run): Promise<{ key: TensorInfo; source: string }[]> {
  const out: { key: TensorInfo; source: string }[] = [];
  for (const m of plan.lora) {
    if (m.bias === undefined || (base.infos.has(m.bias) && (await sameBytes({ base, tuned }, m.bias)))) continue;
    out.push({ source: m.bias, key: { ...tuned.infos.get(m.bias)!, name: `${KEY_PREFIX}${m.path}.base_layer.bias` } });
  }
  return out;
}

async function* runTasks(run: Run, spool: (name: string) => string): AsyncGenerator<ProgressEvent, Map<string, ExtractResult>, void> {
  const { o, plan } = run;
  const passes = o.targetBytes === undefined ? 1 : 2;
  const totalBytes = passes * totalByteLength(plan.lora.map((m) => m.weight));
  yield { type: 'job.start', job: JOB, totalBytes, tasks: passes * plan.lora.length, resumedBytes: 0 };
  let ranks: ReadonlyMap<string, number> | undefined;
  if (o.targetBytes !== undefined) {
    const curves = yield* runPass(run, totalBytes, () => ({ rule: o.rule }));
    ranks = shareBytes(run, o.targetBytes, curves);
  }
  return yield* runPass(run, totalBytes, (m, i) => {
    const rank = ranks?.get(m.path);
    return rank === 0 ? undefined : { rule: rank === undefined ? o.rule : { maxRank: rank }, spool: spool(spoolName(i)) };
  });
}

type Asked = Pick<ExtractTask, 'rule' | 'spool'>;

async function* runPass(
  run: Run,
  totalBytes: number,
  ask: (m: LoraPlan, index: number) => Asked | undefined,
): AsyncGenerator<ProgressEvent, Map<string, ExtractResult>, void> {
  const { o, plan, pool } = run;
  const settings = runSettings(o, run.device);
  const ref = (reader: CheckpointReader, path: string, name: string) => ({ checkpoint: { path, stamp: checkpointStamp(reader) }, name });
  const results = new Map<string, ExtractResult>();
  const jobs = plan.lora.flatMap((m, i): Job<ExtractTask>[] => {
    const asked = ask(m, i);
    if (asked === undefined) {
      results.set(m.path, { rank: 0, residual: 1, deltaSq: 0 });
      return [];
    }
    const bytes = byteLength(m.weight.dtype, m.weight.shape);
    const values = (bytes * 8) / DTYPES[m.weight.dtype].bits;
    const base = ref(run.base, o.base, m.weight.name);
    const tuned = ref(run.tuned, o.tuned, m.weight.name);
    const { transposed } = m;
    const task: ExtractTask = { type: 'extract', settings, base, tuned, dtype: dtypeOf(o, m), transposed, distributeScale: o.distributeScale, ...asked };
    return [{ label: m.path, bytes, memoryBytes: SCRATCH_BYTES + 8 * values + 8 * Math.min(...m.sides) ** 2, task }];
  });
  yield* runJobs(jobs, { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes }, (job, result) => {
    results.set(job.label, result);
    if (job.task.spool === undefined) return undefined;
    const m = plan.lora.find((p) => p.path === job.label)!;
    return { type: 'tensor.done', job: JOB, tensor: job.label, method: 'lora', bytes: totalByteLength(factorInfos(o, m, result.rank)), rawBytes: job.bytes };
  });
  return results;
}

/** Ranks for a file of at most `bytes`: one component more where it takes away the most squared error per byte. */
function shareBytes({ o, plan }: Run, bytes: number, curves: ReadonlyMap<string, ExtractResult>): Map<string, number> {
  const most = plan.lora.flatMap((m) => factorInfos(o, m, Math.min(o.rule.maxRank, ...m.sides)));
  const fixed =
    totalByteLength(plan.saved.map((s) => s.key)) +
    headerBytes(
      plan.saved.map((s) => s.key),
      most,
      o.out,
    );
  if (fixed > bytes)
    throw new PithError('TARGET_TOO_SMALL', { expected: bytes, got: fixed, message: 'modules that are saved whole and the header come first' });
  const rates = plan.lora.map((m) => {
    const { errorSq = [], deltaSq } = curves.get(m.path)!;
    const cost = totalByteLength(factorInfos(o, m, 1));
    return { bytes: [0, ...errorSq.map((_, i) => (i + 1) * cost)], errorSq: [deltaSq, ...errorSq], deltaSq };
  });
  const { points } = withinBytes(rates, bytes - fixed);
  return new Map(plan.lora.map((m, i) => [m.path, points[i]!]));
}

function config(run: Run, kept: readonly LoraPlan[], found: ReadonlyMap<string, ExtractResult>, biases: boolean): string {
  const { o, plan } = run;
  return configJson({
    ranks: new Map(kept.map((m) => [m.path, found.get(m.path)!.rank])),
    targetModules: shortestNames(
      kept.map((m) => m.path),
      plan.paths,
      'whole',
    ),
    modulesToSave: shortestNames(plan.savedModules, plan.paths, 'ending'),
    baseModel: baseName(o.base),
    taskType: taskType(plan.config),
    fanInFanOut: kept.some((m) => m.transposed && !m.embedding),
    bias: biases ? 'all' : 'none',
  });
}

/** `models--org--name` of the Hub's cache is org/name; other paths stay as they were given. */
export function baseName(path: string): string {
  const hub = /^models--(.+?)--(.+)$/.exec(basename(path));
  return hub === null ? path : `${hub[1]}/${hub[2]}`;
}

function report(run: Run, kept: readonly LoraPlan[], found: ReadonlyMap<string, ExtractResult>, bytes: number): ExtractReport {
  const { o, plan } = run;
  const modules = kept.map((m) => {
    const { rank, residual } = found.get(m.path)!;
    return { name: m.path, rank, residual, bytes: totalByteLength(factorInfos(o, m, rank)) };
  });
  const results = plan.lora.map((m) => found.get(m.path)!);
  const deltaSq = results.reduce((sum, r) => sum + r.deltaSq, 0);
  const left = results.reduce((sum, r) => sum + r.residual ** 2 * r.deltaSq, 0);
  return {
    out: o.out,
    bytes,
    rawBytes: rawBytes(plan),
    device: run.device,
    rank: Math.max(0, ...modules.map((m) => m.rank)),
    residual: deltaSq > 0 ? Math.sqrt(left / deltaSq) : 0,
    modules,
    saved: plan.savedModules,
    unchanged: plan.unchanged + plan.lora.length - kept.length,
    skipped: plan.skipped,
  };
}
