/** Singular values of the matrices of a checkpoint, or of what a fine-tune added to them: for `inspect` and `diff`. */
import type { Pipeline } from '../core/events.js';
import { isFloat } from '../core/float.js';
import { byteLength, matrixShape, sameShape } from '../core/shape.js';
import { checkpointStamp } from '../formats/stamp.js';
import type { SpectrumResult, SpectrumTask } from '../workers/messages.js';
import { openAny, resolveCheckpoint } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import { runSettings, type RunOptions } from './run-options.js';
import { runJobs, type Job } from './schedule.js';

export interface SpectrumOptions extends RunOptions {
  readonly checkpoint: string;
  /** With it: the spectra of checkpoint - base. */
  readonly base?: string;
  readonly selects: (name: string) => boolean;
}

/** What is known of one matrix; `values` are its leading singular values, falling. */
export type Spectrum = SpectrumResult;

const JOB = 'spectrum';

/** By tensor name: float tensors of two or more dimensions, conv kernels as (out, in kh kw). */
export async function* spectra(o: SpectrumOptions): Pipeline<ReadonlyMap<string, Spectrum>> {
  const started = performance.now();
  await using tuned = await openAny(o.checkpoint);
  await using base = o.base === undefined ? undefined : await openAny(o.base);
  const ref = { path: resolveCheckpoint(o.checkpoint), stamp: checkpointStamp(tuned) };
  const baseRef = base === undefined ? undefined : { path: resolveCheckpoint(o.base!), stamp: checkpointStamp(base) };
  const settings = runSettings(o, 'cpu');
  const jobs: Job<SpectrumTask>[] = [];
  for (const info of tuned.infos.values()) {
    const { name, dtype, shape } = info;
    if (!o.selects(name) || !isFloat(dtype) || shape.length < 2) continue;
    const [m, n] = matrixShape(shape);
    if (Math.min(m, n) < 2) continue;
    const twin = base?.infos.get(name);
    if (base !== undefined && (twin?.dtype !== dtype || !sameShape(twin.shape, shape))) continue;
    const task: SpectrumTask = {
      type: 'spectrum',
      settings,
      tensor: { checkpoint: ref, name },
      ...(baseRef === undefined ? {} : { base: { checkpoint: baseRef, name } }),
    };
    jobs.push({ label: name, bytes: byteLength(dtype, shape), memoryBytes: 4 * m * n + 16 * Math.min(m, n) ** 2 + (64 << 20), task });
  }
  const totalBytes = jobs.reduce((sum, j) => sum + j.bytes, 0);
  const out = new Map<string, Spectrum>();
  await using pool = new WorkerPool({ threads: o.threads });
  yield { type: 'job.start', job: JOB, totalBytes, tasks: jobs.length, resumedBytes: 0 };
  yield* runJobs(jobs, { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes }, (job, result) => {
    out.set(job.label, result);
    return undefined;
  });
  yield { type: 'job.done', job: JOB, ms: performance.now() - started };
  return new Map(jobs.map((j) => [j.label, out.get(j.label)!]));
}
