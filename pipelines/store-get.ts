/** `pith store get`: a model's files as they were added, every object proven before they are seen. */
import { dirname, join, resolve } from 'node:path';
import { PithError } from '../core/errors.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { headerLength, parseHeader } from '../formats/safetensors/header.js';
import { StoreFolder } from '../formats/store/folder.js';
import { requireContent } from '../formats/store/object.js';
import * as io from '../formats/io.js';
import { contentPrefix, type StoredModel } from '../formats/store/schema.js';
import { nearest } from '../methods/index.js';
import { NO_CONTROL } from '../workers/codecs.js';
import type { StoreGetTask } from '../workers/messages/store.js';
import { WorkerPool } from '../workers/pool.js';
import { StoreObjects } from '../workers/store-objects.js';
import { Flusher, hashRegion } from './delta-restore.js';
import { Journal, partialFolder, refuseExisting, takeName } from './journal.js';
import type { RunOptions } from './run-options.js';
import { runJobs, type Job } from './schedule.js';

export interface StoreGetOptions extends RunOptions {
  readonly store: string;
  readonly model: string;
  /** A folder, or a `.safetensors` path for a model that was added as one. */
  readonly out: string;
  readonly force: boolean;
  readonly dryRun: boolean;
  readonly resume: boolean;
}

export interface StoreGetReport {
  readonly model: string;
  readonly out: string;
  readonly bytes: number;
  readonly tensors: number;
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
}

/** Everything that comes from one object. */
interface Piece {
  readonly object: string;
  readonly bytes: number;
  readonly prefix: string;
  readonly targets: { readonly file: string; readonly position: number }[];
}

const JOB = 'store get';
/** Decoding holds a segment of base and tuned, the coder's scratch, and two decoded bases of up to 8 MiB. */
export const GET_MEMORY_BYTES = 110 << 20;

/** MODEL_UNKNOWN (66) names the nearest known one. */
export function readModel(store: StoreFolder, name: string): StoredModel {
  const names = store.modelNames();
  if (!names.includes(name)) {
    const near = nearest(name, names);
    throw new PithError('MODEL_UNKNOWN', { file: store.path, model: name, hint: near === undefined ? '' : `; did you mean "${near}"?` });
  }
  return store.readModel(name);
}

export async function* storeGet(o: StoreGetOptions): Pipeline<StoreGetReport> {
  const started = performance.now();
  const store = StoreFolder.open(o.store);
  const model = readModel(store, o.model);
  refuseExisting(o.out, o);
  const folder = dirname(resolve(o.out));
  if (io.stat(folder) === undefined) throw new PithError('NOT_FOUND', { file: folder });
  const files = [...model.files, ...model.sideFiles].map((f) => ({ name: f.name, bytes: f.bytes }));
  const bytes = files.reduce((sum, f) => sum + f.bytes, 0);
  if (io.freeBytes(folder) < bytes) throw new PithError('DISK_FULL', { file: folder, message: `${bytes} bytes are needed, ${io.freeBytes(folder)} are free` });
  const headers = await rawHeaders(store, model);
  const pieces = placeObjects(store, model, headers, (name) => join(partialFolder(o.out), 'spool', name));
  const report = { model: model.name, out: o.out, bytes, tensors: model.files.reduce((sum, f) => sum + f.tensors.length, 0), files };
  if (o.dryRun) return report;
  const journal = Journal.open<true>(o.out, { command: JOB, model, out: resolve(o.out) }, o);
  try {
    prepare(model, headers, journal);
    const flusher = new Flusher();
    try {
      yield* decodeAll(o, store, pieces, journal, flusher);
    } finally {
      await flusher.settle();
    }
    flusher.check();
    journal.publishing();
    publish(o, model, journal);
    journal.remove();
  } catch (error) {
    journal.close();
    throw error;
  }
  yield { type: 'job.done', job: JOB, ms: performance.now() - started };
  return report;
}

export async function rawHeaders(store: StoreFolder, model: StoredModel): Promise<Uint8Array[]> {
  const objects = new StoreObjects(store);
  const out: Uint8Array[] = [];
  for (const f of model.files) {
    using content = await objects.load(f.header, NO_CONTROL);
    const raw = new Uint8Array(content.byteLength);
    await content.readInto(0, raw);
    requireContent(store, f.header, content, contentPrefix({ dtype: 'U8', shape: [raw.length] }));
    if (raw.length !== f.headerBytes || headerLength(raw, f.bytes, `${store.model(model.name)}: header of ${f.name}`) !== raw.length - 8)
      throw malformed(store, model, `header of "${f.name}": expected ${f.headerBytes} bytes, got ${raw.length}`);
    out.push(raw);
  }
  return out;
}

