/** `pith adapter fuse`: base + adapter as a checkpoint, or as a delta against the base. */
import { basename, join, resolve } from 'node:path';
import type { DType } from '../core/dtype.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { byteLength } from '../core/shape.js';
import { Adapter } from '../formats/adapter/adapter.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import type { ConfigField } from '../formats/config-fields.js';
import * as io from '../formats/io.js';
import { prepareFiles, type PreparedFiles } from '../formats/safetensors/prepared.js';
import { checkpointStamp } from '../formats/stamp.js';
import type { FuseResult, FuseTask } from '../workers/messages/adapters.js';
import { openAny } from '../workers/open.js';
import { WorkerPool } from '../workers/pool.js';
import { readModelConfig } from '../workers/adapted-reader.js';
import { deltaEncode, type EncodeOptions, type EncodeReport } from './delta-encode.js';
import { planFuse, type FusedTensor, type FusePlan } from '../workers/fuse-plan.js';
import { checkOutput, published, requireSpace, RESULT } from './publish.js';
import { readerWarnings } from './reader-warnings.js';
import { writeSideFiles } from './write-side-files.js';
import { runSettings, type RunOptions } from './run-options.js';
import { runJobs, type Job } from './schedule.js';

export interface FuseOptions extends RunOptions {
  readonly base: string;
  readonly adapter: string;
  readonly out: string;
  /** Of every float tensor of the result; undefined: the base's own. */
  readonly dtype?: 'BF16' | 'F16' | 'F32';
  readonly force: boolean;
  readonly dryRun: boolean;
  readonly shardBytes?: number;
}

export interface FuseReport {
  readonly out: string;
  readonly bytes: number;
  readonly device: 'cpu';
  /** Tensors that the adapter changes. */
  readonly tensors: readonly {
    readonly name: string;
    readonly kind: 'merged' | 'replaced';
    /** max |stored - W'| / max |W'| */
    readonly maxError: number;
  }[];
  readonly copied: number;
  /** The largest over all tensors. */
  readonly maxError: number;
  readonly untied: boolean;
  readonly dryRun?: true;
}

const JOB = 'adapter fuse';
const TASK_BYTES = 48 << 20;

export async function* adapterFuse(o: FuseOptions): Pipeline<FuseReport> {
  const started = performance.now();
  checkOutput(o.out, o.force);
  const pool = o.dryRun ? undefined : new WorkerPool({ threads: o.threads });
  try {
    using adapter = Adapter.open(o.adapter);
    await using base = await openAny(o.base);
    yield* readerWarnings(JOB, base);
    const config = await readModelConfig(base);
    const plan = planFuse(base, adapter, config, o.dtype);
    if (plan.untied) {
      const message = 'the adapter changes the output head in another way than the embedding it shares a weight with: the result has a head of its own';
      yield { type: 'warning', job: JOB, code: 'UNTIED', message };
    }
    const bytes = plan.tensors.reduce((sum, t) => sum + byteLength(t.info.dtype, t.info.shape), 0);
    requireSpace(o.out, bytes);
    if (pool === undefined) return { ...report(o, plan, new Map(), bytes), dryRun: true };
    const done = yield* published(o.out, o.force, (spool) => fuseInto(o, plan, base, adapter, pool, spool));
    yield { type: 'job.done', job: JOB, ms: performance.now() - started };
    return done;
  } finally {
    await pool?.[Symbol.asyncDispose]();
  }
}

async function* fuseInto(
  o: FuseOptions,
  plan: FusePlan,
  base: CheckpointReader,
  adapter: Adapter,
  pool: WorkerPool,
  spool: (name: string) => string,
): AsyncGenerator<ProgressEvent, FuseReport, void> {
  const single = o.out.endsWith('.safetensors');
  const out = spool(RESULT);
  const files = prepareFiles(
    out,
    plan.tensors.map((t) => t.info),
    { single, ...(o.shardBytes === undefined ? {} : { shardBytes: o.shardBytes }) },
  );
  const jobs = plan.tensors.map((t) => job(o, t, base, adapter, files));
  const totalBytes = jobs.reduce((sum, j) => sum + j.bytes, 0);
  const results = new Map<string, FuseResult>();
  yield { type: 'job.start', job: JOB, totalBytes, tasks: jobs.length, resumedBytes: 0 };
  yield* runJobs(jobs, { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes }, (j, result) => {
    results.set(j.label, result);
    const method = j.task.module !== undefined ? 'merged' : j.task.saved !== undefined ? 'replaced' : 'copied';
    return { type: 'tensor.done', job: JOB, tensor: j.label, method, bytes: j.bytes, rawBytes: j.bytes };
  });
  if (!single) await writeSideFiles(base, out, configFields(o, plan));
  files.finish();
  return report(o, plan, results, files.bytes);
}

