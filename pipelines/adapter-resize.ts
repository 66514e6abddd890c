/** `pith adapter resize`: the same adapter with fewer components; also what `lint` uses to fit an adapter to a target. */
import { resolve } from 'node:path';
import type { DType } from '../core/dtype.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { byteLength, elementCount, totalByteLength } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import { Adapter, ADAPTER_FILE, KEY_PREFIX, type LoraModule } from '../formats/adapter/adapter.js';
import { patternKey } from '../formats/adapter/config.js';
import { AdapterWriter, type SpooledTensor } from '../formats/adapter/write.js';
import type { RankRule, ResizeResult, ResizeTask } from '../workers/messages/adapters.js';
import { WorkerPool } from '../workers/pool.js';
import { checkOutput, published, requireSpace, RESULT } from './publish.js';
import { runSettings, type RunOptions } from './run-options.js';
import { runJobs, type Job } from './schedule.js';

export interface ResizeOptions extends RunOptions {
  readonly adapter: string;
  readonly out: string;
  readonly rule: RankRule;
  /** Every module gets this rank, with zero components where it needs fewer. */
  readonly uniformRank?: number;
  /** Replaces the config's own. */
  readonly targetModules?: readonly string[];
  /** `mlx`: adapters.safetensors as mlx_lm reads it, instead of peft's files. */
  readonly layout?: 'peft' | 'mlx';
  readonly force: boolean;
  readonly dryRun: boolean;
}

export interface ResizeReport {
  readonly out: string;
  readonly bytes: number;
  readonly rank: number;
  /** ||dW' - dW||_F / ||dW||_F over all modules, of the updates s B A. */
  readonly error: number;
  readonly modules: readonly { readonly name: string; readonly before: number; readonly rank: number; readonly error: number }[];
  readonly dryRun?: true;
}

const JOB = 'adapter resize';

export async function* adapterResize(o: ResizeOptions): Pipeline<ResizeReport> {
  const started = performance.now();
  checkOutput(o.out, o.force);
  const pool = o.dryRun ? undefined : new WorkerPool({ threads: o.threads });
  try {
    using adapter = Adapter.open(o.adapter);
    requireSpace(o.out, adapter.file.bytes * (o.uniformRank === undefined ? 1 : 1 + o.uniformRank / adapter.config.r));
    if (pool === undefined) return predicted(o, adapter);
    const report = yield* published(o.out, o.force, (spool) => resizeInto(o, adapter, pool, spool));
    yield { type: 'job.done', job: JOB, ms: performance.now() - started };
    return report;
  } finally {
    await pool?.[Symbol.asyncDispose]();
  }
}

function predicted(o: ResizeOptions, adapter: Adapter): ResizeReport {
  const modules = [...adapter.modules.values()].map((m) => {
    const rank = o.uniformRank ?? Math.min(o.rule.maxRank, m.rank);
    return { name: m.path, before: m.rank, rank, error: 0 };
  });
  const infos = modules.flatMap(({ name, rank }) => factorsOf(o, adapter.modules.get(name)!, rank));
  const bytes = totalByteLength([...infos, ...others(adapter)]);
  return { out: o.out, bytes, rank: Math.max(0, ...modules.map((m) => m.rank)), error: 0, modules, dryRun: true };
}

/** The scaling that all modules share, or 1: then each factor carries its own. */
export function commonScaling(adapter: Adapter): number {
  const all = new Set([...adapter.modules.values()].map((m) => m.scaling));
  return all.size === 1 ? [...all][0]! : 1;
}

/** Type of rewritten factors: that of A and B, f32 where it is another or they differ. */
function factorType({ a, b }: LoraModule): 'BF16' | 'F16' | 'F32' {
  return a.dtype === b.dtype && (a.dtype === 'BF16' || a.dtype === 'F16') ? a.dtype : 'F32';
}

function factorsOf(o: ResizeOptions, m: LoraModule, rank: number): [a: TensorInfo, b: TensorInfo] {
  const dtype: DType = factorType(m);
  if (o.layout === 'mlx') {
    return [
      { name: `${m.path}.lora_a`, dtype, shape: [...m.a.shape.slice(1), rank] },
      { name: `${m.path}.lora_b`, dtype, shape: [rank, m.b.shape[0]!] },
    ];
  }
  return [
    { name: m.a.name, dtype, shape: [rank, ...m.a.shape.slice(1)] },
    { name: m.b.name, dtype, shape: [m.b.shape[0]!, rank, ...m.b.shape.slice(2)] },
  ];
}

/** Tensors that no resize touches. */
const others = (adapter: Adapter): TensorInfo[] => {
  const factors = new Set([...adapter.modules.values()].flatMap((m) => [m.a.name, m.b.name]));
  return [...adapter.file.entries.values()].map((e) => e.info).filter((i) => !factors.has(i.name));
};

