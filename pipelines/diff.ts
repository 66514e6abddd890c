/** `pith diff`: tensor by tensor, what a fine-tune changed. */
import type { Pipeline } from '../core/events.js';
import { isFloat } from '../core/float.js';
import { byteLength, sameShape } from '../core/shape.js';
import { checkpointStamp } from '../formats/stamp.js';
import { placeOf, type Place } from '../models/place.js';
import type { DiffResult, DiffTask } from '../workers/messages/matrices.js';
import { openAny, resolveCheckpoint } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import { readerWarnings } from './reader-warnings.js';
import { INTRUDER_DEFAULTS, intruders, type IntrudersResult } from './intruders.js';
import { runSettings, type RunOptions } from './run-options.js';
import { runJobs, type Job } from './schedule.js';
import { spectra, type Spectrum } from './spectrum.js';

export interface DiffOptions extends RunOptions {
  readonly base: string;
  readonly tuned: string;
  readonly selects: (name: string) => boolean;
  /** Singular values and intruder dimensions of every changed matrix as well. */
  readonly spectrum?: boolean;
  readonly intruders?: { readonly top: number; readonly cosine: number };
}

export interface DiffedTensor {
  readonly name: string;
  /** `reshaped`: of another shape, or of another dtype that is no float. */
  readonly status: 'same' | 'changed' | 'added' | 'removed' | 'reshaped';
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly changedShare?: number;
  /** ||W1 - W0||_F / ||W0||_F */
  readonly relativeNorm?: number;
  readonly maxAbs?: number;
  /** ||W1 - W0||_F and ||W0||_F */
  readonly deltaNorm?: number;
  readonly baseNorm?: number;
  readonly place: Place;
  readonly spectrum?: Spectrum;
  readonly intruders?: IntrudersResult;
}

export interface DiffReport {
  readonly base: string;
  readonly tuned: string;
  readonly tensors: readonly DiffedTensor[];
  readonly summary: { readonly elements: number; readonly changedShare: number; readonly relativeNorm: number };
  /** What counted as an intruder dimension, when they were looked for. */
  readonly intruders?: { readonly top: number; readonly cosine: number };
}

const JOB = 'diff';

export async function* diffCheckpoints(o: DiffOptions): Pipeline<DiffReport> {
  const started = performance.now();
  await using base = await openAny(o.base);
  await using tuned = await openAny(o.tuned);
  const names = [...new Set([...base.infos.keys(), ...tuned.infos.keys()])].filter(o.selects);
  const refs = {
    base: { path: resolveCheckpoint(o.base), stamp: checkpointStamp(base) },
    tuned: { path: resolveCheckpoint(o.tuned), stamp: checkpointStamp(tuned) },
  };
  yield* readerWarnings(JOB, base, tuned);
  const settings = runSettings(o, 'cpu');
  const jobs: Job<DiffTask>[] = [];
  const tensors = new Map<string, DiffedTensor>();
  for (const name of names) {
    const a = base.infos.get(name);
    const b = tuned.infos.get(name);
    const info = (b ?? a)!;
    const status = a === undefined ? 'added' : b === undefined ? 'removed' : 'reshaped';
    const dtype = a === undefined || b === undefined || a.dtype === b.dtype ? info.dtype : `${a.dtype} -> ${b.dtype}`;
    tensors.set(name, { name, status, dtype, shape: info.shape, place: placeOf(name) });
    if (a === undefined || b === undefined || !sameShape(a.shape, b.shape)) continue;
    // floats of two dtypes, a quantized model and its original, say, are compared by their values
    if (a.dtype !== b.dtype && !(isFloat(a.dtype) && isFloat(b.dtype))) continue;
    const task: DiffTask = { type: 'diff', settings, base: { checkpoint: refs.base, name }, tuned: { checkpoint: refs.tuned, name } };
    jobs.push({ label: name, bytes: byteLength(b.dtype, b.shape), memoryBytes: 32 << 20, task });
  }
  const totalBytes = jobs.reduce((sum, j) => sum + j.bytes, 0);
  const sums = { elements: 0, changed: 0, delta: 0, base: 0 };
  await using pool = new WorkerPool({ threads: o.threads });
  yield { type: 'job.start', job: JOB, totalBytes, tasks: jobs.length, resumedBytes: 0 };
  yield* runJobs(jobs, { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes }, (job, result) => {
    tensors.set(job.label, measured(tensors.get(job.label)!, result));
    sums.elements += result.elements;
    sums.changed += result.changed;
    sums.delta += result.deltaNorm ** 2;
    sums.base += result.baseNorm ** 2;
    return undefined;
  });
  yield { type: 'job.done', job: JOB, ms: performance.now() - started };
  const summary = { elements: sums.elements, changedShare: share(sums.changed, sums.elements), relativeNorm: Math.sqrt(share(sums.delta, sums.base)) };
  const compared = { base: o.base, tuned: o.tuned, summary };
  if (o.spectrum !== true) return { ...compared, tensors: [...tensors.values()] };
  const limits = o.intruders ?? INTRUDER_DEFAULTS;
  const changed = new Set([...tensors.values()].filter((t) => t.status === 'changed').map((t) => t.name));
  const matrices = { ...o, checkpoint: o.tuned, selects: (name: string) => changed.has(name) };
  const found = yield* spectra(matrices);
  const foreign = yield* intruders({ ...matrices, ...limits });
  const rows = [...tensors.values()].map((t) => (found.has(t.name) ? { ...t, spectrum: found.get(t.name)!, intruders: foreign.get(t.name)! } : t));
  return { ...compared, tensors: rows, intruders: limits };
}

const share = (part: number, whole: number): number => (whole > 0 ? part / whole : 0);

function measured(t: DiffedTensor, r: DiffResult): DiffedTensor {
  return {
    ...t,
    status: r.changed === 0 ? 'same' : 'changed',
    changedShare: share(r.changed, r.elements),
    relativeNorm: share(r.deltaNorm, r.baseNorm),
    maxAbs: r.maxAbs,
    deltaNorm: r.deltaNorm,
    baseNorm: r.baseNorm,
  };
}
