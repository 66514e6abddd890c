/** `pith store add`: every tensor and file of a checkpoint as objects, then the model's name. */
import { createHash } from 'node:crypto';
import { basename, dirname, join, resolve } from 'node:path';
import { PithError } from '../core/errors.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { byteLength, totalByteLength } from '../core/shape.js';
import { pithVersion } from '../core/version.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { copyFile, packFiles } from '../formats/delta/side-files.js';
import * as io from '../formats/io.js';
import { readerFolder, readerSideFiles } from '../formats/open-checkpoint.js';
import { checkpointStamp } from '../formats/stamp.js';
import { StoreFolder } from '../formats/store/folder.js';
import { writeObject } from '../formats/store/object.js';
import { contentPrefix, MODEL_NAME, STORE_VERSION, type StoredModel } from '../formats/store/schema.js';
import type { CheckpointRef } from '../workers/messages/refs.js';
import type { StoreGetTask, StorePutResult, StorePutTask, StoreScanResult, StoreScanTask } from '../workers/messages/store.js';
import { openAny, resolveCheckpoint } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import { keptAsRead, readerWarnings } from './reader-warnings.js';
import { runSettings, type RunOptions } from './run-options.js';
import { runJobs, type Job } from './schedule.js';
import { StoreIndex } from './store-index.js';
import { livePins, locked, Work } from './store-lock.js';
import { planStore, type PlannedObject, type ScannedTensor } from './store-plan.js';

export interface StoreAddOptions extends RunOptions {
  readonly store: string;
  readonly checkpoint: string;
  /** Default: the name of the folder or file. */
  readonly name: string | undefined;
  /** Replaces a model of the same name. */
  readonly force: boolean;
  readonly dryRun: boolean;
}

export interface AddedTensor {
  readonly name: string;
  readonly object: string;
  readonly how: 'reused' | 'delta' | 'alone';
  readonly base?: string;
  readonly depth?: number;
  /** New bytes in the store; estimated in a dry run. */
  readonly bytes: number;
  readonly rawBytes: number;
}

export interface StoreAddReport {
  readonly store: string;
  readonly model: string;
  readonly dryRun: boolean;
  /** Of every file of the checkpoint. */
  readonly rawBytes: number;
  /** What the store grew by; estimated in a dry run. */
  readonly bytes: number;
  readonly ratio: number;
  readonly tensors: readonly AddedTensor[];
  readonly sideFiles: readonly { readonly name: string; readonly object: string; readonly bytes: number; readonly rawBytes: number }[];
}

const JOB = 'store add';
/** A segment of base and tuned, the coders' scratch, a decoded base. */
const PUT_MEMORY_BYTES = 140 << 20;
const SCAN_MEMORY_BYTES = 16 << 20;
/** An object's header, and what a record says of one tensor. */
const OBJECT_BYTES = 900;
const RECORD_BYTES = 120;

/** A side file or a raw header. */
interface Plain {
  readonly name: string;
  readonly object: string;
  readonly rawBytes: number;
  readonly from: string | Uint8Array;
}

interface Run {
  readonly o: StoreAddOptions;
  readonly name: string;
  readonly store: StoreFolder;
  readonly reader: CheckpointReader;
  readonly ref: CheckpointRef;
  readonly pool: WorkerPool;
  readonly scanned: Map<string, ScannedTensor>;
  readonly headers: readonly Plain[];
  readonly sideFiles: readonly Plain[];
  readonly put: Map<string, StorePutResult>;
}

