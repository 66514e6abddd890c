/** `pith delta restore`, `verify` and `info` of a diff as BitDelta's release saves it: what can be said and made without a base's hash. */
import { join } from 'node:path';
import { PithError } from '../core/errors.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { byteLength, totalByteLength } from '../core/shape.js';
import { BitDeltaDiff, WORD_BITS } from '../formats/bitdelta.js';
import { isRemote } from '../formats/remote/ranges.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import * as io from '../formats/io.js';
import { prepareFiles } from '../formats/safetensors/prepared.js';
import { checkpointStamp } from '../formats/stamp.js';
import type { BitDeltaReader } from '../workers/bitdelta-reader.js';
import type { FuseTask } from '../workers/messages/adapters.js';
import type { HashTask } from '../workers/messages/delta.js';
import type { CheckpointRef } from '../workers/messages/refs.js';
import { openAny, resolveCheckpoint } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import type { Mismatch, RestoreOptions, RestoreReport, VerifyOptions, VerifyReport } from './delta-reports.js';
import { checkOutput, published, requireSpace, RESULT } from './publish.js';
import { readerWarnings } from './reader-warnings.js';
import { runSettings } from './run-options.js';
import { runJobs, type Job } from './schedule.js';
import { writeSideFiles } from './write-side-files.js';

/** Only a file here is looked at: a delta behind a URL is pith's own. */
const openDiff = (path: string): BitDeltaDiff | undefined => (isRemote(path) ? undefined : BitDeltaDiff.open(path));

export function isBitDeltaDiff(path: string): boolean {
  using diff = openDiff(path);
  return diff !== undefined;
}

interface Applied {
  readonly reader: BitDeltaReader;
  readonly ref: CheckpointRef;
  readonly names: readonly string[];
}

async function apply(base: string | undefined, delta: string): Promise<Applied> {
  if (base === undefined)
    throw new PithError('USAGE', { message: `--base: ${delta} is a diff of BitDelta's release, which names no base; give the one that it was made from` });
  const argument = `${base}+${delta}`;
  const { BitDeltaReader } = await import('../workers/bitdelta-reader.js');
  const reader = await openAny(argument);
  if (!(reader instanceof BitDeltaReader)) throw new PithError('FILE_CHANGED', { file: delta, expected: 'a diff of BitDelta', got: 'another file' });
  return { reader, ref: { path: resolveCheckpoint(argument), stamp: checkpointStamp(reader) }, names: [...reader.infos.keys()] };
}

const TASK_BYTES = 96 << 20;
const RESTORE = 'delta restore';

/** Base and diff as a checkpoint. */
export async function* restoreDiff(o: RestoreOptions): Pipeline<RestoreReport> {
  const started = performance.now();
  checkOutput(o.out, o.force);
  const applied = await apply(o.base, o.delta);
  await using reader = applied.reader;
  yield* readerWarnings(RESTORE, reader);
  const bytes = reader.files.reduce((sum, f) => sum + f.bytes, 0);
  requireSpace(o.out, bytes);
  const report = {
    out: o.out,
    bytes,
    tensors: applied.names.length,
    exact: false,
    proven: false,
    files: reader.files.map(({ name, bytes: size }) => ({ name, bytes: size })),
  };
  if (o.dryRun) return report;
  const files = yield* published(o.out, o.force, (spool) => writeApplied(o, applied, spool(RESULT)));
  yield { type: 'job.done', job: RESTORE, ms: performance.now() - started };
  return { ...report, bytes: files.reduce((sum, f) => sum + f.bytes, 0), files };
}

async function* writeApplied(
  o: RestoreOptions,
  { reader, ref, names }: Applied,
  out: string,
): AsyncGenerator<ProgressEvent, { name: string; bytes: number }[], void> {
  const single = o.out.endsWith('.safetensors');
  const files = prepareFiles(out, [...reader.infos.values()], { single });
  const settings = runSettings(o, 'cpu');
  const jobs = names.map((name): Job<FuseTask> => {
    const { dtype, shape } = reader.infos.get(name)!;
    const task: FuseTask = { type: 'fuse', settings, base: { checkpoint: ref, name }, dtype, target: files.places.get(name)! };
    return { label: name, bytes: byteLength(dtype, shape), memoryBytes: TASK_BYTES, task };
  });
  const totalBytes = jobs.reduce((sum, j) => sum + j.bytes, 0);
  yield { type: 'job.start', job: RESTORE, totalBytes, tasks: jobs.length, resumedBytes: 0 };
  await using pool = new WorkerPool({ threads: o.threads });
  yield* runJobs(jobs, { job: RESTORE, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes }, () => undefined);
  const sides = single ? [] : await writeSideFiles(reader, out);
  files.finish();
  const size = (path: string): number => io.stat(path)?.bytes ?? 0;
  if (single) return [{ name: '', bytes: size(out) }];
  const weights = io.readdir(out).map((e) => e.name).filter((n) => n.endsWith('.safetensors')).sort(); // prettier-ignore
  return [...weights, ...sides].map((name) => ({ name, bytes: size(join(out, name)) }));
}

