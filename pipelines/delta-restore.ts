/** `pith delta restore`: every file of the tuned checkpoint as it was, proven by hash before it is seen. */
import { createHash } from 'node:crypto';
import { dirname, join, resolve } from 'node:path';
import { PithError } from '../core/errors.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { byteLength } from '../core/shape.js';
import type { TunedFile } from '../formats/delta/file.js';
import type { SideFileEntry, TensorEntry } from '../formats/delta/schema.js';
import * as io from '../formats/io.js';
import { readerFolder } from '../formats/open-checkpoint.js';
import { copyFile, hashFile } from '../formats/delta/side-files.js';
import type { DecodeResult } from '../workers/messages/delta.js';
import { WorkerPool } from '../workers/pool.js';
import { fetchSpans, spansOf } from './delta-locate.js';
import { decodeJobs, openDelta, type OpenedDelta } from './delta-open.js';
import type { RestoreOptions, RestoreReport } from './delta-reports.js';
import { Journal, partialFolder, refuseExisting, takeName } from './journal.js';
import { runJobs } from './schedule.js';
import { panelBuffer } from '../core/panel-buffer.js';

interface Target {
  readonly file: string;
  readonly position: number;
}

const JOB = 'delta restore';

export async function* deltaRestore(o: RestoreOptions): Pipeline<RestoreReport> {
  const started = performance.now();
  refuseExisting(o.out, o);
  const folder = dirname(resolve(o.out));
  if (io.stat(folder) === undefined) throw new PithError('NOT_FOUND', { file: folder });
  const diff = await import('./bitdelta-diff.js');
  if (diff.isBitDeltaDiff(o.delta)) return yield* diff.restoreDiff(o);
  const pool = o.dryRun ? undefined : new WorkerPool({ threads: o.threads });
  let opened: OpenedDelta | undefined;
  try {
    opened = await openDelta(o.delta, o.base, { ...o, folder: partialFolder(resolve(o.out)) });
    const { tuned } = opened.delta.manifest;
    const files = opened.delta.tunedFiles();
    const single = checkOut(o.out, opened);
    const targets = placeTensors(files, (name) => join(partialFolder(o.out), 'spool', name));
    const totalBytes = tuned.files.reduce((sum, f) => sum + f.bytes, 0);
    if (io.freeBytes(folder) < totalBytes) {
      throw new PithError('DISK_FULL', { file: folder, message: `${totalBytes} bytes are needed, ${io.freeBytes(folder)} are free` });
    }
    if (pool === undefined) return report(o, opened);
    const { quality, baseRef: base } = opened;
    const plan = { command: JOB, delta: createHash('sha256').update(opened.delta.file.rawHeader).digest('hex'), base, quality, out: resolve(o.out) };
    const journal = Journal.open<DecodeResult>(o.out, plan, { resume: o.resume });
    try {
      prepareFiles(files, journal);
      const flusher = new Flusher();
      try {
        yield* restoreTensors(o, opened, targets, journal, pool, flusher);
        await writeSideFiles(opened, journal);
      } finally {
        await flusher.settle();
      }
      flusher.check();
      journal.publishing();
      publish(o, opened, journal, single);
      journal.remove();
    } catch (error) {
      journal.close();
      throw error;
    }
    yield { type: 'job.done', job: JOB, ms: performance.now() - started };
    return report(o, opened);
  } finally {
    // its threads have the delta open
    await pool?.[Symbol.asyncDispose]();
    opened?.[Symbol.dispose]();
    await opened?.base?.[Symbol.asyncDispose]();
  }
}

/** Whether the result is one bare file. */
function checkOut(out: string, opened: OpenedDelta): boolean {
  const { files, sideFiles } = opened.delta.manifest.tuned;
  if (files.length === 0) throw new PithError('DELTA_MALFORMED', { file: opened.delta.path, message: 'it names no file to restore' });
  if (!out.endsWith('.safetensors')) return false;
  if (files.length > 1 || sideFiles.length > 0) {
    throw new PithError('USAGE', { message: `--out ${out}: the delta holds ${files.length + sideFiles.length} files, give a folder` });
  }
  return true;
}

/** Where each tensor's bytes belong, from the tuned files' own headers. */
function placeTensors(files: readonly TunedFile[], path: (name: string) => string): Map<string, Target> {
  const targets = new Map<string, Target>();
  for (const f of files) {
    for (const [name, { begin }] of f.entries) targets.set(name, { file: path(f.name), position: f.rawHeader.length + begin });
  }
  return targets;
}

function prepareFiles(files: readonly TunedFile[], journal: Journal<DecodeResult>): void {
  for (const f of files) {
    const path = journal.spool(f.name);
    io.mkdir(dirname(path));
    const fd = io.openWrite(path, io.stat(path) === undefined ? 'wx' : 'r+');
    try {
      io.truncate(fd, f.bytes, path);
      io.writeFully(fd, f.rawHeader, 0, path);
    } finally {
      io.close(fd);
    }
  }
}