export async function* storeAdd(o: StoreAddOptions): Pipeline<StoreAddReport> {
  const started = performance.now();
  const store = StoreFolder.open(o.store);
  await using reader = await openAny(o.checkpoint);
  const name = modelName(o, reader);
  const refuse = (): void => {
    if (!o.force && io.stat(store.model(name)) !== undefined) throw new PithError('MODEL_EXISTS', { file: o.store, model: name });
  };
  refuse();
  if (reader.files.length === 0) throw new PithError('NOT_A_CHECKPOINT', { file: o.checkpoint, message: 'no safetensors file to store' });
  yield* readerWarnings(JOB, reader);
  yield* keptAsRead(JOB, reader);
  await using pool = new WorkerPool({ threads: o.threads });
  const ref = { path: resolveCheckpoint(o.checkpoint), stamp: checkpointStamp(reader) };
  const run: Run = {
    o,
    name,
    store,
    reader,
    ref,
    pool,
    scanned: new Map(),
    headers: headersOf(reader),
    sideFiles: await sideFilesOf(reader),
    put: new Map(),
  };
  const rawBytes = totalByteLength(reader.infos.values());
  yield { type: 'job.start', job: JOB, totalBytes: 2 * rawBytes, tasks: reader.infos.size, resumedBytes: 0 };
  yield* scan(run, 2 * rawBytes);
  const unique = [...new Map([...run.scanned.values()].map((t) => [t.object, t])).values()];
  if (o.dryRun) return predicted(run, planStore(new StoreIndex(store), unique).fresh);
  using work = Work.create(store);
  const plan = await locked(store, o.signal, () => planAndPin(run, work, unique));
  // what is reused must still be readable: an object that is not is coded again, alone
  const bad = yield* checkStored(run, [...plan.checks], 2 * rawBytes);
  const broken = plan.reused.filter((h) => [...plan.index.closure([h])].some((c) => bad.has(c)));
  const again = broken.map((h) => ({ tensor: unique.find((t) => t.object === h)!, bytes: 0, replace: true }));
  yield* putAll(run, work, [...plan.fresh, ...again], 2 * rawBytes);
  const plainBytes = await putPlain(run, work);
  const single = (await readerFolder(reader)) === undefined;
  await locked(store, o.signal, () => publish(run, work, refuse, single));
  yield { type: 'job.done', job: JOB, ms: performance.now() - started };
  return report(run, plainBytes);
}

/** With the lock held: what is needed is named before anybody may sweep. */
function planAndPin({ store, headers, sideFiles }: Run, work: Work, unique: readonly ScannedTensor[]) {
  livePins(store, { clean: true });
  const index = new StoreIndex(store);
  const made = planStore(index, unique);
  const bases = made.fresh.flatMap((p) => (p.base === undefined ? [] : [p.base.object]));
  work.pin([...index.closure([...[...unique, ...headers, ...sideFiles].map((t) => t.object), ...bases])]);
  return { ...made, checks: index.closure(made.reused), index };
}

function modelName(o: StoreAddOptions, reader: CheckpointReader): string {
  const name = o.name ?? (reader.title ?? basename(resolve(o.checkpoint))).replace(/\.(safetensors|gguf)$/, '');
  if (!MODEL_NAME.test(name)) {
    throw new PithError('USAGE', { message: `"${name}" cannot name a model: letters, digits, ".", "_" and "-", at most 128; give --name` });
  }
  return name;
}

const objectOf = (bytes: Uint8Array): string =>
  createHash('sha256')
    .update(contentPrefix({ dtype: 'U8', shape: [bytes.length] }))
    .update(bytes)
    .digest('hex');

const headersOf = (reader: CheckpointReader): Plain[] =>
  reader.files.map((f) => ({ name: f.name, object: objectOf(f.rawHeader), rawBytes: f.rawHeader.length, from: f.rawHeader }));

async function sideFilesOf(reader: CheckpointReader): Promise<Plain[]> {
  const out: Plain[] = [];
  for (const f of await readerSideFiles(reader)) {
    const hash = createHash('sha256').update(contentPrefix({ dtype: 'U8', shape: [f.bytes] }));
    await copyFile(f.path, f.bytes, (_, panel) => void hash.update(panel));
    out.push({ name: f.name, object: hash.digest('hex'), rawBytes: f.bytes, from: f.path });
  }
  return out;
}

async function* scan(run: Run, totalBytes: number): AsyncGenerator<ProgressEvent, void, void> {
  const { o, reader, ref, pool, scanned } = run;
  const jobs = [...reader.infos.values()].map((t): Job<StoreScanTask> => ({
    label: t.name,
    bytes: byteLength(t.dtype, t.shape),
    memoryBytes: SCAN_MEMORY_BYTES,
    task: { type: 'store-scan', tensor: { checkpoint: ref, name: t.name } },
  }));
  const found = new Map<string, StoreScanResult>();
  yield* runJobs(jobs, { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes }, (job, result) => {
    found.set(job.label, result);
    return undefined;
  });
  for (const j of jobs) scanned.set(j.label, { ...reader.infos.get(j.label)!, ...found.get(j.label)!, bytes: j.bytes });
}

