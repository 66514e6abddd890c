/** `pith delta encode`: plan from headers, code every tensor, put the file together. */
import { createHash } from 'node:crypto';
import { dirname, resolve } from 'node:path';
import type { Device } from '../core/device.js';
import { PithError } from '../core/errors.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { pithVersion } from '../core/version.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { writeDelta } from '../formats/delta/write.js';
import * as io from '../formats/io.js';
import { checkpointStamp } from '../formats/stamp.js';
import { loadMethod } from '../methods/index.js';
import type { TensorPlan } from '../methods/kinds.js';
import type { CheckpointRef, EncodeResult, EncodeTask, HashResult, HashTask, RatesResult, RatesTask, RunSettings } from '../workers/messages.js';
import { openAny, resolveCheckpoint } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import { assemble, commonRows, type Assembly } from './delta-assemble.js';
import { allocateBudget, targetBytes, type DeltaTarget, type EmbeddingBudget } from './delta-budget.js';
import { planDelta, type DeltaPlan, type PlannedMethod, type PlannedTensor } from './delta-plan.js';
import { Journal, refuseExisting } from './journal.js';
import { resolveRunDevice, runSettings, type RunOptions } from './run-options.js';
import { runJobs, type Job } from './schedule.js';

export interface EncodeOptions extends RunOptions {
  /** undefined: no base, every tensor is compressed alone. */
  readonly base: string | undefined;
  readonly tuned: string;
  readonly out: string;
  readonly method: string;
  readonly params: Readonly<Record<string, unknown>>;
  /** A size or an error that the method's tensors share, for methods that have a budget. */
  readonly target?: DeltaTarget;
  /** Embeddings and output heads: stored exactly, with parameters of their own, or with a budget of their own. */
  readonly embeddings?: 'lossless' | { readonly params: Readonly<Record<string, unknown>> } | EmbeddingBudget;
  /** Which tensors the method is for; the others are coded losslessly. */
  readonly selects: (name: string) => boolean;
  readonly force: boolean;
  readonly dryRun: boolean;
  readonly resume: boolean;
}

export interface EncodedTensor {
  readonly name: string;
  readonly method: string;
  readonly bytes: number;
  readonly rawBytes: number;
  /** ||What - W1||_F / ||W1 - W0||_F */
  readonly error?: number;
  readonly facts?: Readonly<Record<string, number | string>>;
}

export interface EncodeReport {
  readonly out: string;
  readonly bytes: number;
  readonly rawBytes: number;
  readonly ratio: number;
  /** Over all tensors that a lossy method coded. */
  readonly error?: number;
  readonly baseHash?: string;
  readonly tunedHash?: string;
  readonly device: string;
  readonly tensors: readonly EncodedTensor[];
  readonly sideFiles: readonly { readonly name: string; readonly coding: string }[];
  readonly plan?: { readonly bytes: number; readonly peakBytes: number; readonly ms: number };
}

type Done = { readonly encode: EncodeResult } | { readonly hash: HashResult } | { readonly rates: RatesResult };
type AnyTask = EncodeTask | HashTask | RatesTask;

const JOB = 'delta encode';
/** What a lossless delta of a short bf16 fine-tune takes and how fast it is coded, for `--dry-run` (bench/RESULTS.md). */
const TYPICAL = {
  pairRatio: 0.08,
  aloneRatio: 0.67,
  lossyRatio: 0.07,
  bytesPerMs: 250_000,
  lossyBytesPerMs: 100_000,
  workerBytes: 90 << 20,
  mainBytes: 90 << 20,
};

/** One encode: what all its steps share. */
interface Run {
  readonly o: EncodeOptions;
  readonly plan: DeltaPlan;
  readonly base: CheckpointReader | undefined;
  readonly tuned: CheckpointReader;
  readonly refs: { readonly tuned: CheckpointRef; readonly base?: CheckpointRef };
  readonly settings: RunSettings;
  readonly journal: Journal<Done>;
  readonly pool: WorkerPool;
  readonly done: Map<string, Done>;
}

