/** The linear layers of a model's blocks, from names and shapes alone: what prune and factorize work on, and what each asks of them all. */
import { PithError } from '../core/errors.js';
import type { TensorInfo } from '../core/tensor.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import type { StatsFile } from '../formats/stats/file.js';
import type { Statistic } from '../formats/stats/schema.js';
import { isDense } from '../kernels/lowrank/panel.js';
import { isConv1d, modulesOf, type ModelConfig } from '../models/modules.js';
import { placeOf } from '../models/place.js';

export interface LinearLayer {
  readonly module: string;
  readonly weight: TensorInfo;
  readonly bias?: string;
  /** Stored as (in, out). */
  readonly transposed: boolean;
  /** Outputs and inputs. */
  readonly m: number;
  readonly n: number;
}

export interface LayerChoice {
  readonly checkpoint: string;
  /** By the name of a weight. */
  readonly selects: (weight: string) => boolean;
}

/** Embeddings, norms, biases and the output layer are none. USAGE (64) when none is selected, DTYPE_UNSUPPORTED (65) for one that is not BF16, F16 or F32. */
export function linearLayers(o: LayerChoice, reader: CheckpointReader, config: ModelConfig): LinearLayer[] {
  const linears = modulesOf(reader.infos, config).modules.filter((m) => m.kind === 'linear' && placeOf(m.weight).layer !== undefined);
  const chosen = linears.filter((m) => o.selects(m.weight));
  if (chosen.length === 0) {
    const names = linears.length === 0 ? 'it has none in its blocks' : `the names are as "${linears[0]!.weight}"`;
    throw new PithError('USAGE', { message: `${o.checkpoint}: no linear layer is selected; ${names}` });
  }
  return chosen.map(({ weight: name, bias, path }) => {
    const weight = reader.infos.get(name)!;
    if (!isDense(weight.dtype)) {
      throw new PithError('DTYPE_UNSUPPORTED', { file: o.checkpoint, tensor: name, got: weight.dtype, message: 'BF16, F16 or F32 is expected' });
    }
    const transposed = isConv1d(path, config);
    const [rows, columns] = weight.shape as [number, number];
    const [m, n] = transposed ? [columns, rows] : [rows, columns];
    return { module: name.slice(0, -'.weight'.length), weight, ...(bias === undefined ? {} : { bias }), transposed, m, n };
  });
}

/** STATS_MISSING (65) names the first statistic that is not there and the flag that takes it; SHAPE_MISMATCH those of other layers. */
export function requireStats(stats: StatsFile, needs: readonly Statistic[], layers: readonly LinearLayer[]): void {
  for (const { module, m, n } of layers) stats.require(module, needs, { in: n, out: m });
}

/** MEMORY_BUDGET (64) when the largest layer does not fit. */
export function requireMemory(
  o: { readonly checkpoint: string; readonly maxMemoryBytes: number },
  layers: readonly LinearLayer[],
  layerBytes: (l: LinearLayer) => number,
): void {
  const largest = layers.reduce((a, b) => (layerBytes(a) >= layerBytes(b) ? a : b));
  const bytes = layerBytes(largest);
  if (bytes <= o.maxMemoryBytes) return;
  const megabytes = (v: number): string => `${Math.ceil(v / 1e6)} MB`;
  throw new PithError('MEMORY_BUDGET', {
    message: `${o.checkpoint}: "${largest.module}" takes ${megabytes(bytes)}, --max-memory is ${megabytes(o.maxMemoryBytes)}`,
  });
}

/** Of as many of the largest layers side by side as there are threads and memory for. */
export function peakBytes(
  o: { readonly threads: number; readonly maxMemoryBytes: number },
  layers: readonly LinearLayer[],
  layerBytes: (l: LinearLayer) => number,
): number {
  const tasks = layers.map(layerBytes).sort((a, b) => b - a);
  let peak = 0;
  for (const b of tasks.slice(0, o.threads)) if (peak + b <= o.maxMemoryBytes) peak += b;
  return peak;
}
