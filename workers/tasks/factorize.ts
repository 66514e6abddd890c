/** One layer's weight taken apart: its singular values, or the factors of a rank with what they leave. */
import { decodeF32, encodeAs } from '../../core/float.js';
import { changeError, type ErrorMeasure } from '../../kernels/linalg/change-error.js';
import { matrixOps, transposed, type MatrixOps } from '../../kernels/linalg/matrix-ops.js';
import { factorProduct } from '../../kernels/lowrank/factor-product.js';
import type { DenseDType } from '../../kernels/lowrank/panel.js';
import { loadMethod } from '../../methods/index.js';
import type { Decomposition, LayerWeight } from '../../methods/kinds.js';
import type { FactorizeResult, FactorizeTask } from '../messages/layers.js';
import type { Written } from '../messages/refs.js';
import { layerHas, namingLayer, readLayer, readLayerStats } from '../read-layer.js';
import type { TaskControl, WorkerState } from '../state.js';
import { writePlace } from '../written.js';

export async function factorize(state: WorkerState, task: FactorizeTask, control: TaskControl): Promise<FactorizeResult> {
  const ctx = state.ctx(task.settings, task.layer.tensor.name, control);
  const method = (await loadMethod('factor', task.method.name)).create(task.method.params);
  const layer = await readLayer(state, task.layer, control);
  // the Gram matrix wherever it is there: all methods are judged by it
  const judged = layerHas(task.layer, 'inputGram') ? (['inputGram'] as const) : [];
  const stats = readLayerStats(task.layer, new Set([...method.needs, ...judged]));
  const ops = await matrixOps(ctx);
  const d = await namingLayer(task.layer, () => method.decompose(ctx, layer, stats));
  control.checkpointCancel();
  if (task.rank === undefined || task.target === undefined) return { s: d.s, error: 0, weightError: 0, facts: d.facts, written: [] };
  const { what, written } = await writeFactors(state, task, d, layer, ops);
  const errorBy = (measure: ErrorMeasure): number => changeError(ops, layer.w, what, layer.m, layer.n, measure).error;
  const outputError = stats.inputGram === undefined ? {} : { outputError: errorBy({ gram: stats.inputGram }) };
  return { error: left(d.s, task.rank), weightError: errorBy({}), ...outputError, facts: d.facts, written };
}

/** sqrt(sum_{i >= rank} s_i^2 / sum s_i^2) */
function left(s: Float64Array, rank: number): number {
  let [tail, total] = [0, 0];
  for (const [i, v] of s.entries()) {
    total += v * v;
    if (i >= rank) tail += v * v;
  }
  return total > 0 ? Math.sqrt(tail / total) : 0;
}

interface Stored {
  /** What is read back, (m, n). */
  readonly what: Float32Array;
  readonly written: Written[];
}

async function writeFactors(state: WorkerState, task: FactorizeTask, d: Decomposition, { m, n }: LayerWeight, ops: MatrixOps): Promise<Stored> {
  const { tensor, transposed: turned } = task.layer;
  const dtype = (await state.reader(tensor.checkpoint)).infos.get(tensor.name)!.dtype as DenseDType;
  const [rank, target] = [task.rank!, task.target!];
  const { a, b } = d.factors(rank);
  if ('dense' in target) {
    const kernel = await state.panels();
    const bytes = turned ? factorProduct(kernel, dtype, transposed(b, rank, n), transposed(a, m, rank), rank, m) : factorProduct(kernel, dtype, a, b, rank, n);
    const values = decodeF32(dtype, bytes);
    return { what: turned ? transposed(values, n, m) : values, written: [writePlace(target.dense, bytes)] };
  }
  const [storedA, storedB] = [encodeAs(dtype, a), encodeAs(dtype, b)];
  const what = ops.multiply(false, false, m, n, rank, decodeF32(dtype, storedA), decodeF32(dtype, storedB));
  return { what, written: [writePlace(target.a, storedA), writePlace(target.b, storedB)] };
}
