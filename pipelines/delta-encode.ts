/** `pith delta encode`: plan from headers, code every tensor, put the file together. */
import { createHash } from 'node:crypto';
import { dirname, resolve } from 'node:path';
import type { Device } from '../core/device.js';
import { PithError } from '../core/errors.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { pithVersion } from '../core/version.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { EXACT_ROOM, writeTwoLayers } from '../formats/delta/layers.js';
import { deltaBytes, writeDelta, type DeltaContent } from '../formats/delta/write.js';
import * as io from '../formats/io.js';
import { checkpointStamp } from '../formats/stamp.js';
import type { CheckpointRef, EncodeResult, EncodeTask, HashResult, HashTask, LayerStatsRef, RatesResult, RatesTask, RunSettings } from '../workers/messages.js';
import { openAny, resolveCheckpoint } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import { assemble, commonRows, type Assembly } from './delta-assemble.js';
import { Allocator, targetBytes, type Choice, type DeltaTarget } from './delta-budget.js';
import { reachTarget, type TargetRun } from './delta-target.js';
import { methodsOf, type MethodOptions } from './delta-methods.js';
import { calibrationData, type CalibrationData } from './calibration-data.js';
import type { Probes } from './delta-sensitivity.js';
import { openStats, planStats, type StatsModels } from './delta-stats.js';
import { weighTarget, type Weighed } from './delta-weigh.js';
import { requireCausalConfig } from '../models/config/parse.js';
import { modelRef } from './model-ref.js';
import { codeRemainders, type DoneRemainder } from './delta-remainders.js';
import { planDelta, type DeltaPlan, type PlannedTensor } from './delta-plan.js';
import { Journal, refuseExisting } from './journal.js';
import { keptAsRead, readerWarnings } from './reader-warnings.js';
import { resolveRunDevice, runSettings, type RunOptions } from './run-options.js';
import { runJobs, type Job } from './schedule.js';

export interface EncodeOptions extends RunOptions, MethodOptions {
  /** undefined: no base, every tensor is compressed alone. */
  readonly base: string | undefined;
  readonly tuned: string;
  readonly out: string;
  /** The exact remainder behind the lossy layer. A target counts the lossy layer alone, the file as it is without the exact one. */
  readonly progressive?: boolean;
  /** Statistics of the base's or the fine-tune's layers (`pith calibrate`), for a method that uses them. */
  readonly stats?: string;
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
  /** Of `bytes`, those of the exact layer. */
  readonly exactBytes?: number;
  readonly facts?: Readonly<Record<string, number | string>>;
}

export interface EncodeReport {
  readonly out: string;
  readonly bytes: number;
  readonly rawBytes: number;
  readonly ratio: number;
  /** Of a file of two layers: `lossy` is the size of the file without the exact one. */
  readonly layers?: { readonly lossy: number; readonly exact: number };
  /** Over all tensors that a lossy method coded, of what the lossy layer restores to. */
  readonly error?: number;
  readonly baseHash?: string;
  readonly tunedHash?: string;
  readonly device: string;
  readonly tensors: readonly EncodedTensor[];
  readonly sideFiles: readonly { readonly name: string; readonly coding: string }[];
  /** What was measured on the data of the encode. */
  readonly sensitivity?: Weighed;
  readonly plan?: { readonly bytes: number; readonly peakBytes: number; readonly ms: number };
}

type Done =
  { readonly encode: EncodeResult; readonly choice?: Choice } | { readonly hash: HashResult } | { readonly rates: readonly RatesResult[] } | DoneRemainder;
type AnyTask = EncodeTask | HashTask | RatesTask;

const JOB = 'delta encode';
/** What a lossless delta of a short bf16 fine-tune takes and how fast it is coded, for `--dry-run` (bench/RESULTS.md). */
const TYPICAL = {
  pairRatio: 0.08,
  aloneRatio: 0.67,
  lossyRatio: 0.07,
  remainderRatio: 0.08,
  bytesPerMs: 250_000,
  lossyBytesPerMs: 100_000,
  workerBytes: 90 << 20,
  mainBytes: 90 << 20,
};

