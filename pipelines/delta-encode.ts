/** `pith delta encode`: plan from headers, code every tensor, put the file together. */
import { createHash } from 'node:crypto';
import { basename, dirname, resolve } from 'node:path';
import { PithError } from '../core/errors.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { pithVersion } from '../core/version.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { deflated, writeDelta, type StoredPart } from '../formats/delta/write.js';
import type { DeltaManifest, SideFileEntry, TensorEntry } from '../formats/delta/schema.js';
import { contentHash } from '../formats/hash.js';
import * as io from '../formats/io.js';
import { checkpointFolder, listSideFiles } from '../formats/open-checkpoint.js';
import { checkpointStamp } from '../formats/stamp.js';
import { loadMethod } from '../methods/index.js';
import type { CheckpointRef, EncodeResult, EncodeTask, HashResult, HashTask } from '../workers/messages.js';
import { openAny } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import { planDelta, type DeltaPlan, type PlannedTensor } from './delta-plan.js';
import { Journal } from './journal.js';
import { runSettings, type RunOptions } from './run-options.js';
import { runJobs, type Job } from './schedule.js';

export interface EncodeOptions extends RunOptions {
  /** undefined: no base, every tensor is compressed alone. */
  readonly base: string | undefined;
  readonly tuned: string;
  readonly out: string;
  readonly method: string;
  readonly params: Readonly<Record<string, unknown>>;
  /** Which tensors the method is for; the others are coded losslessly. */
  readonly selects: (name: string) => boolean;
  readonly force: boolean;
  readonly dryRun: boolean;
  readonly resume: boolean;
}

export interface EncodedTensor {
  readonly name: string;
  readonly method: string;
  readonly bytes: number;
  readonly rawBytes: number;
  readonly error?: number;
}

export interface EncodeReport {
  readonly out: string;
  readonly bytes: number;
  readonly rawBytes: number;
  readonly ratio: number;
  readonly baseHash?: string;
  readonly tunedHash?: string;
  readonly tensors: readonly EncodedTensor[];
  readonly sideFiles: readonly { readonly name: string; readonly coding: string }[];
  readonly plan?: { readonly bytes: number; readonly peakBytes: number; readonly ms: number };
}

type Done = { readonly encode: EncodeResult } | { readonly hash: HashResult };

const JOB = 'delta encode';
/** What a lossless delta of a short bf16 fine-tune takes and how fast it is coded, for `--dry-run` (bench/RESULTS.md). */
const TYPICAL = { pairRatio: 0.08, aloneRatio: 0.67, bytesPerMs: 250_000, workerBytes: 90 << 20, mainBytes: 90 << 20 };

export async function* deltaEncode(o: EncodeOptions): Pipeline<EncodeReport> {
  const started = performance.now();
  if (!o.force && io.stat(o.out) !== undefined) throw new PithError('OUTPUT_EXISTS', { file: o.out });
  const folder = dirname(resolve(o.out));
  if (io.stat(folder) === undefined) throw new PithError('NOT_FOUND', { file: folder });
  const pool = o.dryRun ? undefined : new WorkerPool({ threads: o.threads });
  try {
    await using tuned = await openAny(o.tuned);
    await using base = o.base === undefined ? undefined : await openAny(o.base);
    const method = await loadMethod('delta', o.method);
    const codec = method.create(o.params);
    const plan = planDelta(base, tuned, codec, o.selects);
    if (pool === undefined) return dryRun(o, plan);
    const spaceNeeded = plan.rawBytes * TYPICAL.pairRatio;
    if (io.freeBytes(folder) < spaceNeeded) {
      throw new PithError('DISK_FULL', { file: folder, message: `about ${Math.ceil(spaceNeeded)} bytes are needed, ${io.freeBytes(folder)} are free` });
    }
    const refs = { tuned: refOf(tuned, o.tuned), ...(base === undefined ? {} : { base: refOf(base, o.base!) }) };
    const identity = { command: JOB, version: pithVersion(), method: o.method, params: o.params, seed: o.seed, refs, tensors: plan.tensors };
    const journal = Journal.open<Done>(o.out, identity, { resume: o.resume });
    try {
      const done = yield* runTasks(o, plan, refs, journal, pool);
      const report = finish(o, plan, base, tuned, codec.version, journal, done);
      journal.remove();
      yield { type: 'job.done', job: JOB, ms: performance.now() - started };
      return report;
    } catch (error) {
      journal.close();
      throw error;
    }
  } finally {
    await pool?.[Symbol.asyncDispose]();
  }
}

function refOf(reader: CheckpointReader, path: string): CheckpointRef {
  return { path: resolve(path), stamp: checkpointStamp(reader) };
}

