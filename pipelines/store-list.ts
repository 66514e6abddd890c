/** `pith store init`, `list`, `verify` and `gc`. */
import { resolve } from 'node:path';
import { PithError } from '../core/errors.js';
import type { Pipeline } from '../core/events.js';
import { byteLength } from '../core/shape.js';
import { pithVersion } from '../core/version.js';
import * as io from '../formats/io.js';
import { modelObjects, StoreFolder } from '../formats/store/folder.js';
import { requireContent } from '../formats/store/object.js';
import type { StoredModel } from '../formats/store/schema.js';
import type { StoreGetTask } from '../workers/messages/store.js';
import { WorkerPool } from '../workers/pool.js';
import type { RunOptions } from './run-options.js';
import { runJobs, type Job } from './schedule.js';
import { GET_MEMORY_BYTES, placeObjects, rawHeaders } from './store-get.js';
import { StoreIndex } from './store-index.js';
import { livePins, locked } from './store-lock.js';

export function storeInit(path: string): void {
  StoreFolder.init(path, `pith ${pithVersion()}`);
}

export interface ListedModel {
  readonly name: string;
  readonly files: number;
  readonly tensors: number;
  /** Of all its files. */
  readonly rawBytes: number;
  /** Of the objects that no other model needs, and of its own record. */
  readonly ownBytes: number;
  /** Of all objects that a get reads. */
  readonly reachedBytes: number;
  /** The longest chain of bases among its tensors. */
  readonly depth: number;
  /** Objects that are missing or whose header is damaged. */
  readonly damaged: number;
}

export interface StoreListReport {
  readonly store: string;
  readonly models: readonly ListedModel[];
  readonly rawBytes: number;
  /** Of every file in the store. */
  readonly bytes: number;
  readonly ratio: number;
  readonly objects: number;
  /** Objects that no model reaches, gc's share. */
  readonly unreachable: { readonly objects: number; readonly bytes: number };
}

export function storeList(path: string): StoreListReport {
  const store = StoreFolder.open(path);
  const index = new StoreIndex(store);
  const models = index.models().map((m) => ({ m, reached: index.closure(modelObjects(m)) }));
  const users = new Map<string, number>();
  for (const { reached } of models) for (const hash of reached) users.set(hash, (users.get(hash) ?? 0) + 1);
  const objects = store.objects();
  const sizes = new Map(objects.map((f) => [f.hash, f.bytes]));
  const size = (hashes: Iterable<string>): number => [...hashes].reduce((sum, h) => sum + (sizes.get(h) ?? 0), 0);
  const records = new Map(models.map(({ m }) => [m.name, io.stat(store.model(m.name))?.bytes ?? 0]));
  const listed = models.map(({ m, reached }): ListedModel => {
    const heads = [...reached].map((h) => index.head(h));
    return {
      name: m.name,
      files: m.files.length + m.sideFiles.length,
      tensors: m.files.reduce((sum, f) => sum + f.tensors.length, 0),
      rawBytes: [...m.files, ...m.sideFiles].reduce((sum, f) => sum + f.bytes, 0),
      ownBytes: size([...reached].filter((h) => users.get(h) === 1)) + records.get(m.name)!,
      reachedBytes: size(reached) + records.get(m.name)!,
      depth: Math.max(0, ...heads.map((h) => (h instanceof PithError ? 0 : h.depth))),
      damaged: heads.filter((h) => h instanceof PithError).length,
    };
  });
  const rawBytes = listed.reduce((sum, m) => sum + m.rawBytes, 0);
  const bytes = size(sizes.keys()) + [...records.values()].reduce((a, b) => a + b, 0);
  const lost = objects.filter((f) => !users.has(f.hash));
  const unreachable = { objects: lost.length, bytes: lost.reduce((sum, f) => sum + f.bytes, 0) };
  return { store: path, models: listed, rawBytes, bytes, ratio: rawBytes === 0 ? 0 : bytes / rawBytes, objects: objects.length, unreachable };
}

export interface StoreVerifyReport {
  readonly store: string;
  readonly ok: boolean;
  readonly models: number;
  readonly objects: number;
  /** Every object that cannot be decoded to its name, and every model's record that is not as written. */
  readonly damaged: readonly { readonly object?: string; readonly file: string; readonly message: string; readonly models: readonly string[] }[];
}

type Damage = StoreVerifyReport['damaged'][number];

const VERIFY = 'store verify';