interface TwoLayers {
  readonly bytes: number;
  readonly lossyBytes: number;
  /** By tensor. */
  readonly exactBytes: ReadonlyMap<string, number>;
}

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
  readonly allocator: Allocator;
  /** What errors are measured on. */
  readonly data: CalibrationData | undefined;
  /** By tensor. */
  readonly stats: ReadonlyMap<string, LayerStatsRef>;
  /** What was measured on the data, once it is known. */
  readonly weighed: Weighed[];
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
    if (tuned.files.length === 0)
      throw new PithError('USAGE', { message: `--tuned ${o.tuned}: a delta is of files; write them first (adapter fuse has --save delta)` });
    yield* readerWarnings(JOB, base, tuned);
    yield* keptAsRead(JOB, tuned);
    if (o.data !== undefined && (o.target === undefined || o.target.maxError !== undefined))
      throw new PithError('USAGE', { message: '--dataset weighs the shares of a size: give --target-size or --target-ratio' });
    const plan = planDelta(base, tuned, await methodsOf(o));
    if (o.progressive === true && (o.base === undefined || plan.methods.length === 1))
      throw new PithError('USAGE', { message: '--progressive: a base and a lossy --method, or auto, make the first layer' });
    const lossy = plan.tensors.some((t) => t.method > 0);
    using statsFile = o.stats === undefined ? undefined : openStats(o.stats, plan);
    const device: Device = lossy ? await resolveRunDevice(o.device) : 'cpu';
    if (pool === undefined) return dryRun(o, plan, device);
    const spaceNeeded = plan.rawBytes * (TYPICAL.pairRatio + (o.progressive === true ? TYPICAL.lossyRatio : 0));
    if (io.freeBytes(folder) < spaceNeeded) {
      throw new PithError('DISK_FULL', { file: folder, message: `about ${Math.ceil(spaceNeeded)} bytes are needed, ${io.freeBytes(folder)} are free` });
    }
    const refs = { tuned: refOf(tuned, o.tuned), ...(base === undefined ? {} : { base: refOf(base, o.base!) }) };
    const settings = runSettings(o, device);
    const stats = statsFile === undefined ? new Map<string, LayerStatsRef>() : yield* planStats(statsFile, plan, modelsOf(o, base, tuned), settings, pool);
    const data = o.data === undefined ? undefined : await calibrationData(tuned, o.data);
    const { method, params, target, embeddings, progressive, seed } = o;
    const identity = {
      command: JOB,
      version: pithVersion(),
      method,
      params,
      target,
      embeddings,
      progressive,
      seed,
      data: data && [data.sha256, o.data],
      stats: statsFile && [statsFile.path, statsFile.manifest],
      device,
      refs,
      tensors: plan.tensors,
    };
    const journal = Journal.open<Done>(o.out, identity, { resume: o.resume });
    const run: Run = {
      o,
      plan,
      base,
      tuned,
      refs,
      settings,
      journal,
      pool,
      done: new Map(),
      allocator: new Allocator(),
      data,
      stats,
      weighed: [],
    };
    try {
      yield* runTasks(run);
      const report = yield* finish(run);
      journal.remove();
      yield { type: 'job.done', job: JOB, ms: performance.now() - started };
      return report;
    } catch (error) {
      // what was done serves no other target
      if (error instanceof PithError && error.code === 'TARGET_TOO_SMALL') journal.remove();
      else journal.close();
      throw error;
    }
  } finally {
    await pool?.[Symbol.asyncDispose]();
  }
}

function refOf(reader: CheckpointReader, path: string): CheckpointRef {
  return { path: resolveCheckpoint(path), stamp: checkpointStamp(reader) };
}

/** The checkpoints that statistics may be of. */
function modelsOf(o: EncodeOptions, base: CheckpointReader | undefined, tuned: CheckpointReader): StatsModels {
  const both = [...(base === undefined ? [] : [{ argument: o.base!, reader: base }]), { argument: o.tuned, reader: tuned }];
  return { both, job: JOB, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal };
}

