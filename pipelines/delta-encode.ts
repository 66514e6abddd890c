/** `pith delta encode`: plan from headers, code every tensor, put the file together. */
import { dirname, resolve } from 'node:path';
import type { Device } from '../core/device.js';
import { PithError } from '../core/errors.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { pithVersion } from '../core/version.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import * as io from '../formats/io.js';
import type { RatesResult } from '../workers/messages/delta.js';
import type { LayerStatsRef } from '../workers/messages/refs.js';
import { openAny } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import { Allocator, targetBytes } from './delta-budget.js';
import { reachTarget } from './delta-target.js';
import { methodsOf } from './delta-methods.js';
import { calibrationData } from './calibration-data.js';
import { openStats, planStats, type StatsModels } from './delta-stats.js';
import { weighTarget } from './delta-weigh.js';
import { planDelta, type DeltaPlan, type PlannedTensor } from './delta-plan.js';
import { Journal, refuseExisting } from './journal.js';
import { keptAsRead, readerWarnings } from './reader-warnings.js';
import { resolveRunDevice, runSettings } from './run-options.js';
import type { Job } from './schedule.js';
import { finish } from './delta-encode-file.js';
import { runMissing, ratesJobs, spoolIsWhole, encodeJobs, hashJobs } from './delta-encode-jobs.js';
import {
  type EncodeOptions,
  type EncodeReport,
  type Done,
  type AnyTask,
  JOB,
  TYPICAL,
  type Run,
  refOf,
  isLossy,
  mayNeedRemainder,
  memoryOf,
  candidatesOf,
  ratesLabel,
} from './delta-encode-run.js';
import { targetOf, probe } from './delta-encode-share.js';

export type { EncodedTensor, EncodeOptions, EncodeReport } from './delta-encode-run.js';

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
    if (o.progressive === true && (o.base === undefined || plan.methods.every((m) => m.codec.lossless)))
      throw new PithError('USAGE', { message: '--progressive: a base and a lossy --method, or auto, make the first layer' });
    const lossy = plan.tensors.some((t) => isLossy(plan, t));
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

/** The checkpoints that statistics may be of. */
function modelsOf(o: EncodeOptions, base: CheckpointReader | undefined, tuned: CheckpointReader): StatsModels {
  const both = [...(base === undefined ? [] : [{ argument: o.base!, reader: base }]), { argument: o.tuned, reader: tuned }];
  return { both, job: JOB, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal };
}

function dryRun(o: EncodeOptions, plan: DeltaPlan, device: Device): EncodeReport {
  const share = (t: PlannedTensor): number =>
    isLossy(plan, t) ? TYPICAL.lossyRatio : t.hasBase ? TYPICAL.pairRatio : t.method > 0 ? TYPICAL.prunedRatio : TYPICAL.aloneRatio;
  const predicted = plan.tensors.map((t) => ({ name: t.name, method: plan.methods[t.method]!.name, rawBytes: t.bytes, bytes: Math.round(t.bytes * share(t)) }));
  const target = o.target === undefined ? undefined : targetBytes(o.target, plan.rawBytes);
  const exact = mayNeedRemainder(o, plan).reduce((sum, t) => sum + t.bytes, 0);
  const bytes = (target ?? predicted.reduce((sum, t) => sum + t.bytes, 0)) + Math.round(exact * TYPICAL.remainderRatio);
  const lossyMs = plan.tensors.reduce((sum, t) => sum + t.bytes / (isLossy(plan, t) ? TYPICAL.lossyBytesPerMs : TYPICAL.bytesPerMs), 300);
  const ms = lossyMs + exact / TYPICAL.bytesPerMs;
  const largest = Math.max(0, ...plan.tensors.map((t) => memoryOf(plan, t)));
  const peakBytes = TYPICAL.mainBytes + Math.max(largest, Math.min(o.maxMemoryBytes, o.threads * Math.max(TYPICAL.workerBytes, largest)));
  return { out: o.out, bytes: 0, rawBytes: plan.rawBytes, ratio: 0, device, tensors: predicted, sideFiles: [], plan: { bytes, peakBytes, ms: Math.round(ms) } };
}

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
