/** Second half of a progressive encode: what is left between each tensor and what the lossy layer restores it to. */
import { createHash } from 'node:crypto';
import type { ProgressEvent } from '../core/events.js';
import type { SpooledRemainder } from '../formats/delta/layers.js';
import * as io from '../formats/io.js';
import type { RemainderResult, RemainderTask } from '../workers/messages/delta.js';
import type { CheckpointRef, RunSettings } from '../workers/messages/refs.js';
import type { PlannedTensor } from './delta-plan.js';
import { runJobs, type Job, type ScheduleOptions } from './schedule.js';

/** What the journal keeps of one. */
export interface DoneRemainder {
  readonly remainder: RemainderResult;
  /** SHA-256 of what it was coded against: another choice of the lossy codec makes it void. */
  readonly against: string;
}

export interface RemaindersRun {
  /** The lossy layer as a file. */
  readonly delta: string;
  /** In the order of the file. */
  readonly tensors: readonly { readonly tensor: PlannedTensor; readonly against: string }[];
  readonly refs: { readonly tuned: CheckpointRef; readonly base?: CheckpointRef };
  readonly settings: RunSettings;
  /** Path of a tensor's spooled data without an ending. */
  spool(tensor: string): string;
  /** By key, what an earlier run left; what this one adds. */
  done(key: string): DoneRemainder | undefined;
  onDone(key: string, value: DoneRemainder): void;
  readonly schedule: ScheduleOptions;
}

/** The coder's scratch and a tensor that does not fit in memory goes to a file. */
const MEMORY_BYTES = 100 << 20;

export async function* codeRemainders(run: RemaindersRun): AsyncGenerator<ProgressEvent, SpooledRemainder[], void> {
  const results = new Map<string, RemainderResult>();
  for (const { tensor, against } of run.tensors) {
    const value = run.done(keyOf(tensor.name));
    if (value?.against === against && isWhole(fileOf(run, tensor.name), value.remainder)) results.set(tensor.name, value.remainder);
  }
  const missing = run.tensors.filter(({ tensor }) => !results.has(tensor.name));
  const against = new Map(missing.map((t) => [t.tensor.name, t.against]));
  const jobs = missing.map(({ tensor }) => jobOf(run, tensor));
  const left = jobs.reduce((sum, j) => sum + j.bytes, 0);
  const { totalBytes } = run.schedule;
  yield* runJobs(jobs, { ...run.schedule, doneBytes: totalBytes - left }, (job, result) => {
    run.onDone(keyOf(job.label), { remainder: result, against: against.get(job.label)! });
    results.set(job.label, result);
    return undefined;
  });
  return run.tensors.map(({ tensor: { name } }) => ({ name, ...results.get(name)!, file: fileOf(run, name) }));
}

const keyOf = (tensor: string): string => `exact:${tensor}`;
const spoolOf = (run: RemaindersRun, tensor: string): string => `${run.spool(tensor)}.exact`;
const fileOf = (run: RemaindersRun, tensor: string): string => `${spoolOf(run, tensor)}.residual`;

function isWhole(file: string, r: RemainderResult): boolean {
  return io.stat(file)?.bytes === r.bytes && createHash('sha256').update(io.readFile(file)).digest('hex') === r.sha256;
}

function jobOf(run: RemaindersRun, t: PlannedTensor): Job<RemainderTask> {
  const { delta, refs, settings } = run;
  const base = t.hasBase && refs.base !== undefined ? { base: { checkpoint: refs.base, name: t.name } } : {};
  const task: RemainderTask = { type: 'remainder', settings, delta, tuned: { checkpoint: refs.tuned, name: t.name }, ...base, spool: spoolOf(run, t.name) };
  return { label: t.name, bytes: t.bytes, memoryBytes: MEMORY_BYTES, task };
}