function dryRun(o: EncodeOptions, plan: DeltaPlan, device: Device): EncodeReport {
  const share = (t: PlannedTensor): number => (t.method > 0 ? TYPICAL.lossyRatio : t.hasBase ? TYPICAL.pairRatio : TYPICAL.aloneRatio);
  const predicted = plan.tensors.map((t) => ({ name: t.name, method: plan.methods[t.method]!.name, rawBytes: t.bytes, bytes: Math.round(t.bytes * share(t)) }));
  const target = o.target === undefined ? undefined : targetBytes(o.target, plan.rawBytes);
  const exact = mayNeedRemainder(o, plan).reduce((sum, t) => sum + t.bytes, 0);
  const bytes = (target ?? predicted.reduce((sum, t) => sum + t.bytes, 0)) + Math.round(exact * TYPICAL.remainderRatio);
  const lossyMs = plan.tensors.reduce((sum, t) => sum + t.bytes / (t.method > 0 ? TYPICAL.lossyBytesPerMs : TYPICAL.bytesPerMs), 300);
  const ms = lossyMs + exact / TYPICAL.bytesPerMs;
  const largest = Math.max(0, ...plan.tensors.map((t) => memoryOf(plan, t)));
  const peakBytes = TYPICAL.mainBytes + Math.max(largest, Math.min(o.maxMemoryBytes, o.threads * Math.max(TYPICAL.workerBytes, largest)));
  return { out: o.out, bytes: 0, rawBytes: plan.rawBytes, ratio: 0, device, tensors: predicted, sideFiles: [], plan: { bytes, peakBytes, ms: Math.round(ms) } };
}

/** Tensors that a lossy method may code. */
const mayNeedRemainder = (o: EncodeOptions, plan: DeltaPlan): readonly PlannedTensor[] =>
  o.progressive === true ? plan.tensors.filter((t) => t.method > 0 || t.candidates !== undefined) : [];

const memoryOf = (plan: DeltaPlan, t: PlannedTensor, stats = false): number =>
  Math.max(...candidatesOf(t).map((m) => (m === 0 ? TYPICAL.workerBytes : plan.methods[m]!.codec.memoryBytes(t, stats))));

/** Without a budget everything at once; with one, first the rates and what needs none of it, then the tensors that share it. */
async function* runTasks(run: Run): AsyncGenerator<ProgressEvent, void, void> {
  const { o, plan, journal, done, allocator } = run;
  for (const [key, value] of journal.done) if (spoolIsWhole(journal, key, value)) done.set(key, value);
  const budgeted =
    o.target === undefined ? [] : plan.tensors.filter((t) => t.candidates !== undefined || (t.method > 0 && t.method === plan.methods.length - 1));
  const others = plan.tensors.filter((t) => !budgeted.includes(t));
  const rates = ratesJobs(run, budgeted);
  const bytesOf = (tensors: readonly { readonly bytes: number }[]): number => tensors.reduce((sum, t) => sum + t.bytes, 0);
  const totalBytes = plan.rawBytes + bytesOf(rates) + bytesOf(mayNeedRemainder(o, plan));
  const finished = [...plan.tensors.filter((t) => done.has(t.name)), ...rates.filter((j) => done.has(j.label))];
  const first: Job<AnyTask>[] = [...rates, ...encodeJobs(run, others), ...hashJobs(run)];
  yield { type: 'job.start', job: JOB, totalBytes, tasks: first.length + budgeted.length, resumedBytes: bytesOf(finished) };
  yield* runMissing(run, first, totalBytes);
  if (o.target === undefined) return;
  for (const t of budgeted) {
    const { rates: curves } = done.get(ratesLabel(t)) as { rates: readonly RatesResult[] };
    for (const [i, m] of candidatesOf(t).entries()) allocator.add(t.name, m, curves[i]!);
  }
  const target = targetOf(run, o.target, budgeted, totalBytes);
  yield* reachTarget(target);
  if (run.data === undefined) return;
  const data = run.data;
  yield { type: 'phase', job: JOB, phase: 'measuring what errors do' };
  const schedule = { job: JOB, pool: run.pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes: plan.rawBytes };
  run.weighed.push(yield* weighTarget({ target, schedule, probe: (act) => probe(run, target.shared, data, act) }));
}