export async function* deltaEncode(o: EncodeOptions): Pipeline<EncodeReport> {
  const started = performance.now();
  refuseExisting(o.out, o);
  const folder = dirname(resolve(o.out));
  if (io.stat(folder) === undefined) throw new PithError('NOT_FOUND', { file: folder });
  const pool = o.dryRun ? undefined : new WorkerPool({ threads: o.threads });
  try {
    await using tuned = await openAny(o.tuned);
    await using base = o.base === undefined ? undefined : await openAny(o.base);
    const plan = planDelta(base, tuned, await methodsOf(o));
    const lossy = plan.tensors.some((t) => t.method > 0);
    const device: Device = lossy ? await resolveRunDevice(o.device) : 'cpu';
    if (pool === undefined) return dryRun(o, plan, device);
    const spaceNeeded = plan.rawBytes * TYPICAL.pairRatio;
    if (io.freeBytes(folder) < spaceNeeded) {
      throw new PithError('DISK_FULL', { file: folder, message: `about ${Math.ceil(spaceNeeded)} bytes are needed, ${io.freeBytes(folder)} are free` });
    }
    const refs = { tuned: refOf(tuned, o.tuned), ...(base === undefined ? {} : { base: refOf(base, o.base!) }) };
    const { method, params, target, embeddings, seed } = o;
    const identity = { command: JOB, version: pithVersion(), method, params, target, embeddings, seed, device, refs, tensors: plan.tensors };
    const journal = Journal.open<Done>(o.out, identity, { resume: o.resume });
    const run: Run = { o, plan, base, tuned, refs, settings: runSettings(o, device), journal, pool, done: new Map() };
    try {
      yield* runTasks(run);
      const report = await finish(run);
      journal.remove();
      yield { type: 'job.done', job: JOB, ms: performance.now() - started };
      return report;
    } catch (error) {
      journal.close();
      throw error;
    }
  } finally {
    await pool?.[Symbol.asyncDispose]();
  }
}

/** methods[0] is lossless; then the one for embeddings, where it differs, and the main one. */
async function methodsOf(o: EncodeOptions): Promise<PlannedMethod[]> {
  const planned = async (name: string, params: Readonly<Record<string, unknown>>, selects: (t: TensorPlan) => boolean): Promise<PlannedMethod> => ({
    name,
    params,
    codec: (await loadMethod('delta', name)).create(params),
    selects,
  });
  const methods = [await planned('lossless', o.method === 'lossless' ? o.params : {}, () => true)];
  const { embeddings } = o;
  const own = embeddings !== undefined && !(embeddings !== 'lossless' && 'bytes' in embeddings);
  const isEmbedding = (t: TensorPlan): boolean => t.role === 'embedding' || t.role === 'head';
  if (o.method !== 'lossless') {
    if (own && embeddings !== 'lossless')
      methods.push(await planned(o.method, { ...o.params, ...embeddings.params }, (t) => o.selects(t.name) && isEmbedding(t)));
    methods.push(await planned(o.method, o.params, (t) => o.selects(t.name) && !(own && isEmbedding(t))));
  }
  if (o.target !== undefined && methods.at(-1)!.codec.budget === undefined) throw new PithError('NO_BUDGET', { method: o.method });
  return methods;
}

function refOf(reader: CheckpointReader, path: string): CheckpointRef {
  return { path: resolveCheckpoint(path), stamp: checkpointStamp(reader) };
}

function dryRun(o: EncodeOptions, plan: DeltaPlan, device: Device): EncodeReport {
  const share = (t: PlannedTensor): number => (t.method > 0 ? TYPICAL.lossyRatio : t.hasBase ? TYPICAL.pairRatio : TYPICAL.aloneRatio);
  const predicted = plan.tensors.map((t) => ({ name: t.name, method: plan.methods[t.method]!.name, rawBytes: t.bytes, bytes: Math.round(t.bytes * share(t)) }));
  const target = o.target === undefined ? undefined : targetBytes(o.target, plan.rawBytes);
  const bytes = target ?? predicted.reduce((sum, t) => sum + t.bytes, 0);
  const ms = plan.tensors.reduce((sum, t) => sum + t.bytes / (t.method > 0 ? TYPICAL.lossyBytesPerMs : TYPICAL.bytesPerMs), 300);
  const largest = Math.max(0, ...plan.tensors.map((t) => memoryOf(plan, t)));
  const peakBytes = TYPICAL.mainBytes + Math.max(largest, Math.min(o.maxMemoryBytes, o.threads * Math.max(TYPICAL.workerBytes, largest)));
  return { out: o.out, bytes: 0, rawBytes: plan.rawBytes, ratio: 0, device, tensors: predicted, sideFiles: [], plan: { bytes, peakBytes, ms: Math.round(ms) } };
}

