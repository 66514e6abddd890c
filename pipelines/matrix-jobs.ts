/** One task for every matrix of a checkpoint, or for every one that it shares with a base. */
import type { Pipeline } from '../core/events.js';
import { isFloat } from '../core/float.js';
import { byteLength, matrixShape, sameShape } from '../core/shape.js';
import { checkpointStamp } from '../formats/stamp.js';
import type { ResultOf, Task } from '../workers/messages.js';
import type { RunSettings, TensorRef } from '../workers/messages/refs.js';
import { openAny, resolveCheckpoint } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import { runSettings, type RunOptions } from './run-options.js';
import { runJobs, type Job } from './schedule.js';

export interface MatrixOptions extends RunOptions {
  readonly checkpoint: string;
  readonly base?: string;
  readonly selects: (name: string) => boolean;
}

export interface MatrixWork<T extends Task> {
  readonly job: string;
  readonly task: (settings: RunSettings, tensor: TensorRef, base: TensorRef | undefined) => T;
  /** Host memory of a matrix (m, n). */
  readonly memoryBytes: (m: number, n: number) => number;
}

/** By tensor name: float tensors of two or more dimensions, conv kernels as (out, in kh kw); with a base, those of one shape with a float tensor in it. */
export async function* eachMatrix<T extends Task>(o: MatrixOptions, work: MatrixWork<T>): Pipeline<ReadonlyMap<string, ResultOf<T>>> {
  const started = performance.now();
  await using tuned = await openAny(o.checkpoint);
  await using base = o.base === undefined ? undefined : await openAny(o.base);
  const ref = { path: resolveCheckpoint(o.checkpoint), stamp: checkpointStamp(tuned) };
  const baseRef = base === undefined ? undefined : { path: resolveCheckpoint(o.base!), stamp: checkpointStamp(base) };
  const settings = runSettings(o, 'cpu');
  const jobs: Job<T>[] = [];
  for (const { name, dtype, shape } of tuned.infos.values()) {
    if (!o.selects(name) || !isFloat(dtype) || shape.length < 2) continue;
    const [m, n] = matrixShape(shape);
    if (Math.min(m, n) < 2) continue;
    const twin = base?.infos.get(name);
    if (base !== undefined && (twin === undefined || !isFloat(twin.dtype) || !sameShape(twin.shape, shape))) continue;
    const task = work.task(settings, { checkpoint: ref, name }, baseRef && { checkpoint: baseRef, name });
    jobs.push({ label: name, bytes: byteLength(dtype, shape), memoryBytes: work.memoryBytes(m, n), task });
  }
  const totalBytes = jobs.reduce((sum, j) => sum + j.bytes, 0);
  const out = new Map<string, ResultOf<T>>();
  await using pool = new WorkerPool({ threads: o.threads });
  yield { type: 'job.start', job: work.job, totalBytes, tasks: jobs.length, resumedBytes: 0 };
  yield* runJobs(jobs, { job: work.job, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes }, (job, result) => {
    out.set(job.label, result);
    return undefined;
  });
  yield { type: 'job.done', job: work.job, ms: performance.now() - started };
  return new Map(jobs.map((j) => [j.label, out.get(j.label)!]));
}