/** The delta as it stands, written beside the journal for the probes of `act`. */
async function* probe<T>(
  run: Run,
  tensors: readonly string[],
  data: CalibrationData,
  act: (p: Probes) => AsyncGenerator<ProgressEvent, T, void>,
): AsyncGenerator<ProgressEvent, T, void> {
  const { o, tuned, journal, settings } = run;
  const file = `${journal.spool('probe')}.safetensors`;
  io.remove(file);
  writeDelta(file, (await assemble(assemblyOf(run))).content, { force: true });
  try {
    const argument = `${o.base!}+${file}`;
    await using lossy = await openAny(argument);
    const model = await modelRef(o.tuned, tuned);
    const { numLayers } = requireCausalConfig(model.config, model.configFile);
    const squares = (name: string): number => (run.done.get(name) as { encode: EncodeResult }).encode.squares?.[0] ?? 0;
    const probes = {
      tuned: model,
      tensors,
      layers: numLayers,
      errorSq: squares,
      sequences: data.sequences,
      settings,
      spool: (name: string) => journal.spool(name),
    };
    return yield* act({ ...probes, lossy: refOf(lossy, argument) });
  } finally {
    io.remove(file);
  }
}

const candidatesOf = (t: PlannedTensor): readonly number[] => t.candidates ?? [t.method];
const ratesLabel = (t: PlannedTensor): string => `rates:${t.name}`;

function targetOf(run: Run, target: DeltaTarget, budgeted: readonly PlannedTensor[], totalBytes: number): TargetRun {
  const { o, plan, done, allocator } = run;
  const budget = o.embeddings !== undefined && o.embeddings !== 'lossless' && 'bytes' in o.embeddings ? o.embeddings : undefined;
  const isOwn = (t: PlannedTensor): boolean => budget !== undefined && (t.role === 'embedding' || t.role === 'head');
  const bytes = targetBytes(target, plan.rawBytes);
  const names = (tensors: readonly PlannedTensor[]): string[] => tensors.map((t) => t.name);
  return {
    allocator,
    shared: names(budgeted.filter((t) => !isOwn(t))),
    own: names(budgeted.filter(isOwn)),
    ...(budget === undefined ? {} : { ownBytes: budget.bytes }),
    ...(bytes === undefined ? { maxError: target.maxError ?? 0 } : { bytes }),
    fixedBytes: async () => deltaBytes((await assemble(withPlaceholders(run, new Set(names(budgeted))))).content),
    fileBytes: async () => deltaBytes((await assemble(assemblyOf(run))).content),
    result: (name) => (done.get(name) as { encode: EncodeResult }).encode,
    async *encode(choices) {
      const fits = (name: string): boolean => {
        const value = done.get(name);
        const [was, is] = [value !== undefined && 'encode' in value ? value.choice : undefined, choices.get(name)!];
        return was?.method === is.method && was.point === is.point;
      };
      for (const name of choices.keys()) if (!fits(name)) done.delete(name);
      yield* runMissing(run, encodeJobs(run, budgeted, choices), totalBytes);
    },
  };
}

/** Results that take as much of the header as real ones: hashes do not deflate. */
function withPlaceholders(run: Run, tensors: ReadonlySet<string>): Assembly {
  const a = assemblyOf(run);
  const sha = (name: string, what: string): string => createHash('sha256').update(`${what}:${name}`).digest('hex');
  return {
    ...a,
    method: (t) => (tensors.has(t.name) ? run.plan.methods.length - 1 : a.method(t)),
    result: (name) =>
      !tensors.has(name)
        ? a.result(name)
        : {
            info: { identical: false, facts: { rank: 100 } },
            parts: [{ part: 'levels', dtype: 'U8', shape: [0], bytes: 0, sha256: sha(name, 'part') }],
            tunedSha256: sha(name, 'tuned'),
            restoredSha256: sha(name, 'restored'),
            baseSha256: sha(name, 'base'),
            byMethod: true,
          },
    baseSha256: (name) => (tensors.has(name) ? sha(name, 'base') : a.baseSha256(name)),
  };
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
    const value = { ...doneOf(job.task, result), ...choiceOf(run, job.task) };
    journal.append(job.label, value);
    done.set(job.label, value);
    if (!('encode' in value)) return undefined;
    const t = plan.tensors.find((p) => p.name === job.label)!;
    const bytes = value.encode.parts.reduce((sum, p) => sum + p.bytes, 0);
    return { type: 'tensor.done', job: JOB, tensor: job.label, method: usedMethod(run, t, value.encode), bytes, rawBytes: job.bytes };
  });
}