const VERIFY = 'delta verify';

/** Every tensor is made, from names, types and shapes that fit; with `tuned` the whole tensors are compared, coded ones cannot be. */
export async function* verifyDiff(o: VerifyOptions): Pipeline<VerifyReport> {
  const started = performance.now();
  const applied = await apply(o.base, o.delta);
  await using reader = applied.reader;
  yield* readerWarnings(VERIFY, reader);
  await using pool = new WorkerPool({ threads: o.threads });
  const totalBytes = totalByteLength(reader.infos.values());
  yield { type: 'job.start', job: VERIFY, totalBytes, tasks: applied.names.length, resumedBytes: 0 };
  const hashes = async function* (ref: CheckpointRef, names: readonly string[], to: Map<string, string>): AsyncGenerator<ProgressEvent, void, void> {
    const jobs = names.map((name): Job<HashTask> => ({
      label: name,
      bytes: 0,
      memoryBytes: TASK_BYTES,
      task: { type: 'hash', tensor: { checkpoint: ref, name } },
    }));
    yield* runJobs(jobs, { job: VERIFY, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes }, (job, r) => {
      to.set(job.label, r.sha256);
      return undefined;
    });
  };
  const made = new Map<string, string>();
  yield* hashes(applied.ref, applied.names, made);
  const mismatches: Mismatch[] = [];
  if (o.tuned !== undefined) {
    await using tuned = await openAny(o.tuned);
    const whole = [...reader.changes].filter(([, c]) => c.whole !== undefined).map(([name]) => name);
    for (const name of whole) if (!tuned.infos.has(name)) throw new PithError('TENSOR_MISSING', { file: o.tuned, tensor: name });
    const theirs = new Map<string, string>();
    yield* hashes(refOf(tuned, o.tuned), whole, theirs);
    for (const name of whole)
      if (made.get(name) !== theirs.get(name)) mismatches.push({ tensor: name, what: 'tuned', expected: made.get(name)!, got: theirs.get(name)! });
  }
  yield { type: 'job.done', job: VERIFY, ms: performance.now() - started };
  return { ok: mismatches.length === 0, checked: made.size, exact: false, proven: false, mismatches };
}

const refOf = (reader: CheckpointReader, path: string): CheckpointRef => ({ path: resolveCheckpoint(path), stamp: checkpointStamp(reader) });

export interface DiffInfo {
  readonly path: string;
  readonly format: 'bitdelta';
  readonly proven: false;
  readonly bytes: number;
  /** `shape` of the weight; that of a coded one follows from its mask. */
  readonly tensors: readonly { readonly name: string; readonly method: 'bitdelta' | 'whole'; readonly shape: readonly number[]; readonly bytes: number }[];
}

/** undefined for a file of another kind. */
export function diffInfo(path: string): DiffInfo | undefined {
  using diff = openDiff(path);
  if (diff === undefined) return undefined;
  const size = (t: { readonly dtype: Parameters<typeof byteLength>[0]; readonly shape: readonly number[] }): number => byteLength(t.dtype, t.shape);
  const coded = [...diff.modules].map(([module, { mask, coeff }]) => {
    const [words, rows] = mask.shape as [number, number];
    return { name: `${module}.weight`, method: 'bitdelta' as const, shape: [rows, words * WORD_BITS], bytes: size(mask) + size(coeff) };
  });
  const whole = [...diff.whole].map(([name, info]) => ({ name, method: 'whole' as const, shape: info.shape, bytes: size(info) }));
  return { path, format: 'bitdelta', proven: false, bytes: diff.file.bytes, tensors: [...coded, ...whole] };
}