/** Hashes the stored bytes of objects; answers those that are damaged or gone. */
async function* checkStored(run: Run, objects: readonly string[], totalBytes: number): AsyncGenerator<ProgressEvent, Set<string>, void> {
  const { o, pool, store } = run;
  const task = (object: string): StoreGetTask => ({ type: 'store-get', store: resolve(store.path), object, targets: [], check: 'stored', lenient: true });
  const jobs = objects.map((object): Job<StoreGetTask> => ({ label: object, bytes: 0, memoryBytes: SCAN_MEMORY_BYTES, task: task(object) }));
  const bad = new Set<string>();
  const schedule = { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes, doneBytes: pool.doneBytes };
  yield* runJobs(jobs, schedule, (job, result) => {
    if (result.damaged !== undefined) bad.add(job.label);
    return undefined;
  });
  return bad;
}

async function* putAll(
  run: Run,
  work: Work,
  planned: readonly (PlannedObject & { readonly replace?: boolean })[],
  totalBytes: number,
): AsyncGenerator<ProgressEvent, void, void> {
  const { o, pool, store, ref, put } = run;
  const settings = runSettings(o, 'cpu');
  const jobs = planned.map((p): Job<StorePutTask> => ({
    label: p.tensor.object,
    bytes: p.tensor.bytes,
    memoryBytes: PUT_MEMORY_BYTES,
    task: {
      type: 'store-put',
      settings,
      store: resolve(store.path),
      tensor: { checkpoint: ref, name: p.tensor.name },
      object: p.tensor.object,
      ...(p.base === undefined ? {} : { base: p.base }),
      // a damaged file keeps its name taken
      replace: p.replace === true || io.stat(store.object(p.tensor.object)) !== undefined,
      spool: resolve(join(work.folder, p.tensor.object)),
    },
  }));
  const names = new Map(planned.map((p) => [p.tensor.object, p.tensor.name]));
  const schedule = { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes, doneBytes: pool.doneBytes };
  yield* runJobs(jobs, schedule, (job, result) => {
    put.set(job.label, result);
    const method = result.base === undefined ? 'alone' : 'delta';
    return { type: 'tensor.done', job: JOB, tensor: names.get(job.label)!, method, bytes: result.bytes, rawBytes: job.bytes };
  });
}

/** Raw headers and side files, deflated; answers the new bytes of each object. */
async function putPlain(run: Run, work: Work): Promise<ReadonlyMap<string, number>> {
  const { store } = run;
  const added = new Map<string, number>();
  const index = new StoreIndex(store);
  for (const f of [...run.headers, ...run.sideFiles]) {
    if (added.has(f.object)) continue;
    added.set(f.object, index.isWhole(f.object) ? 0 : await deflateObject(store, work, f));
  }
  return added;
}

async function deflateObject(store: StoreFolder, work: Work, f: Plain): Promise<number> {
  const at = (suffix: string): string => join(work.folder, `${f.object}.${suffix}`);
  await copyProven(f, at('raw'));
  const packed = await packFiles([at('raw')], at('deflate'));
  const head = { dtype: 'U8' as const, shape: [f.rawBytes], coding: 'deflate' as const, base: null, depth: 0 };
  const bytes = writeObject(at('object'), head, [{ part: 'deflate', bytes: packed.bytes, sha256: packed.sha256, from: at('deflate') }]);
  const path = store.object(f.object);
  io.mkdir(dirname(path));
  if (io.stat(path) === undefined) return io.linkNew(at('object'), path) ? bytes : 0;
  io.rename(at('object'), path);
  return bytes;
}

/** FILE_CHANGED when a side file is not what it was when it got its name. */
async function copyProven(f: Plain, to: string): Promise<void> {
  const hash = createHash('sha256').update(contentPrefix({ dtype: 'U8', shape: [f.rawBytes] }));
  const fd = io.openWrite(to, 'w+');
  const write = (position: number, bytes: Uint8Array): void => {
    hash.update(bytes);
    io.writeFully(fd, bytes, position, to);
  };
  try {
    if (typeof f.from === 'string') await copyFile(f.from, f.rawBytes, write);
    else write(0, f.from);
  } finally {
    io.close(fd);
  }
  const got = hash.digest('hex');
  if (got !== f.object) throw new PithError('FILE_CHANGED', { file: f.name, expected: f.object, got });
}