async function* resizeInto(
  o: ResizeOptions,
  adapter: Adapter,
  pool: WorkerPool,
  spool: (name: string) => string,
): AsyncGenerator<ProgressEvent, ResizeReport, void> {
  const modules = [...adapter.modules.values()];
  const results = new Map<string, ResizeResult>();
  const scaling = commonScaling(adapter);
  const jobs = modules.map((m, i): Job<ResizeTask> => {
    const values = elementCount(m.a.shape) + elementCount(m.b.shape);
    const task: ResizeTask = {
      type: 'resize',
      settings: runSettings(o, 'cpu'),
      adapter: resolve(adapter.folder),
      module: m.path,
      rule: o.rule,
      ...(o.uniformRank === undefined ? {} : { padTo: o.uniformRank }),
      scaling: m.scaling / scaling,
      dtype: factorType(m),
      transposed: o.layout === 'mlx',
      spool: spool(`factors-${i}`),
    };
    return { label: m.path, bytes: values, memoryBytes: (16 << 20) + 40 * values, task };
  });
  const totalBytes = jobs.reduce((sum, j) => sum + j.bytes, 0);
  yield { type: 'job.start', job: JOB, totalBytes, tasks: jobs.length, resumedBytes: 0 };
  yield* runJobs(jobs, { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes }, (job, result) => {
    results.set(job.label, result);
    return { type: 'tensor.done', job: JOB, tensor: job.label, method: 'resize', bytes: job.bytes, rawBytes: job.bytes };
  });
  const factors = modules.flatMap((m, i): SpooledTensor[] => {
    const [a, b] = factorsOf(o, m, results.get(m.path)!.rank);
    const file = spool(`factors-${i}`);
    return [
      { ...a, file, position: 0 },
      { ...b, file, position: byteLength(a.dtype, a.shape) },
    ];
  });
  const kept = new Map(others(adapter).map((info) => [o.layout === 'mlx' ? mlxName(info.name) : info.name, info]));
  const infos = [...kept].map(([name, info]) => ({ ...info, name }));
  const writer = new AdapterWriter(spool(RESULT), infos, factors, o.layout === 'mlx' ? MLX_FILE : ADAPTER_FILE);
  try {
    await writer.writeSaved(async (info, begin, target) => adapter.file.readInto(kept.get(info.name)!.name, begin, target));
    const bytes = writer.finish(factors, o.layout === 'mlx' ? mlxConfig(adapter, scaling, results) : resizedConfig(o, adapter, scaling, results));
    return report(o, modules, results, bytes);
  } finally {
    writer.close();
  }
}

/** The adapter's own config with the new ranks; every scale stays what it was, or is in the factors. */
function resizedConfig(o: ResizeOptions, adapter: Adapter, scaling: number, results: ReadonlyMap<string, ResizeResult>): string {
  const r = Math.max(1, ...[...results.values()].map((v) => v.rank));
  const rest = [...results].filter(([, v]) => v.rank !== r);
  const document = {
    ...adapter.config.raw,
    r,
    lora_alpha: r * scaling,
    use_rslora: false,
    ...(o.targetModules === undefined ? {} : { target_modules: o.targetModules }),
    rank_pattern: Object.fromEntries(rest.map(([path, v]) => [patternKey(path), v.rank])),
    alpha_pattern: Object.fromEntries(rest.map(([path, v]) => [patternKey(path), v.rank * scaling])),
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

const MLX_FILE = 'adapters.safetensors';
/** A magnitude under mlx_lm's name. */
const mlxName = (key: string): string => `${key.slice(KEY_PREFIX.length).replace(/\.lora_magnitude_vector(\.weight)?$/, '')}.m`;

/** mlx_lm's adapter_config.json: one rank and scale, module names inside a layer, all layers from the first on. */
function mlxConfig(adapter: Adapter, scale: number, results: ReadonlyMap<string, ResizeResult>): string {
  const layer = /^.*?\blayers\.(\d+)\./;
  const paths = [...results.keys()];
  const layers = paths.map((p) => Number(layer.exec(p)?.[1] ?? -1));
  const document = {
    fine_tune_type: adapter.config.useDora ? 'dora' : 'lora',
    num_layers: Math.max(...layers) + 1,
    lora_parameters: {
      rank: Math.max(...[...results.values()].map((v) => v.rank)),
      scale,
      dropout: 0,
      keys: [...new Set(paths.map((p) => p.replace(layer, '')))].sort(),
    },
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

function report(o: ResizeOptions, modules: readonly LoraModule[], results: ReadonlyMap<string, ResizeResult>, bytes: number): ResizeReport {
  let [total, lost] = [0, 0];
  for (const { error, normSq } of results.values()) {
    total += normSq;
    lost += error ** 2 * normSq;
  }
  const rows = modules.map((m) => ({ name: m.path, before: m.rank, rank: results.get(m.path)!.rank, error: results.get(m.path)!.error }));
  return { out: o.out, bytes, rank: Math.max(0, ...rows.map((r) => r.rank)), error: total > 0 ? Math.sqrt(lost / total) : 0, modules: rows };
}