const memoryOf = (plan: DeltaPlan, t: PlannedTensor): number => (t.method === 0 ? TYPICAL.workerBytes : plan.methods[t.method]!.codec.memoryBytes(t));

/** Without a budget everything at once; with one, first the rates and what needs none of it, then the tensors that share it. */
async function* runTasks(run: Run): AsyncGenerator<ProgressEvent, void, void> {
  const { o, plan, journal, done } = run;
  for (const [key, value] of journal.done) if (spoolIsWhole(journal, key, value)) done.set(key, value);
  const budgeted = o.target === undefined ? [] : plan.tensors.filter((t) => t.method === plan.methods.length - 1 && t.method > 0);
  const others = plan.tensors.filter((t) => !budgeted.includes(t));
  const rawBytes = (tensors: readonly PlannedTensor[]): number => tensors.reduce((sum, t) => sum + t.bytes, 0);
  const totalBytes = plan.rawBytes + rawBytes(budgeted);
  const finished = [...plan.tensors.filter((t) => done.has(t.name)), ...budgeted.filter((t) => done.has(`rates:${t.name}`))];
  const first: Job<AnyTask>[] = [...ratesJobs(run, budgeted), ...encodeJobs(run, others), ...hashJobs(run)];
  yield { type: 'job.start', job: JOB, totalBytes, tasks: first.length + budgeted.length, resumedBytes: rawBytes(finished) };
  yield* runMissing(run, first, totalBytes);
  if (o.target === undefined) return;
  const curves = new Map(budgeted.map((t) => [t.name, (done.get(`rates:${t.name}`) as { rates: RatesResult }).rates]));
  const { embeddings } = o;
  const ownBudget = embeddings !== undefined && embeddings !== 'lossless' && 'bytes' in embeddings ? embeddings : undefined;
  const points = await allocateBudget(assemblyOf(run), o.target, ownBudget, curves);
  yield* runMissing(run, encodeJobs(run, budgeted, points), totalBytes);
}

async function* runMissing(run: Run, jobs: readonly Job<AnyTask>[], totalBytes: number): AsyncGenerator<ProgressEvent, void, void> {
  const { o, pool, journal, done, plan } = run;
  const missing = jobs.filter((j) => !done.has(j.label));
  const doneBytes = Math.max(
    jobs.reduce((sum, j) => sum + (done.has(j.label) ? j.bytes : 0), 0),
    pool.doneBytes,
  );
  const schedule = { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes, doneBytes: doneBytes - pool.doneBytes };
  yield* runJobs<AnyTask>(missing, schedule, (job, result) => {
    const value = doneOf(job.task, result);
    journal.append(job.label, value);
    done.set(job.label, value);
    if (!('encode' in value)) return undefined;
    const t = plan.tensors.find((p) => p.name === job.label)!;
    const bytes = value.encode.parts.reduce((sum, p) => sum + p.bytes, 0);
    return { type: 'tensor.done', job: JOB, tensor: job.label, method: usedMethod(plan, t, value.encode), bytes, rawBytes: job.bytes };
  });
}

function doneOf(task: AnyTask, result: unknown): Done {
  if (task.type === 'hash') return { hash: result as HashResult };
  return task.type === 'rates' ? { rates: result as RatesResult } : { encode: result as EncodeResult };
}

const usedMethod = (plan: DeltaPlan, t: PlannedTensor, r: EncodeResult): string =>
  r.info.identical ? 'identical' : plan.methods[r.byMethod ? t.method : 0]!.name;

/** Name of a tensor's spooled parts: names may hold anything, their hash may not. */
const spoolName = (tensor: string): string => createHash('sha256').update(tensor).digest('hex').slice(0, 32);

function encodeJobs(run: Run, tensors: readonly PlannedTensor[], points?: ReadonlyMap<string, number>): Job<EncodeTask>[] {
  const { plan, refs, settings, journal } = run;
  return tensors.map((t) => {
    const point = points?.get(t.name);
    const { name, params } = plan.methods[t.method]!;
    return {
      label: t.name,
      bytes: t.bytes,
      memoryBytes: memoryOf(plan, t),
      task: {
        type: 'encode',
        settings,
        method: { name, params },
        tuned: { checkpoint: refs.tuned, name: t.name },
        ...(t.hasBase && refs.base !== undefined ? { base: { checkpoint: refs.base, name: t.name } } : {}),
        ...commonRows(t),
        ...(point === undefined ? {} : { point }),
        spool: journal.spool(spoolName(t.name)),
      },
    };
  });
}