function dryRun(o: EncodeOptions, plan: DeltaPlan): EncodeReport {
  const predicted = plan.tensors.map((t) => ({
    name: t.name,
    method: t.byMethod ? o.method : 'lossless',
    rawBytes: t.bytes,
    bytes: Math.round(t.bytes * (t.hasBase ? TYPICAL.pairRatio : TYPICAL.aloneRatio)),
  }));
  const bytes = predicted.reduce((sum, t) => sum + t.bytes, 0);
  const ms = Math.round(plan.rawBytes / TYPICAL.bytesPerMs + 300);
  return {
    out: o.out,
    bytes: 0,
    rawBytes: plan.rawBytes,
    ratio: 0,
    tensors: predicted,
    sideFiles: [],
    plan: { bytes, peakBytes: TYPICAL.mainBytes + o.threads * TYPICAL.workerBytes, ms },
  };
}

interface Refs {
  readonly tuned: CheckpointRef;
  readonly base?: CheckpointRef;
}

async function* runTasks(
  o: EncodeOptions,
  plan: DeltaPlan,
  refs: Refs,
  journal: Journal<Done>,
  pool: WorkerPool,
): AsyncGenerator<ProgressEvent, Map<string, Done>, void> {
  const done = new Map<string, Done>();
  for (const [key, value] of journal.done) if (spoolIsWhole(journal, key, value)) done.set(key, value);
  const jobs = [...encodeJobs(o, plan, refs, journal), ...hashJobs(plan, refs)].filter((j) => !done.has(j.label));
  const doneBytes = plan.tensors.reduce((sum, t) => sum + (done.has(t.name) ? t.bytes : 0), 0);
  yield { type: 'job.start', job: JOB, totalBytes: plan.rawBytes, tasks: jobs.length, resumedBytes: doneBytes };
  const schedule = { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes: plan.rawBytes, doneBytes };
  yield* runJobs<EncodeTask | HashTask>(jobs, schedule, (job, result) => {
    const value: Done = job.task.type === 'hash' ? { hash: result as HashResult } : { encode: result as EncodeResult };
    journal.append(job.label, value);
    done.set(job.label, value);
    if (!('encode' in value)) return undefined;
    const bytes = value.encode.parts.reduce((sum, p) => sum + p.bytes, 0);
    return { type: 'tensor.done', job: JOB, tensor: job.label, method: value.encode.info.identical ? 'identical' : o.method, bytes, rawBytes: job.bytes };
  });
  return done;
}

/** Name of a tensor's spooled parts: names may hold anything, their hash may not. */
const spoolName = (tensor: string): string => createHash('sha256').update(tensor).digest('hex').slice(0, 32);

function encodeJobs(o: EncodeOptions, plan: DeltaPlan, refs: Refs, journal: Journal<Done>): Job<EncodeTask>[] {
  const settings = runSettings(o, 'cpu');
  return plan.tensors.map((t) => ({
    label: t.name,
    bytes: t.bytes,
    memoryBytes: TYPICAL.workerBytes,
    task: {
      type: 'encode',
      settings,
      method: t.byMethod ? { name: o.method, params: o.params } : { name: 'lossless', params: {} },
      tuned: { checkpoint: refs.tuned, name: t.name },
      ...(t.hasBase && refs.base !== undefined ? { base: { checkpoint: refs.base, name: t.name } } : {}),
      ...commonRows(t),
      assigned: {},
      spool: journal.spool(spoolName(t.name)),
    },
  }));
}

const commonRows = (t: PlannedTensor): { commonRows?: number } =>
  t.pairing.kind === 'pair' && t.pairing.commonRows !== undefined ? { commonRows: t.pairing.commonRows } : {};

/** Base tensors that no tuned tensor is coded against still belong to the base's content hash. */
function hashJobs(plan: DeltaPlan, refs: Refs): Job<HashTask>[] {
  const { base } = refs;
  if (base === undefined) return [];
  const names = [...plan.removed, ...plan.tensors.filter((t) => !t.hasBase && t.inBase).map((t) => t.name)];
  return names.map((name) => ({
    label: `base:${name}`,
    bytes: 0,
    memoryBytes: TYPICAL.workerBytes,
    task: { type: 'hash', tensor: { checkpoint: base, name } },
  }));
}

function spoolIsWhole(journal: Journal<Done>, key: string, value: Done): boolean {
  if (!('encode' in value)) return true;
  return value.encode.parts.every((p) => {
    const file = `${journal.spool(spoolName(key))}.${p.part}`;
    return io.stat(file)?.bytes === p.bytes && createHash('sha256').update(io.readFile(file)).digest('hex') === p.sha256;
  });
}

