/** One tensor of a merged checkpoint: base (or its full copy in the adapter) plus the adapter, in f32, rounded once. */
import { DTYPES, type DType } from '../../core/dtype.js';
import { PithError } from '../../core/errors.js';
import { decodeF32, encodeAs } from '../../core/float.js';
import { panelBuffer } from '../../core/panel-buffer.js';
import { byteLength, matrixShape } from '../../core/shape.js';
import type { Adapter, LoraModule } from '../../formats/adapter/adapter.js';
import * as io from '../../formats/io.js';
import { addColumnSquares, mergeFactors, Merger, scaleColumns, scaleRows } from '../../kernels/lowrank/merge.js';
import { isDense } from '../../kernels/lowrank/panel.js';
import type { FuseResult, FuseTask } from '../messages.js';
import type { TaskControl, WorkerState } from '../state.js';

const PANEL_VALUES = 1 << 19;

interface Source {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readInto(begin: number, target: Uint8Array): Promise<void>;
}

export async function fuse(state: WorkerState, task: FuseTask, control: TaskControl): Promise<FuseResult> {
  const adapter = task.adapter === undefined ? undefined : await state.adapter(task.adapter);
  const source = await sourceOf(state, task, adapter);
  const { file } = task.target;
  const fd = io.openWrite(file, 'r+');
  const write = (at: number, bytes: Uint8Array): void => io.writeFully(fd, bytes, task.target.position + at, file);
  try {
    if (task.module === undefined && source.dtype === task.dtype) return await copy(source, write, control);
    if (!isDense(task.dtype)) throw new PithError('DTYPE_UNSUPPORTED', { file, tensor: task.base.name, got: task.dtype, message: 'merge to bf16, f16 or f32' });
    const values = adapter === undefined || task.module === undefined ? plain : await merging(state, task, adapter, source, control);
    return await convert(source, task.dtype, values, write, control);
  } finally {
    io.close(fd);
  }
}

async function sourceOf(state: WorkerState, task: FuseTask, adapter: Adapter | undefined): Promise<Source> {
  if (task.saved !== undefined && adapter !== undefined) {
    const { info } = adapter.file.entry(task.saved);
    return { ...info, readInto: async (begin, target) => adapter.file.readInto(info.name, begin, target) };
  }
  const reader = await state.reader(task.base.checkpoint);
  const info = reader.infos.get(task.base.name);
  if (info === undefined) throw new PithError('TENSOR_MISSING', { file: reader.source, tensor: task.base.name });
  return { ...info, readInto: (begin, target) => reader.readInto(info.name, begin, target) };
}

async function copy(source: Source, write: (at: number, bytes: Uint8Array) => void, control: TaskControl): Promise<FuseResult> {
  const bytes = byteLength(source.dtype, source.shape);
  for (let at = 0; at < bytes;) {
    control.checkpointCancel();
    const piece = panelBuffer(bytes - at, 'fuse copy');
    await source.readInto(at, piece);
    write(at, piece);
    control.report(piece.length);
    at += piece.length;
  }
  return { maxError: 0, maxAbs: 0 };
}

/** Values of rows from `start` on, changed in place: W -> W'. */
type Values = (w: Float32Array, start: number) => void;
const plain: Values = () => undefined;

async function merging(state: WorkerState, task: FuseTask, adapter: Adapter, source: Source, control: TaskControl): Promise<Values> {
  const module = adapter.modules.get(task.module!);
  if (module === undefined) throw new PithError('INTERNAL', { message: `module "${task.module}" is not in ${adapter.folder}` });
  const values = (info: LoraModule['a']): Float32Array => decodeF32(info.dtype, adapter.bytes(info));
  if (task.bias === true) {
    const bias = values(module.bias!);
    return (w, start) => {
      for (let i = 0; i < w.length; i++) w[i] = w[i]! + Math.fround(module.scaling * bias[start + i]!);
    };
  }
  const [, columns] = matrixShape(source.shape);
  const flipped = task.transposed === true;
  const factors = mergeFactors(values(module.a), values(module.b), module.rank, module.scaling, flipped);
  const merger = new Merger(await state.panels(), factors, columns, rowsOf(columns));
  if (module.magnitude === undefined) return (w, start) => void merger.add(w, start);
  const magnitude = values(module.magnitude);
  if (!flipped) return (w, start) => scaleRows(merger.add(w, start), columns, magnitude, start);
  const sums = new Float64Array(columns);
  await panels(source, control, (w, start) => addColumnSquares(merger.add(w, start), columns, sums));
  return (w, start) => scaleColumns(merger.add(w, start), columns, magnitude, sums);
}

const rowsOf = (columns: number): number => Math.max(1, Math.floor(PANEL_VALUES / columns));

/** Every row panel of the source as f32, front to back. */
async function panels(source: Source, control: TaskControl, use: Values): Promise<void> {
  const [rows, columns] = matrixShape(source.shape);
  const width = DTYPES[source.dtype].bits / 8;
  for (let start = 0; start < rows && columns > 0; start += rowsOf(columns)) {
    control.checkpointCancel();
    const count = Math.min(rowsOf(columns), rows - start) * columns;
    const bytes = panelBuffer(count * width, 'fuse');
    if (bytes.length < count * width) await wide(source, start * columns * width, count, use, start);
    else {
      await source.readInto(start * columns * width, bytes);
      use(decodeF32(source.dtype, bytes), start);
    }
  }
}

/** A row that alone is larger than the thread's buffer. */
async function wide(source: Source, begin: number, count: number, use: Values, start: number): Promise<void> {
  const bytes = new Uint8Array((count * DTYPES[source.dtype].bits) / 8);
  await source.readInto(begin, bytes);
  use(decodeF32(source.dtype, bytes), start);
}

async function convert(
  source: Source,
  dtype: 'BF16' | 'F16' | 'F32',
  values: Values,
  write: (at: number, bytes: Uint8Array) => void,
  control: TaskControl,
): Promise<FuseResult> {
  const [, columns] = matrixShape(source.shape);
  const sums = { maxError: 0, maxAbs: 0 };
  const width = DTYPES[dtype].bits / 8;
  await panels(source, control, (w, start) => {
    values(w, start);
    const bytes = encodeAs(dtype, w);
    measure(sums, w, dtype === 'F32' ? w : decodeF32(dtype, bytes));
    write(start * columns * width, bytes);
    control.report((w.length * DTYPES[source.dtype].bits) / 8);
  });
  return sums;
}

function measure(sums: { maxError: number; maxAbs: number }, w: Float32Array, stored: Float32Array): void {
  let { maxError, maxAbs } = sums;
  for (let i = 0; i < w.length; i++) {
    maxError = Math.max(maxError, Math.abs(stored[i]! - w[i]!));
    maxAbs = Math.max(maxAbs, Math.abs(w[i]!));
  }
  sums.maxError = maxError;
  sums.maxAbs = maxAbs;
}