function doneOf(task: AnyTask, result: unknown): Done {
  if (task.type === 'hash') return { hash: result as HashResult };
  return task.type === 'rates' ? { rates: result as readonly RatesResult[] } : { encode: result as EncodeResult };
}

function choiceOf(run: Run, task: AnyTask): { choice?: Choice } {
  if (task.type !== 'encode' || task.point === undefined) return {};
  return { choice: { method: run.plan.methods.findIndex((m) => m.name === task.method.name && m.params === task.method.params), point: task.point } };
}

const methodOf = (run: Run, t: PlannedTensor): number => {
  const value = run.done.get(t.name);
  return (value !== undefined && 'encode' in value ? value.choice?.method : undefined) ?? t.method;
};

const usedMethod = (run: Run, t: PlannedTensor, r: EncodeResult): string =>
  r.info.identical ? 'identical' : run.plan.methods[r.byMethod ? methodOf(run, t) : 0]!.name;

/** Name of a tensor's spooled parts: names may hold anything, their hash may not. */
const spoolName = (tensor: string): string => createHash('sha256').update(tensor).digest('hex').slice(0, 32);

function encodeJobs(run: Run, tensors: readonly PlannedTensor[], choices?: ReadonlyMap<string, Choice>): Job<EncodeTask>[] {
  const { plan, refs, settings, journal } = run;
  return tensors.map((t) => {
    const stats = run.stats.get(t.name);
    const choice = choices?.get(t.name);
    const { name, params } = plan.methods[choice?.method ?? t.method]!;
    return {
      label: t.name,
      bytes: t.bytes,
      memoryBytes: memoryOf(plan, t, stats !== undefined),
      task: {
        type: 'encode',
        settings,
        method: { name, params },
        tuned: { checkpoint: refs.tuned, name: t.name },
        ...(t.hasBase && refs.base !== undefined ? { base: { checkpoint: refs.base, name: t.name } } : {}),
        ...commonRows(t),
        ...(choice === undefined ? {} : { point: choice.point }),
        ...(stats === undefined ? {} : { stats }),
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
    const both = { base: { checkpoint: refs.base!, name: t.name }, tuned: { checkpoint: refs.tuned, name: t.name } };
    const methods = candidatesOf(t).map((m) => ({ name: plan.methods[m]!.name, params: plan.methods[m]!.params }));
    const task: RatesTask = { type: 'rates', settings, methods, ...both, ...commonRows(t), share };
    return { label: ratesLabel(t), bytes: t.bytes, memoryBytes: memoryOf(plan, t), task };
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

/** Of a tensor's parts; a remainder is checked when it is known against what it was coded. */
function spoolIsWhole(journal: Journal<Done>, key: string, value: Done): boolean {
  if (!('encode' in value)) return true;
  return value.encode.parts.every((p) => {
    const file = `${journal.spool(spoolName(key))}.${p.part}`;
    return io.stat(file)?.bytes === p.bytes && createHash('sha256').update(io.readFile(file)).digest('hex') === p.sha256;
  });
}

function assemblyOf(run: Run): Assembly {
  const { o, plan, base, tuned, journal, done } = run;
  return {
    paths: { base: o.base, tuned: o.tuned },
    plan,
    base,
    tuned,
    result: (name) => (done.get(name) as { encode: EncodeResult }).encode,
    method: (t) => methodOf(run, t),
    baseSha256: (name) => {
      const value = done.get(name);
      if (value !== undefined && 'encode' in value && value.encode.baseSha256 !== undefined) return value.encode.baseSha256;
      return (done.get(`base:${name}`) as { hash: HashResult }).hash.sha256;
    },
    sideSpool: journal.spool('side-files'),
    spoolFile: (tensor, part) => `${journal.spool(spoolName(tensor))}.${part}`,
    ...(o.progressive === true ? { room: EXACT_ROOM } : {}),
  };
}

async function* finish(run: Run): AsyncGenerator<ProgressEvent, EncodeReport, void> {
  const { o, plan, settings } = run;
  const assembly = assemblyOf(run);
  const { content, baseHash, tunedHash } = await assemble(assembly);
  const lossyTensors = plan.tensors.filter((t) => assembly.result(t.name).restoredSha256 !== assembly.result(t.name).tunedSha256);
  const two = o.progressive === true && lossyTensors.length > 0 ? yield* writeBoth(run, content, lossyTensors) : undefined;
  if (two === undefined) run.journal.publishing();
  const bytes = two?.bytes ?? writeDelta(o.out, withoutRoom(content), { force: o.force });
  // a tensor that the budget stores exactly has a delta and no error
  const squares = plan.tensors.map((t) => assembly.result(t.name).squares ?? [0, run.allocator.deltaSq(t.name)]);
  const [error, delta] = [squares.reduce((sum, s) => sum + s[0], 0), squares.reduce((sum, s) => sum + s[1], 0)];
  return {
    out: o.out,
    bytes,
    rawBytes: plan.rawBytes,
    ratio: plan.rawBytes === 0 ? 0 : bytes / plan.rawBytes,
    ...(two === undefined ? {} : { layers: { lossy: two.lossyBytes, exact: bytes - two.lossyBytes } }),
    ...(delta > 0 ? { error: Math.sqrt(error / delta) } : {}),
    ...(baseHash === undefined ? {} : { baseHash }),
    tunedHash,
    device: settings.device,
    ...(run.weighed[0] === undefined ? {} : { sensitivity: run.weighed[0] }),
    tensors: plan.tensors.map((t) => encodedTensor(run, t, assembly.result(t.name), two?.exactBytes.get(t.name))),
    sideFiles: content.manifest.tuned.sideFiles.map((f) => ({ name: f.name, coding: f.coding })),
  };
}

/** A file that needs no second layer has no room for one. */
function withoutRoom(content: DeltaContent): DeltaContent {
  const { manifest, parts, headers, sideFiles } = content;
  return { manifest, parts, headers, sideFiles };
}

/** The lossy layer to the spool, the remainders against what it restores to, both to the output. */
async function* writeBoth(run: Run, content: DeltaContent, tensors: readonly PlannedTensor[]): AsyncGenerator<ProgressEvent, TwoLayers, void> {
  const { o, plan, refs, settings, journal, pool, done } = run;
  const delta = journal.spool('lossy.safetensors');
  const lossyBytes = writeDelta(delta, content, { force: true });
  const doneBytes = [...plan.tensors, ...mayNeedRemainder(o, plan)].reduce((sum, t) => sum + t.bytes, 0);
  const remainders = yield* codeRemainders({
    delta,
    tensors: tensors.map((t) => ({ tensor: t, against: (done.get(t.name) as { encode: EncodeResult }).encode.restoredSha256 })),
    refs,
    settings,
    spool: (tensor) => journal.spool(spoolName(tensor)),
    done: (key) => done.get(key) as DoneRemainder | undefined,
    onDone: (key, value) => journal.append(key, value),
    schedule: { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes: doneBytes },
  });
  journal.publishing();
  const bytes = writeTwoLayers(o.out, delta, remainders, { force: o.force });
  return { bytes, lossyBytes, exactBytes: new Map(remainders.map((r) => [r.name, r.bytes])) };
}

function encodedTensor(run: Run, t: PlannedTensor, r: EncodeResult, exactBytes: number | undefined): EncodedTensor {
  return {
    name: t.name,
    method: usedMethod(run, t, r),
    bytes: r.parts.reduce((sum, p) => sum + p.bytes, exactBytes ?? 0),
    rawBytes: t.bytes,
    ...(exactBytes === undefined ? {} : { exactBytes }),
    ...(r.info.error === undefined ? {} : { error: r.info.error }),
    ...(Object.keys(r.info.facts).length === 0 ? {} : { facts: r.info.facts }),
  };
}