function job(o: FuseOptions, t: FusedTensor, base: CheckpointReader, adapter: Adapter, files: PreparedFiles): Job<FuseTask> {
  const { info, base: name, ...change } = t;
  const bytes = byteLength(info.dtype, info.shape);
  const m = change.module === undefined ? undefined : adapter.modules.get(change.module)!;
  const factors = m === undefined ? 0 : 12 * m.rank * (m.b.shape[0]! + byteLength('U8', m.a.shape.slice(1)));
  const task: FuseTask = {
    type: 'fuse',
    settings: runSettings(o, 'cpu'),
    base: { checkpoint: { path: o.base, stamp: checkpointStamp(base) }, name },
    dtype: info.dtype,
    ...(change.module === undefined && change.saved === undefined ? {} : { adapter: resolve(adapter.folder) }),
    ...change,
    target: files.places.get(info.name)!,
  };
  return { label: info.name, bytes, memoryBytes: TASK_BYTES + factors, task };
}

const TORCH_NAMES: Partial<Record<DType, string>> = { BF16: 'bfloat16', F16: 'float16', F32: 'float32' };

/** What config.json says that is no longer so. */
function configFields(o: FuseOptions, plan: FusePlan): ConfigField[] {
  const types = o.dtype === undefined ? [] : ['dtype', 'torch_dtype'].map((key) => ({ key, value: `"${TORCH_NAMES[o.dtype!]}"` }));
  return [
    ...types,
    ...(plan.untied ? [{ key: 'tie_word_embeddings', value: 'false', add: true }] : []),
    ...(plan.vocabulary === undefined ? [] : [{ key: 'vocab_size', value: String(plan.vocabulary) }]),
  ];
}

function report(o: FuseOptions, plan: FusePlan, results: ReadonlyMap<string, FuseResult>, bytes: number): FuseReport {
  const relative = (name: string): number => {
    const r = results.get(name);
    return r === undefined || r.maxAbs === 0 ? 0 : r.maxError / r.maxAbs;
  };
  const changed = plan.tensors.filter((t) => t.module !== undefined || t.saved !== undefined);
  const tensors = changed.map((t) => ({
    name: t.info.name,
    kind: t.module === undefined ? ('replaced' as const) : ('merged' as const),
    maxError: relative(t.info.name),
  }));
  const maxError = Math.max(0, ...plan.tensors.map((t) => relative(t.info.name)));
  return { out: o.out, bytes, device: 'cpu', tensors, copied: plan.tensors.length - changed.length, maxError, untied: plan.untied };
}

export interface FuseDeltaReport extends EncodeReport {
  readonly fused: FuseReport;
}

type DeltaOptions = Omit<EncodeOptions, 'base' | 'tuned' | 'out' | keyof RunOptions | 'force' | 'dryRun' | 'resume'>;

/** The merged checkpoint as a delta against the base; the checkpoint itself lies beside the output only meanwhile. */
export async function* adapterFuseDelta(o: FuseOptions, encode: DeltaOptions): Pipeline<FuseDeltaReport> {
  checkOutput(o.out, o.force);
  return yield* published(o.out, o.force, (spool) => fuseAndEncode(o, encode, spool));
}

async function* fuseAndEncode(o: FuseOptions, encode: DeltaOptions, spool: (name: string) => string): AsyncGenerator<ProgressEvent, FuseDeltaReport, void> {
  const tuned = join(spool('fused'), basename(resolve(o.adapter)));
  io.mkdir(spool('fused'));
  const fused = yield* adapterFuse({ ...o, out: tuned, force: false });
  const { threads, maxMemoryBytes, seed, device, signal } = o;
  const run = { threads, maxMemoryBytes, seed, device, signal };
  const r = yield* deltaEncode({ ...run, ...encode, base: o.base, tuned, out: spool(RESULT), force: false, dryRun: false, resume: false });
  return { ...r, out: o.out, fused: { ...fused, out: o.out } };
}
