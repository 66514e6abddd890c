/** One layer with weights removed: chosen by a method or by masks, the kept ones set anew where that is asked for, and what it costs. */
import { decodeF32, encodeAs } from '../../core/float.js';
import { PithError } from '../../core/errors.js';
import { sameShape } from '../../core/shape.js';
import type { DenseDType } from '../../kernels/lowrank/panel.js';
import { matrixOps, transposed, transposedBytes } from '../../kernels/linalg/matrix-ops.js';
import { changeError, type ErrorMeasure } from '../../kernels/linalg/change-error.js';
import { cutMask, scoreKeys } from '../../kernels/sparse/score-keys.js';
import { loadMethod } from '../../methods/index.js';
import type { Ctx } from '../../methods/define.js';
import type { KeepMask, Pruned, Pruner } from '../../methods/kinds.js';
import type { PruneResult, PruneTask } from '../messages/layers.js';
import type { CheckpointRef, LayerRef, MethodRef } from '../messages/refs.js';
import { layerHas, namingLayer, readLayer, readLayerStats, readTunedLayer } from '../read-layer.js';
import type { TaskControl, WorkerState } from '../state.js';
import { writePlace } from '../written.js';

interface Run {
  readonly state: WorkerState;
  readonly task: PruneTask;
  readonly control: TaskControl;
  readonly ctx: Ctx;
}

/** A layer counts once in the progress, however often it is read. */
const quiet = (control: TaskControl): TaskControl => ({ ...control, report: () => undefined });

const prunerOf = async ({ name, params }: MethodRef): Promise<Pruner> => (await loadMethod('prune', name)).create(params);

export async function prune(state: WorkerState, task: PruneTask, control: TaskControl): Promise<PruneResult> {
  const started = performance.now();
  const { layer } = task;
  const run: Run = { state, task, control, ctx: state.ctx(task.settings, layer.tensor.name, control) };
  const chosen = await choose(run);
  const done = task.update === undefined ? chosen : await update(run, task.update, chosen);
  control.checkpointCancel();
  const info = (await state.reader(layer.tensor.checkpoint)).infos.get(layer.tensor.name)!;
  const [rows, columns] = info.shape as [number, number];
  const bytes = encodeAs(info.dtype as DenseDType, layer.transposed ? transposed(done.w, columns, rows) : done.w);
  const written = task.places.map((place) => writePlace(place, bytes));
  const maskWritten = task.mask === undefined ? undefined : writePlace(task.mask, layer.transposed ? transposedBytes(done.mask, columns, rows) : done.mask);
  // judged by what is read back
  const stored = decodeF32(info.dtype, bytes);
  const { error, of } = await errorOf(run, layer.transposed ? transposed(stored, rows, columns) : stored);
  return {
    zeros: stored.reduce((sum, v) => (v === 0 ? sum + 1 : sum), 0),
    values: stored.length,
    error,
    errorOf: of,
    ms: performance.now() - started,
    facts: done.facts,
    written,
    ...(maskWritten === undefined ? {} : { maskWritten }),
  };
}

async function choose(run: Run): Promise<Pruned> {
  const { state, task, control, ctx } = run;
  const layer = await readTunedLayer(state, task.layer, control);
  if ('masks' in task.choose) {
    let mask: KeepMask | undefined;
    for (const ref of task.choose.masks) {
      const own = await readMask(state, ref, task.layer);
      mask = mask === undefined ? own : mask.map((v, i) => ((task.choose as { combine: string }).combine === 'and' ? v & own[i]! : v | own[i]!));
    }
    return masked(layer.w, mask!);
  }
  const { method, target } = task.choose;
  const pruner = await prunerOf(method);
  const stats = readLayerStats(task.layer, pruner.needs);
  if (target.group !== 'cut') return namingLayer(task.layer, () => pruner.prune(ctx, layer, stats, target));
  const scores = pruner.scores?.(ctx, layer, stats);
  if (scores === undefined) throw new PithError('INTERNAL', { message: `"${method.name}" gives no scores` });
  return masked(layer.w, cutMask(scoreKeys(scores), target.key, target.ties));
}

/** New values of what is kept, from the weight and statistics as they were. */
async function update({ state, task, control, ctx }: Run, method: MethodRef, { mask, facts }: Pruned): Promise<Pruned> {
  const pruner = await prunerOf(method);
  const layer = await readLayer(state, task.layer, quiet(control));
  const stats = readLayerStats(task.layer, pruner.needs);
  const done = await namingLayer(task.layer, () => pruner.update!(ctx, layer, stats, mask));
  return { ...done, facts: { ...facts, ...done.facts } };
}

/** In place; what is removed is +0. */
function masked(w: Float32Array, mask: KeepMask): Pruned {
  for (let i = 0; i < w.length; i++) if (mask[i] === 0) w[i] = 0;
  return { w, mask, facts: {} };
}

/** (m, n): 1 where the file has anything but zero, under the weight's own name and as it lies there. */
async function readMask(state: WorkerState, ref: CheckpointRef, { tensor, transposed: turned }: LayerRef): Promise<KeepMask> {
  const reader = await state.reader(ref);
  const info = reader.infos.get(tensor.name);
  if (info === undefined) throw new PithError('TENSOR_MISSING', { file: reader.source, tensor: tensor.name });
  const { shape } = (await state.reader(tensor.checkpoint)).infos.get(tensor.name)!;
  if (!sameShape(shape, info.shape)) {
    throw new PithError('SHAPE_MISMATCH', { file: reader.source, tensor: tensor.name, expected: `[${shape.join(', ')}]`, got: `[${info.shape.join(', ')}]` });
  }
  const { bytes } = await reader.read(tensor.name);
  const values = info.dtype === 'BOOL' || info.dtype === 'U8' ? bytes : decodeF32(info.dtype, bytes);
  const mask = Uint8Array.from(values, (v) => (v === 0 ? 0 : 1));
  return turned ? transposedBytes(mask, shape[0]!, shape[1]!) : mask;
}

async function errorOf({ state, task, control, ctx }: Run, what: Float32Array): Promise<ReturnType<typeof changeError>> {
  const { m, n, w } = await readLayer(state, task.layer, quiet(control));
  const by = (['inputGram', 'inputSqNorm'] as const).find((s) => layerHas(task.layer, s));
  const stats = readLayerStats(task.layer, by === undefined ? [] : [by]);
  const measure: ErrorMeasure = {
    ...(stats.inputGram === undefined ? {} : { gram: stats.inputGram }),
    ...(stats.inputSqNorm === undefined ? {} : { squares: stats.inputSqNorm }),
  };
  return changeError(await matrixOps(ctx), w, what, m, n, measure);
}
