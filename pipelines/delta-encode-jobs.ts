/** The tasks of an encode, and running those that no earlier run has done. */
import { createHash } from 'node:crypto';
import type { ProgressEvent } from '../core/events.js';
import * as io from '../formats/io.js';
import type { EncodeResult, EncodeTask, HashResult, HashTask, RatesResult, RatesTask } from '../workers/messages/delta.js';
import { commonRows } from './delta-assemble.js';
import { targetBytes, type Choice } from './delta-budget.js';
import type { PlannedTensor } from './delta-plan.js';
import type { Journal } from './journal.js';
import { runJobs, type Job } from './schedule.js';
import { type Done, type AnyTask, JOB, TYPICAL, type Run, memoryOf, candidatesOf, ratesLabel, usedMethod, spoolName } from './delta-encode-run.js';

export async function* runMissing(run: Run, jobs: readonly Job<AnyTask>[], totalBytes: number): AsyncGenerator<ProgressEvent, void, void> {
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

export function encodeJobs(run: Run, tensors: readonly PlannedTensor[], choices?: ReadonlyMap<string, Choice>): Job<EncodeTask>[] {
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

export function ratesJobs(run: Run, tensors: readonly PlannedTensor[]): Job<RatesTask>[] {
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
export function hashJobs({ plan, refs }: Run): Job<HashTask>[] {
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
export function spoolIsWhole(journal: Journal<Done>, key: string, value: Done): boolean {
  if (!('encode' in value)) return true;
  return value.encode.parts.every((p) => {
    const file = `${journal.spool(spoolName(key))}.${p.part}`;
    return io.stat(file)?.bytes === p.bytes && createHash('sha256').update(io.readFile(file)).digest('hex') === p.sha256;
  });
}