/** An eighth when only an error is asked for: curves reach far enough for what a delta is worth. */
const UNKNOWN_SHARE = 0.125;

function ratesJobs(run: Run, tensors: readonly PlannedTensor[]): Job<RatesTask>[] {
  const { o, plan, refs, settings } = run;
  const bytes = o.target === undefined ? undefined : targetBytes(o.target, plan.rawBytes);
  const share = bytes === undefined ? UNKNOWN_SHARE : bytes / Math.max(1, plan.rawBytes);
  return tensors.map((t) => {
    const { name, params } = plan.methods[t.method]!;
    const both = { base: { checkpoint: refs.base!, name: t.name }, tuned: { checkpoint: refs.tuned, name: t.name } };
    return {
      label: `rates:${t.name}`,
      bytes: t.bytes,
      memoryBytes: memoryOf(plan, t),
      task: { type: 'rates', settings, method: { name, params }, ...both, ...commonRows(t), share },
    };
  });
}

/** Base tensors that no tuned tensor is coded against still belong to the base's content hash. */
function hashJobs({ plan, refs }: Run): Job<HashTask>[] {
  const { base } = refs;
  if (base === undefined) return [];
  const names = [...plan.removed, ...plan.tensors.filter((t) => !t.hasBase && t.inBase).map((t) => t.name)];
  return names.map((name) => ({
    label: `base:${name}`,
    bytes: 0,
    memoryBytes: TYPICAL.workerBytes,
    task: { type: 'hash', tensor: { checkpoint: base, name } },
  }));
}

function spoolIsWhole(journal: Journal<Done>, key: string, value: Done): boolean {
  if (!('encode' in value)) return true;
  return value.encode.parts.every((p) => {
    const file = `${journal.spool(spoolName(key))}.${p.part}`;
    return io.stat(file)?.bytes === p.bytes && createHash('sha256').update(io.readFile(file)).digest('hex') === p.sha256;
  });
}

function assemblyOf({ o, plan, base, tuned, journal, done }: Run): Assembly {
  return {
    paths: { base: o.base, tuned: o.tuned },
    plan,
    base,
    tuned,
    result: (name) => (done.get(name) as { encode: EncodeResult }).encode,
    baseSha256: (name) => {
      const value = done.get(name);
      if (value !== undefined && 'encode' in value && value.encode.baseSha256 !== undefined) return value.encode.baseSha256;
      return (done.get(`base:${name}`) as { hash: HashResult }).hash.sha256;
    },
    sideSpool: journal.spool('side-files'),
    spoolFile: (tensor, part) => `${journal.spool(spoolName(tensor))}.${part}`,
  };
}

async function finish(run: Run): Promise<EncodeReport> {
  const { o, plan, settings } = run;
  const assembly = assemblyOf(run);
  const { content, baseHash, tunedHash } = await assemble(assembly);
  run.journal.publishing();
  const bytes = writeDelta(o.out, content, { force: o.force });
  const squares = plan.tensors.map((t) => assembly.result(t.name).squares ?? [0, 0]);
  const [error, delta] = [squares.reduce((sum, s) => sum + s[0], 0), squares.reduce((sum, s) => sum + s[1], 0)];
  return {
    out: o.out,
    bytes,
    rawBytes: plan.rawBytes,
    ratio: plan.rawBytes === 0 ? 0 : bytes / plan.rawBytes,
    ...(delta > 0 ? { error: Math.sqrt(error / delta) } : {}),
    ...(baseHash === undefined ? {} : { baseHash }),
    tunedHash,
    device: settings.device,
    tensors: plan.tensors.map((t) => encodedTensor(plan, t, assembly.result(t.name))),
    sideFiles: content.manifest.tuned.sideFiles.map((f) => ({ name: f.name, coding: f.coding })),
  };
}

function encodedTensor(plan: DeltaPlan, t: PlannedTensor, r: EncodeResult): EncodedTensor {
  return {
    name: t.name,
    method: usedMethod(plan, t, r),
    bytes: r.parts.reduce((sum, p) => sum + p.bytes, 0),
    rawBytes: t.bytes,
    ...(r.info.error === undefined ? {} : { error: r.info.error }),
    ...(Object.keys(r.info.facts).length === 0 ? {} : { facts: r.info.facts }),
  };
}