const malformed = (store: StoreFolder, model: StoredModel, message: string): PithError =>
  new PithError('STORE_MALFORMED', { file: store.model(model.name), message });

/** Which objects go where; the raw headers say it. STORE_MALFORMED when they and the model disagree. */
export function placeObjects(store: StoreFolder, model: StoredModel, headers: readonly Uint8Array[], path: (name: string) => string): Piece[] {
  const pieces = new Map<string, Piece>();
  const names = new Set<string>();
  for (const { name } of [...model.files, ...model.sideFiles]) {
    if (names.has(name)) throw malformed(store, model, `file "${name}" is listed twice`);
    names.add(name);
  }
  const add = (object: string, bytes: number, prefix: string, target: Piece['targets'][number]): void => {
    const piece = pieces.get(object) ?? { object, bytes, prefix, targets: [] };
    if (piece.prefix !== prefix) throw malformed(store, model, `object ${object} is used with two types`);
    piece.targets.push(target);
    pieces.set(object, piece);
  };
  model.files.forEach((f, i) => {
    const raw = headers[i]!;
    const { entries } = parseHeader(raw.subarray(8), f.bytes - raw.length, `${store.model(model.name)}: header of ${f.name}`);
    const objects = new Map(f.tensors.map((t) => [t.name, t.object]));
    if (objects.size !== entries.size) throw malformed(store, model, `"${f.name}" has ${entries.size} tensors, ${objects.size} are listed`);
    for (const [name, { info, begin, end }] of entries) {
      const object = objects.get(name);
      if (object === undefined) throw malformed(store, model, `tensor "${name}" of "${f.name}" is not listed`);
      add(object, end - begin, contentPrefix(info), { file: path(f.name), position: raw.length + begin });
    }
  });
  for (const f of model.sideFiles) add(f.object, f.bytes, contentPrefix({ dtype: 'U8', shape: [f.bytes] }), { file: path(f.name), position: 0 });
  return [...pieces.values()];
}

function prepare(model: StoredModel, headers: readonly Uint8Array[], journal: Journal<true>): void {
  for (const [i, f] of [...model.files, ...model.sideFiles].entries()) {
    const path = journal.spool(f.name);
    io.mkdir(dirname(path));
    const fd = io.openWrite(path, io.stat(path) === undefined ? 'wx' : 'r+');
    try {
      io.truncate(fd, f.bytes, path);
      const header = headers[i];
      if (header !== undefined) io.writeFully(fd, header, 0, path);
    } finally {
      io.close(fd);
    }
  }
}

async function* decodeAll(
  o: StoreGetOptions,
  store: StoreFolder,
  pieces: readonly Piece[],
  journal: Journal<true>,
  flusher: Flusher,
): AsyncGenerator<ProgressEvent, void, void> {
  await using pool = new WorkerPool({ threads: o.threads });
  const done = (p: Piece): boolean => journal.done.has(p.object) && p.targets.every((t) => hashRegion(t, p.bytes, p.prefix) === p.object);
  const missing = pieces.filter((p) => !done(p));
  const sum = (of: readonly Piece[]): number => of.reduce((total, p) => total + p.bytes, 0);
  const totalBytes = sum(pieces);
  const doneBytes = totalBytes - sum(missing);
  const jobs = missing.map((p): Job<StoreGetTask> => {
    const task: StoreGetTask = {
      type: 'store-get',
      store: resolve(store.path),
      object: p.object,
      targets: p.targets,
      expected: p.prefix,
      check: 'content',
      lenient: false,
    };
    return { label: p.object, bytes: p.bytes, memoryBytes: GET_MEMORY_BYTES, task };
  });
  const byObject = new Map(pieces.map((p) => [p.object, p]));
  yield { type: 'job.start', job: JOB, totalBytes, tasks: jobs.length, resumedBytes: doneBytes };
  yield* runJobs(jobs, { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes, doneBytes }, (job) => {
    journal.append(job.label, true);
    for (const t of byObject.get(job.label)!.targets) flusher.wrote(t.file, job.bytes);
    return undefined;
  });
}

/** Everything on disk, then one rename. */
function publish(o: StoreGetOptions, model: StoredModel, journal: Journal<true>): void {
  const [only] = model.files;
  const single = model.single && o.out.endsWith('.safetensors') && only !== undefined;
  for (const f of [...model.files, ...model.sideFiles]) {
    const path = journal.spool(f.name);
    const fd = io.openWrite(path, 'r+');
    try {
      io.fsync(fd, path);
    } finally {
      io.close(fd);
    }
  }
  takeName(journal.spool(single ? only.name : ''), o.out, o);
}
