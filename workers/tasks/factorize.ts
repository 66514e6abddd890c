/** One layer's weight taken apart: its singular values, or the factors of a rank with what they leave. */
import { decodeF32, encodeAs } from '../../core/float.js';
import { StatsFile } from '../../formats/stats/file.js';
import { matrixOps, transposed, type MatrixOps } from '../../kernels/linalg/matrix-ops.js';
import { factorProduct } from '../../kernels/lowrank/factor-product.js';
import { PithError } from '../../core/errors.js';
import type { DenseDType } from '../../kernels/lowrank/panel.js';
import { loadMethod } from '../../methods/index.js';
import type { Decomposition, FactorStat, FactorStats, Factorizer, LayerWeight } from '../../methods/kinds.js';
import type { FactorizeResult, FactorizeTask, Written } from '../messages.js';
import { readF32 } from '../read-matrix.js';
import { sourceOf } from '../sources.js';
import type { TaskControl, WorkerState } from '../state.js';
import { PlaceWriter } from '../written.js';

export async function factorize(state: WorkerState, task: FactorizeTask, control: TaskControl): Promise<FactorizeResult> {
  const ctx = state.ctx(task.settings, task.tensor.name, control);
  const method = (await loadMethod('factor', task.method.name)).create(task.method.params);
  const source = sourceOf(await state.reader(task.tensor.checkpoint), task.tensor.name);
  const layer = await readLayer(task, source, control);
  const stats = readStats(task, method.needs);
  const ops = await matrixOps(ctx);
  const d = await decompose(task, method, ctx, layer, stats);
  control.checkpointCancel();
  if (task.rank === undefined || task.target === undefined) return { s: d.s, error: 0, weightError: 0, facts: d.facts, written: [] };
  const dtype = source.dtype as DenseDType;
  const { what, written } = await writeFactors(state, task, d, layer, dtype, ops);
  return { error: left(d.s, task.rank), ...errorsOf(what, layer, stats.inputGram, ops), facts: d.facts, written };
}

type Source = ReturnType<typeof sourceOf>;

async function readLayer(task: FactorizeTask, source: Source, control: TaskControl): Promise<LayerWeight> {
  const [rows, columns] = source.shape as [number, number];
  const stored = await readF32(source, control);
  const [m, n, w] = task.transposed ? [columns, rows, transposed(stored, rows, columns)] : [rows, columns, stored];
  return { name: task.module, m, n, w };
}

/** What the method needs, and the Gram matrix wherever it is there: all methods are judged by it. */
function readStats({ stats, module }: FactorizeTask, needs: readonly FactorStat[]): FactorStats {
  if (stats === undefined) return { tokens: 0 };
  using file = StatsFile.open(stats);
  const names = new Set([...needs, ...(file.has(module, 'inputGram') ? (['inputGram'] as const) : [])]);
  const values = Object.fromEntries([...names].map((s) => [s, file.read(module, s)]));
  return { tokens: file.has(module, 'tokens') ? file.tokens(module) : 0, ...values };
}

/** NOT_FINITE names the layer. */
async function decompose(
  task: FactorizeTask,
  method: Factorizer,
  ctx: ReturnType<WorkerState['ctx']>,
  layer: LayerWeight,
  stats: FactorStats,
): Promise<Decomposition> {
  try {
    return await method.decompose(ctx, layer, stats);
  } catch (error) {
    if (!(error instanceof PithError) || error.code !== 'NOT_FINITE') throw error;
    const message = `tensor "${task.tensor.name}" of ${task.tensor.checkpoint.path}, or a statistic of it: ${String(error.details['message'])}`;
    throw new PithError('NOT_FINITE', { message }, { cause: error });
  }
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

async function writeFactors(state: WorkerState, task: FactorizeTask, d: Decomposition, layer: LayerWeight, dtype: DenseDType, ops: MatrixOps): Promise<Stored> {
  const { m, n } = layer;
  const [rank, target] = [task.rank!, task.target!];
  const { a, b } = d.factors(rank);
  if ('dense' in target) {
    const kernel = await state.panels();
    const bytes = task.transposed
      ? factorProduct(kernel, dtype, transposed(b, rank, n), transposed(a, m, rank), rank, m)
      : factorProduct(kernel, dtype, a, b, rank, n);
    const values = decodeF32(dtype, bytes);
    return { what: task.transposed ? transposed(values, n, m) : values, written: [write(target.dense, bytes)] };
  }
  const [storedA, storedB] = [encodeAs(dtype, a), encodeAs(dtype, b)];
  const what = ops.multiply(false, false, m, n, rank, decodeF32(dtype, storedA), decodeF32(dtype, storedB));
  return { what, written: [write(target.a, storedA), write(target.b, storedB)] };
}

function write(place: { file: string; position: number }, bytes: Uint8Array): Written {
  using writer = new PlaceWriter(place);
  writer.write(bytes);
  return writer.written;
}

function errorsOf(
  what: Float32Array,
  { w, m, n }: LayerWeight,
  gram: Float32Array | undefined,
  ops: MatrixOps,
): Pick<FactorizeResult, 'weightError' | 'outputError'> {
  for (let i = 0; i < what.length; i++) what[i] = what[i]! - w[i]!;
  const share = (error: number, whole: number): number => (whole > 0 ? Math.sqrt(Math.max(0, error) / whole) : 0);
  const weightError = share(dot(what, what), dot(w, w));
  if (gram === undefined) return { weightError };
  const energy = (x: Float32Array): number => dot(ops.multiply(false, false, m, n, n, x, gram), x);
  return { weightError, outputError: share(energy(what), energy(w)) };
}

function dot(x: Float32Array, y: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * y[i]!;
  return sum;
}