async function* restoreTensors(
  o: RestoreOptions,
  opened: OpenedDelta,
  targets: ReadonlyMap<string, Target>,
  journal: Journal<DecodeResult>,
  pool: WorkerPool,
  flusher: Flusher,
): AsyncGenerator<ProgressEvent, void, void> {
  const { delta, quality } = opened;
  const finished = new Set<string>();
  for (const name of journal.done.keys()) {
    const entry = delta.entries.get(name);
    if (entry !== undefined && hashRegion(targets.get(name)!, byteLength(entry.dtype, entry.shape)) === delta.expected(entry, quality)) finished.add(name);
  }
  const all = decodeJobs(o, opened, (t) => targets.get(t.name)!);
  const jobs = all.filter((j) => !finished.has(j.label));
  const totalBytes = all.reduce((sum, j) => sum + j.bytes, 0);
  const doneBytes = totalBytes - jobs.reduce((sum, j) => sum + j.bytes, 0);
  yield { type: 'job.start', job: JOB, totalBytes, tasks: jobs.length, resumedBytes: doneBytes };
  yield* fetchSpans(opened, spansOf(delta, jobs.map((j) => delta.entry(j.label)), quality)); // prettier-ignore
  yield* runJobs(jobs, { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes, doneBytes }, (job, result) => {
    const entry = delta.entry(job.label);
    checkBaseHash(opened, entry, result);
    const expected = delta.expected(entry, quality);
    if (result.sha256 !== expected) throw new PithError('HASH_MISMATCH', { file: delta.path, tensor: entry.name, expected, got: result.sha256 });
    journal.append(job.label, result);
    flusher.wrote(targets.get(entry.name)!.file, job.bytes);
    return undefined;
  });
}

/** So much is written to a file between two early flushes. */
const FLUSH_BYTES = 64 << 20;

/** Brings large files to the disk while they are written, so that the last fsync has little left to do. */
export class Flusher {
  readonly #dirty = new Map<string, number>();
  readonly #running: Promise<void>[] = [];
  #failure: unknown;

  wrote(file: string, bytes: number): void {
    const dirty = (this.#dirty.get(file) ?? 0) + bytes;
    this.#dirty.set(file, dirty < FLUSH_BYTES ? dirty : 0);
    if (dirty >= FLUSH_BYTES) this.#running.push(this.#flush(file));
  }

  async #flush(file: string): Promise<void> {
    try {
      const fd = io.openWrite(file, 'r+');
      await io.flushEarly(fd, file).finally(() => io.close(fd));
    } catch (error) {
      this.#failure ??= error;
    }
  }

  async settle(): Promise<void> {
    await Promise.all(this.#running);
  }

  /** A write-back error is told once: to the flush that met it, not to the last fsync. */
  check(): void {
    if (this.#failure !== undefined) throw PithError.from(this.#failure);
  }
}

function checkBaseHash(opened: OpenedDelta, t: TensorEntry, result: DecodeResult): void {
  if (t.base === undefined || result.baseSha256 === t.base.sha256) return;
  const got = result.baseSha256 ?? 'nothing';
  throw new PithError('WRONG_BASE', { file: opened.delta.path, tensor: t.name, expected: t.base.sha256, got, base: opened.basePath ?? '' });
}

export function hashRegion(target: Target, bytes: number, prefix = ''): string {
  const fd = io.openRead(target.file);
  try {
    const hash = createHash('sha256').update(prefix);
    const buffer = panelBuffer(bytes);
    for (let at = 0; at < bytes; at += buffer.length) {
      const piece = buffer.subarray(0, Math.min(buffer.length, bytes - at));
      io.readFully(fd, piece, target.position + at, target.file);
      hash.update(piece);
    }
    return hash.digest('hex');
  } finally {
    io.close(fd);
  }
}

async function writeSideFiles(opened: OpenedDelta, journal: Journal<DecodeResult>): Promise<void> {
  const open = (f: SideFileEntry): ((position: number, bytes: Uint8Array) => void) & Disposable => {
    const path = journal.spool(f.name);
    io.mkdir(dirname(path));
    const fd = io.openWrite(path, 'w+');
    const write = (position: number, bytes: Uint8Array): void => io.writeFully(fd, bytes, position, path);
    return Object.assign(write, {
      [Symbol.dispose]: () => {
        try {
          io.fsync(fd, path);
        } finally {
          io.close(fd);
        }
      },
    });
  };
  const baseFolder = opened.base === undefined ? undefined : await readerFolder(opened.base);
  for (const f of opened.delta.manifest.tuned.sideFiles.filter((f) => f.coding === 'base')) {
    const path = await inBase(opened, baseFolder, f);
    using write = open(f);
    await copyFile(path, f.bytes, write);
  }
  await opened.delta.unpackSideFiles(open);
}

/** Path of a file that the base folder holds, its hash checked. */
async function inBase(opened: OpenedDelta, baseFolder: string | undefined, f: SideFileEntry): Promise<string> {
  const path = baseFolder === undefined ? undefined : join(baseFolder, f.name);
  const found = path !== undefined && io.stat(path)?.isFile === true;
  const got = found ? await hashFile(path, io.stat(path)!.bytes) : 'no such file';
  if (!found || got !== f.sha256) {
    throw new PithError('WRONG_BASE', { file: opened.delta.path, tensor: `file ${f.name}`, expected: f.sha256, got, base: opened.basePath ?? '' });
  }
  return path;
}

/** Everything on disk, then one rename. */
function publish(o: RestoreOptions, opened: OpenedDelta, journal: Journal<DecodeResult>, single: boolean): void {
  const { files } = opened.delta.manifest.tuned;
  for (const f of files) {
    const path = journal.spool(f.name);
    const fd = io.openWrite(path, 'r+');
    try {
      io.fsync(fd, path);
    } finally {
      io.close(fd);
    }
  }
  takeName(single ? journal.spool(files[0]!.name) : journal.spool(''), o.out, o);
}

function report(o: RestoreOptions, opened: OpenedDelta): RestoreReport {
  const { tuned, tensors } = opened.delta.manifest;
  const files = [...tuned.files, ...tuned.sideFiles].map((f) => ({ name: f.name, bytes: f.bytes }));
  return {
    out: o.out,
    bytes: files.reduce((sum, f) => sum + f.bytes, 0),
    tensors: tensors.length,
    exact: opened.delta.contentHash(opened.quality) === tuned.contentHash,
    proven: true,
    contentHash: opened.delta.contentHash(opened.quality),
    files,
  };
}