/** With the lock held: nothing that the model names may be missing when its name appears. */
function publish(run: Run, work: Work, refuse: () => void, single: boolean): void {
  const { o, store, reader, scanned, headers, sideFiles } = run;
  refuse();
  const model: StoredModel = {
    format: 'pith-store-model',
    version: STORE_VERSION,
    generator: `pith ${pithVersion()}`,
    name: run.name,
    single,
    files: reader.files.map((f, i) => ({
      name: f.name,
      bytes: f.bytes,
      headerBytes: f.rawHeader.length,
      header: headers[i]!.object,
      tensors: f.order.map((name) => ({ name, object: scanned.get(name)!.object })),
    })),
    sideFiles: sideFiles.map((f) => ({ name: f.name, bytes: f.rawBytes, object: f.object })),
  };
  const index = new StoreIndex(store);
  const all = index.closure([...[...scanned.values()].map((t) => t.object), ...headers.map((f) => f.object), ...sideFiles.map((f) => f.object)]);
  for (const hash of all) {
    const head = index.head(hash);
    if (head instanceof PithError) throw head;
  }
  // an object may have been placed by another process that has not synced its folder yet
  for (const folder of new Set([...all].map((h) => dirname(store.object(h))))) io.fsyncDir(folder);
  io.fsyncDir(join(store.path, 'objects'));
  if (!store.writeModel(model, join(work.folder, 'model.json'), o)) throw new PithError('MODEL_EXISTS', { file: o.store, model: run.name });
}

const rawTotal = ({ reader, sideFiles }: Run): number => reader.files.reduce((sum, f) => sum + f.bytes, 0) + sideFiles.reduce((sum, f) => sum + f.rawBytes, 0);

function predicted(run: Run, fresh: readonly PlannedObject[]): StoreAddReport {
  const planned = new Map(fresh.map((p) => [p.tensor.object, p]));
  const index = new StoreIndex(run.store);
  const tensors = addedTensors(run, (object) => {
    const p = planned.get(object);
    if (p === undefined) return { how: 'reused', bytes: 0 };
    const bytes = p.bytes + p.tensor.sketch.length + OBJECT_BYTES;
    return p.base === undefined ? { how: 'alone', bytes } : { how: 'delta', base: p.base.object, bytes };
  });
  // tokenizers and headers deflate to a third or less
  const sideFiles = run.sideFiles.map((f) => {
    const there = !(index.head(f.object) instanceof PithError);
    return { name: f.name, object: f.object, bytes: there ? 0 : Math.ceil(f.rawBytes / 3), rawBytes: f.rawBytes };
  });
  return finished(run, tensors, sideFiles, RECORD_BYTES * tensors.length);
}

function report(run: Run, plain: ReadonlyMap<string, number>): StoreAddReport {
  const tensors = addedTensors(run, (object) => {
    const r = run.put.get(object);
    if (r === undefined) return { how: 'reused', bytes: 0 };
    return { how: r.base === undefined ? 'alone' : 'delta', ...(r.base === undefined ? {} : { base: r.base }), depth: r.depth, bytes: r.bytes };
  });
  const seen = new Set<string>();
  const sideFiles = run.sideFiles.map((f) => {
    const bytes = seen.has(f.object) ? 0 : plain.get(f.object)!;
    seen.add(f.object);
    return { name: f.name, object: f.object, bytes, rawBytes: f.rawBytes };
  });
  const headers = new Set(run.headers.map((f) => f.object));
  const others = [...headers].reduce((sum, h) => sum + (seen.has(h) ? 0 : plain.get(h)!), 0) + (io.stat(run.store.model(run.name))?.bytes ?? 0);
  return finished(run, tensors, sideFiles, others);
}

/** A tensor that occurs twice counts once. */
function addedTensors(run: Run, of: (object: string) => Pick<AddedTensor, 'how' | 'base' | 'depth' | 'bytes'>): AddedTensor[] {
  const seen = new Set<string>();
  return [...run.scanned.values()].map((t) => {
    const first = !seen.has(t.object);
    seen.add(t.object);
    return { name: t.name, object: t.object, rawBytes: t.bytes, ...(first ? of(t.object) : { how: 'reused' as const, bytes: 0 }) };
  });
}

function finished(run: Run, tensors: AddedTensor[], sideFiles: StoreAddReport['sideFiles'], others: number): StoreAddReport {
  const rawBytes = rawTotal(run);
  const bytes = [...tensors, ...sideFiles].reduce((sum, t) => sum + t.bytes, others);
  const { o } = run;
  return { store: o.store, model: run.name, dryRun: o.dryRun, rawBytes, bytes, ratio: rawBytes === 0 ? 0 : bytes / rawBytes, tensors, sideFiles };
}