/** Re-derives every hash: of every object, reachable or not, from its decoded content, and of every model's record. */
export async function* storeVerify(path: string, o: RunOptions): Pipeline<StoreVerifyReport> {
  const started = performance.now();
  const store = StoreFolder.open(path);
  const index = new StoreIndex(store);
  const damaged: Damage[] = [];
  const names = store.modelNames();
  const models = names.flatMap((name) => readReached(store, index, name, damaged));
  const hashes = new Set([...store.objects().map((f) => f.hash), ...models.flatMap(({ reached }) => [...reached])]);
  const size = (hash: string): number => {
    const head = index.head(hash);
    return head instanceof PithError ? 0 : byteLength(head.dtype, head.shape);
  };
  const jobs = [...hashes].sort().map((object): Job<StoreGetTask> => ({
    label: object,
    bytes: size(object),
    memoryBytes: GET_MEMORY_BYTES,
    task: { type: 'store-get', store: resolve(path), object, targets: [], check: 'content', lenient: true },
  }));
  const totalBytes = jobs.reduce((sum, j) => sum + j.bytes, 0);
  const bad = new Set<string>();
  await using pool = new WorkerPool({ threads: o.threads });
  yield { type: 'job.start', job: VERIFY, totalBytes, tasks: jobs.length, resumedBytes: 0 };
  yield* runJobs(jobs, { job: VERIFY, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes }, (job, { damaged: d }) => {
    if (d === undefined) return undefined;
    bad.add(job.label);
    // an object whose base is damaged is lost with it, not damaged itself
    if (d.file === store.object(job.label) || d.file === resolve(store.object(job.label))) {
      const users = models.filter(({ reached }) => reached.has(job.label)).map(({ m }) => m.name);
      damaged.push({ object: job.label, file: d.file, message: d.message, models: users });
    }
    return undefined;
  });
  for (const { m, reached } of models) if (![...reached].some((h) => bad.has(h))) await checkModel(index, m, damaged);
  damaged.sort((a, b) => (a.file < b.file ? -1 : 1));
  yield { type: 'job.done', job: VERIFY, ms: performance.now() - started };
  return { store: path, ok: damaged.length === 0, models: names.length, objects: jobs.length, damaged };
}

interface Reached {
  readonly m: StoredModel;
  readonly reached: ReadonlySet<string>;
}

/** A model with all that it needs; nothing and an entry in `damaged` when its record is not as it was written. */
function readReached(store: StoreFolder, index: StoreIndex, name: string, damaged: Damage[]): Reached[] {
  try {
    const m = store.readModel(name);
    if (m.name !== name) throw new PithError('STORE_MALFORMED', { file: store.model(name), message: `it names itself "${m.name}"` });
    return [{ m, reached: index.closure(modelObjects(m)) }];
  } catch (error) {
    if (!(error instanceof PithError) || error.exitCode !== 65) throw error;
    damaged.push({ file: store.model(name), message: error.message, models: [name] });
    return [];
  }
}

/** Headers, tensors and objects of a whole model fit together. */
async function checkModel(index: StoreIndex, m: StoredModel, damaged: Damage[]): Promise<void> {
  const { store } = index;
  try {
    for (const p of placeObjects(store, m, await rawHeaders(store, m), (name) => name)) {
      const head = index.head(p.object);
      if (head instanceof PithError) throw head;
      requireContent(store, p.object, head, p.prefix);
    }
  } catch (error) {
    if (!(error instanceof PithError) || error.exitCode !== 65) throw error;
    damaged.push({ file: store.model(m.name), message: error.message, models: [m.name] });
  }
}

export interface StoreGcReport {
  readonly store: string;
  readonly dryRun: boolean;
  readonly removed: { readonly objects: number; readonly bytes: number };
  /** Unreachable, but too young to be removed, or relied on by an add that runs. */
  readonly kept: { readonly objects: number; readonly bytes: number };
  /** Leftovers of killed runs. */
  readonly temporary: number;
}

/** Marks from the models, from what running adds rely on and from young objects, then sweeps. The lock is held all the time. */
export function storeGc(path: string, o: { readonly olderThanMs: number; readonly dryRun: boolean; readonly signal: AbortSignal }): Promise<StoreGcReport> {
  const store = StoreFolder.open(path);
  return locked(store, o.signal, () => {
    const { pins, removed: temporary } = livePins(store, { clean: !o.dryRun });
    const index = new StoreIndex(store);
    const objects = store.objects();
    const limit = Date.now() - o.olderThanMs;
    const reachable = index.closure(index.models().flatMap(modelObjects));
    // what a damaged object was coded against is not known: nothing is swept until it is mended
    for (const hash of reachable) {
      const head = index.head(hash);
      if (head instanceof PithError) throw head;
    }
    // a young object's bases are as old as they are and must outlive it: a rerun of its add finds it
    const young = objects.filter((f) => f.mtimeMs > limit).map((f) => f.hash);
    const marked = index.closure([...reachable, ...pins, ...young]);
    const lost = objects.filter((f) => !marked.has(f.hash));
    for (const f of o.dryRun ? [] : lost) {
      if (o.signal.aborted) throw new PithError('CANCELLED');
      io.remove(f.path);
    }
    const kept = objects.filter((f) => marked.has(f.hash) && !reachable.has(f.hash));
    const total = (files: typeof objects) => ({ objects: files.length, bytes: files.reduce((sum, f) => sum + f.bytes, 0) });
    return { store: path, dryRun: o.dryRun, removed: total(lost), kept: total(kept), temporary };
  });
}
