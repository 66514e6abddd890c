/** `pith delta verify`: decodes everything, writes nothing, and says which tensor is not what the file promises. */
import { PithError } from '../core/errors.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import type { DecodeTask, HashTask } from '../workers/messages/delta.js';
import { checkpointStamp } from '../formats/stamp.js';
import { openAny, resolveCheckpoint } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import { fetchSpans, spansOf } from './delta-locate.js';
import { decodeJobs, openDelta, type OpenedDelta } from './delta-open.js';
import type { Mismatch, VerifyOptions, VerifyReport } from './delta-reports.js';
import { runJobs, type Job } from './schedule.js';

const JOB = 'delta verify';

export async function* deltaVerify(o: VerifyOptions): Pipeline<VerifyReport> {
  const diff = await import('./bitdelta-diff.js');
  if (diff.isBitDeltaDiff(o.delta)) return yield* diff.verifyDiff(o);
  const started = performance.now();
  await using pool = new WorkerPool({ threads: o.threads });
  const opened = await openDelta(o.delta, o.base, o);
  const { delta, quality } = opened;
  try {
    const mismatches: Mismatch[] = [];
    const jobs: Job<DecodeTask>[] = decodeJobs(o, opened, () => undefined);
    const totalBytes = jobs.reduce((sum, j) => sum + j.bytes, 0) * (o.tuned === undefined ? 1 : 2);
    const schedule = { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes };
    yield { type: 'job.start', job: JOB, totalBytes, tasks: jobs.length, resumedBytes: 0 };
    yield* fetchSpans(opened, spansOf(delta, delta.entries.values(), quality));
    const lenient = jobs.map((j) => ({ ...j, task: { ...j.task, lenient: true } }));
    yield* runJobs(lenient, schedule, (job, result) => {
      const t = delta.entry(job.label);
      const promised = delta.expected(t, quality);
      const add = (what: Mismatch['what'], expected: string, got: string): void => void mismatches.push({ tensor: t.name, what, expected, got });
      if (t.base !== undefined && result.baseSha256 !== t.base.sha256) add('base', t.base.sha256, result.baseSha256 ?? 'nothing');
      else if (result.damaged !== undefined) add(result.layer === 'exact' ? 'exact' : 'data', promised, result.damaged);
      else if (result.sha256 !== promised) add('restored', promised, result.sha256);
      return undefined;
    });
    delta.tunedFiles();
    await delta.unpackSideFiles();
    if (o.tuned !== undefined) yield* compareTuned(o, o.tuned, opened, pool, totalBytes, mismatches);
    mismatches.sort((a, b) => (a.tensor < b.tensor ? -1 : a.tensor > b.tensor ? 1 : 0));
    yield { type: 'job.done', job: JOB, ms: performance.now() - started };
    return { ok: mismatches.length === 0, checked: jobs.length, exact: quality === 'exact', proven: true, mismatches };
  } finally {
    opened[Symbol.dispose]();
    await opened.base?.[Symbol.asyncDispose]();
  }
}

async function* compareTuned(
  o: VerifyOptions,
  path: string,
  opened: OpenedDelta,
  pool: WorkerPool,
  totalBytes: number,
  mismatches: Mismatch[],
): AsyncGenerator<ProgressEvent, void, void> {
  await using tuned = await openAny(path);
  const { delta } = opened;
  for (const name of delta.entries.keys()) if (!tuned.infos.has(name)) throw new PithError('TENSOR_MISSING', { file: path, tensor: name });
  for (const name of tuned.infos.keys()) {
    if (!delta.entries.has(name)) mismatches.push({ tensor: name, what: 'tuned', expected: 'not in the delta', got: `in ${path}` });
  }
  const checkpoint = { path: resolveCheckpoint(path), stamp: checkpointStamp(tuned) };
  const jobs = [...delta.entries.keys()].map((name): Job<HashTask> => ({
    label: name,
    bytes: 0,
    memoryBytes: 8 << 20,
    task: { type: 'hash', tensor: { checkpoint, name } },
  }));
  yield* runJobs(jobs, { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes }, (job, result) => {
    const { sha256 } = delta.entry(job.label);
    if (result.sha256 !== sha256) mismatches.push({ tensor: job.label, what: 'tuned', expected: sha256, got: result.sha256 });
    return undefined;
  });
}
