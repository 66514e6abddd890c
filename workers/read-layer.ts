/** One linear layer as the methods see it: its weight as (out, in) in f32, what calibration knows of its inputs. */
import { PithError } from '../core/errors.js';
import { StatsFile } from '../formats/stats/file.js';
import { transposed } from '../kernels/linalg/matrix-ops.js';
import type { FactorStat, FactorStats, LayerWeight } from '../methods/kinds.js';
import type { CheckpointRef, LayerRef } from './messages/refs.js';
import { readF32 } from './read-matrix.js';
import { sourceOf } from './sources.js';
import type { TaskControl, WorkerState } from './state.js';

/** Read anew at every call: methods may overwrite what they are given. NOT_FINITE (65) names the tensor. */
export async function readLayer(state: WorkerState, layer: LayerRef, control: TaskControl): Promise<LayerWeight> {
  const own = await readWeight(state, layer, layer.tensor.checkpoint, control);
  return { name: layer.module, ...own };
}

/** With the weight before fine-tuning, where there is one. */
export async function readTunedLayer(state: WorkerState, layer: LayerRef, control: TaskControl): Promise<LayerWeight> {
  const own = await readLayer(state, layer, control);
  if (layer.base === undefined) return own;
  return { ...own, base: (await readWeight(state, layer, layer.base, { ...control, report: () => undefined })).w };
}

async function readWeight(state: WorkerState, layer: LayerRef, from: CheckpointRef, control: TaskControl): Promise<Pick<LayerWeight, 'm' | 'n' | 'w'>> {
  const { tensor, transposed: turned } = layer;
  const source = sourceOf(await state.reader(from), tensor.name);
  const [rows, columns] = source.shape as [number, number];
  const stored = await readF32(source, control);
  if (!allFinite(stored)) throw new PithError('NOT_FINITE', { message: `tensor "${tensor.name}" of ${from.path}` });
  return turned ? { m: columns, n: rows, w: transposed(stored, rows, columns) } : { m: rows, n: columns, w: stored };
}

/** Only these statistics, each the caller's own. NOT_FINITE (65) names the module. */
export function readLayerStats({ stats, module }: LayerRef, needs: Iterable<FactorStat>): FactorStats {
  if (stats === undefined) return { tokens: 0 };
  using file = StatsFile.open(stats);
  const values = Object.fromEntries([...needs].map((s) => [s, file.read(module, s)]));
  for (const [s, v] of Object.entries(values)) {
    if (!allFinite(v)) throw new PithError('NOT_FINITE', { message: `${s} of module "${module}" in ${stats}` });
  }
  return { tokens: file.has(module, 'tokens') ? file.tokens(module) : 0, ...values };
}

/** NOT_FINITE of `work` names the layer. */
export async function namingLayer<T>({ tensor }: LayerRef, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof PithError) || error.code !== 'NOT_FINITE') throw error;
    const message = `tensor "${tensor.name}" of ${tensor.checkpoint.path}: ${String(error.details['message'])}`;
    throw new PithError('NOT_FINITE', { message }, { cause: error });
  }
}

/** Whether the statistics have it of this layer. */
export function layerHas({ stats, module }: LayerRef, statistic: FactorStat): boolean {
  if (stats === undefined) return false;
  using file = StatsFile.open(stats);
  return file.has(module, statistic);
}

function allFinite(values: Float32Array): boolean {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i]!)) return false;
  return true;
}