function finish(
  o: EncodeOptions,
  plan: DeltaPlan,
  base: CheckpointReader | undefined,
  tuned: CheckpointReader,
  version: number,
  journal: Journal<Done>,
  done: ReadonlyMap<string, Done>,
): EncodeReport {
  const result = (name: string): EncodeResult => (done.get(name) as { encode: EncodeResult }).encode;
  const baseShaOf = (name: string): string => {
    const value = done.get(name);
    return value !== undefined && 'encode' in value && value.encode.baseSha256 !== undefined
      ? value.encode.baseSha256
      : (done.get(`base:${name}`) as { hash: HashResult }).hash.sha256;
  };
  const baseHash = base === undefined ? undefined : contentHash([...base.infos.values()].map((t) => ({ ...t, sha256: baseShaOf(t.name) })));
  const tunedHash = contentHash(plan.tensors.map((t) => ({ ...t, sha256: result(t.name).tunedSha256 })));
  const restoredHash = contentHash(plan.tensors.map((t) => ({ ...t, sha256: result(t.name).restoredSha256 })));
  const methods = o.method === 'lossless' ? [] : [{ name: o.method, version, params: { ...o.params } }];
  const headers = tuned.files.length === 0 ? undefined : deflated([Buffer.concat(tuned.files.map((f) => f.rawHeader))]).blob;
  const side = sideFiles(o, base, tuned);
  const manifest: DeltaManifest = {
    generator: `pith ${pithVersion()}`,
    base: baseHash === undefined ? null : { name: basename(resolve(o.base!)), contentHash: baseHash },
    tuned: {
      name: basename(resolve(o.tuned)),
      contentHash: tunedHash,
      restoredContentHash: restoredHash,
      files: tuned.files.map((f) => ({ name: f.name, bytes: f.bytes, headerBytes: f.rawHeader.length })),
      ...(headers === undefined ? {} : { headers: headers.sha256 }),
      sideFiles: side.entries,
      ...(side.blob === undefined ? {} : { sideFilesHash: side.blob.sha256 }),
      removed: [...plan.removed],
    },
    methods: [{ name: 'lossless', version: 1, params: {} }, ...methods],
    tensors: plan.tensors.map((t) => tensorEntry(t, result(t.name), base, t.byMethod && methods.length > 0 ? 1 : 0)),
  };
  const parts = new Map<string, StoredPart[]>();
  for (const t of plan.tensors) {
    parts.set(
      t.name,
      result(t.name).parts.map((p) => ({ ...p, file: `${journal.spool(spoolName(t.name))}.${p.part}` })),
    );
  }
  const bytes = writeDelta(o.out, { manifest, parts, headers, sideFiles: side.blob }, { force: o.force });
  return {
    out: o.out,
    bytes,
    rawBytes: plan.rawBytes,
    ratio: plan.rawBytes === 0 ? 0 : bytes / plan.rawBytes,
    ...(baseHash === undefined ? {} : { baseHash }),
    tunedHash,
    tensors: plan.tensors.map((t) => encodedTensor(t, result(t.name), t.byMethod ? o.method : 'lossless')),
    sideFiles: side.entries.map((f) => ({ name: f.name, coding: f.coding })),
  };
}

function encodedTensor(t: PlannedTensor, r: EncodeResult, method: string): EncodedTensor {
  return {
    name: t.name,
    method: r.info.identical ? 'identical' : method,
    bytes: r.parts.reduce((sum, p) => sum + p.bytes, 0),
    rawBytes: t.bytes,
    ...(r.info.error === undefined ? {} : { error: r.info.error }),
  };
}

function tensorEntry(t: PlannedTensor, r: EncodeResult, base: CheckpointReader | undefined, method: number): TensorEntry {
  const against = r.baseSha256 === undefined ? undefined : base?.infos.get(t.name);
  const rows = commonRows(t).commonRows;
  return {
    name: t.name,
    dtype: t.dtype,
    shape: [...t.shape],
    method: r.info.identical ? 'identical' : method,
    ...(against === undefined ? {} : { base: { sha256: r.baseSha256!, ...(rows === undefined ? {} : { shape: [...against.shape], rows }) } }),
    sha256: r.tunedSha256,
    ...(r.restoredSha256 === r.tunedSha256 ? {} : { restored: r.restoredSha256 }),
    parts: Object.fromEntries(r.parts.map((p) => [p.part, p.sha256])),
    ...(Object.keys(r.info.facts).length === 0 ? {} : { facts: { ...r.info.facts } }),
  };
}

/** The tuned folder's other files; one that the base folder holds too is only named. */
function sideFiles(
  o: EncodeOptions,
  base: CheckpointReader | undefined,
  tuned: CheckpointReader,
): { entries: SideFileEntry[]; blob: ReturnType<typeof deflated>['blob'] | undefined } {
  const folder = checkpointFolder(o.tuned);
  if (folder === undefined) return { entries: [], blob: undefined };
  const baseFolder = o.base === undefined ? undefined : checkpointFolder(o.base);
  const inBase = new Map(baseFolder === undefined || base === undefined ? [] : listSideFiles(baseFolder, base.files).map((f) => [f.name, f]));
  const own: Uint8Array[] = [];
  const entries = listSideFiles(folder, tuned.files).map((f): SideFileEntry => {
    const bytes = io.readFile(f.path);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const twin = inBase.get(f.name);
    if (twin?.bytes === f.bytes && Buffer.compare(io.readFile(twin.path), bytes) === 0) return { name: f.name, bytes: f.bytes, sha256, coding: 'base' };
    own.push(bytes);
    return { name: f.name, bytes: f.bytes, sha256, coding: 'deflate' };
  });
  if (own.length === 0) return { entries, blob: undefined };
  const { blob, sizes } = deflated(own);
  let next = 0;
  return { entries: entries.map((e) => (e.coding === 'base' ? e : { ...e, stored: sizes[next++]! })), blob };
}
