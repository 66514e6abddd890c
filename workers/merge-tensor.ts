/** W' of one tensor of base + adapter, in f32 and row panels, rounded once: what a fuse writes and what a composed reader reads. */
import { DTYPES, type DType } from '../core/dtype.js';
import { PithError } from '../core/errors.js';
import { decodeF32, encodeAs } from '../core/float.js';
import { byteLength, elementCount, matrixShape } from '../core/shape.js';
import type { Adapter, LoraModule } from '../formats/adapter/adapter.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { addColumnSquares, mergeFactors, Merger, scaleColumns, scaleRows } from '../kernels/lowrank/merge.js';
import { isDense, type PanelKernel } from '../kernels/lowrank/panel.js';
import type { FuseResult, FuseTask } from './messages/adapters.js';

const PANEL_VALUES = 1 << 19;

/** Which tensor, and what the adapter does to it. */
export type MergeSpec = Pick<FuseTask, 'dtype' | 'module' | 'saved' | 'transposed' | 'bias'> & { readonly name: string };

export interface MergeParts {
  readonly base: CheckpointReader;
  readonly adapter: Adapter | undefined;
  readonly kernel: () => Promise<PanelKernel>;
  /** A buffer of at most so many bytes, the caller's until the next call. */
  readonly buffer: (bytes: number) => Uint8Array;
  /** Front to back, without gaps. */
  readonly write: (at: number, bytes: Uint8Array) => void;
  readonly control: Control;
}

interface Control {
  readonly report: (bytes: number) => void;
  readonly checkpointCancel: () => void;
}

interface Source {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readInto(begin: number, target: Uint8Array): Promise<void>;
}

export async function mergeTensor(spec: MergeSpec, p: MergeParts): Promise<FuseResult> {
  const source = sourceOf(spec, p);
  if (spec.module === undefined && source.dtype === spec.dtype) return copy(source, p);
  if (!isDense(spec.dtype)) {
    throw new PithError('DTYPE_UNSUPPORTED', { file: p.base.source, tensor: spec.name, got: spec.dtype, message: 'merge to bf16, f16 or f32' });
  }
  const changes = p.adapter !== undefined && spec.module !== undefined && elementCount(source.shape) > 0;
  const values = changes ? await merging(spec, p.adapter, source, p) : plain;
  return convert(source, spec.dtype, values, p);
}

function sourceOf(spec: MergeSpec, { base, adapter }: MergeParts): Source {
  if (spec.saved !== undefined && adapter !== undefined) {
    const { info } = adapter.file.entry(spec.saved);
    return { ...info, readInto: async (begin, target) => adapter.file.readInto(info.name, begin, target) };
  }
  const info = base.infos.get(spec.name);
  if (info === undefined) throw new PithError('TENSOR_MISSING', { file: base.source, tensor: spec.name });
  return { ...info, readInto: (begin, target) => base.readInto(info.name, begin, target) };
}

async function copy(source: Source, { buffer, write, control }: MergeParts): Promise<FuseResult> {
  const bytes = byteLength(source.dtype, source.shape);
  for (let at = 0; at < bytes;) {
    control.checkpointCancel();
    const piece = buffer(bytes - at);
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

async function merging(spec: MergeSpec, adapter: Adapter, source: Source, p: MergeParts): Promise<Values> {
  const module = adapter.modules.get(spec.module!);
  if (module === undefined) throw new PithError('INTERNAL', { message: `module "${spec.module}" is not in ${adapter.folder}` });
  const values = (info: LoraModule['a']): Float32Array => decodeF32(info.dtype, adapter.bytes(info));
  if (spec.bias === true) {
    const bias = values(module.bias!);
    return (w, start) => {
      for (let i = 0; i < w.length; i++) w[i] = w[i]! + Math.fround(module.scaling * bias[start + i]!);
    };
  }
  const [, columns] = matrixShape(source.shape);
  const flipped = spec.transposed === true;
  const factors = mergeFactors(values(module.a), values(module.b), module.rank, module.scaling, flipped);
  const merger = new Merger(await p.kernel(), factors, columns, rowsOf(columns));
  if (module.magnitude === undefined) return (w, start) => void merger.add(w, start);
  const magnitude = values(module.magnitude);
  if (!flipped) return (w, start) => scaleRows(merger.add(w, start), columns, magnitude, start);
  const sums = new Float64Array(columns);
  await panels(source, p, (w, start) => addColumnSquares(merger.add(w, start), columns, sums));
  return (w, start) => scaleColumns(merger.add(w, start), columns, magnitude, sums);
}

const rowsOf = (columns: number): number => Math.max(1, Math.floor(PANEL_VALUES / columns));

/** Every row panel of the source as f32, front to back. */
async function panels(source: Source, { buffer, control }: MergeParts, use: Values): Promise<void> {
  const [rows, columns] = matrixShape(source.shape);
  const width = DTYPES[source.dtype].bits / 8;
  for (let start = 0; start < rows && columns > 0; start += rowsOf(columns)) {
    control.checkpointCancel();
    const count = Math.min(rowsOf(columns), rows - start) * columns;
    const bytes = buffer(count * width);
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

async function convert(source: Source, dtype: 'BF16' | 'F16' | 'F32', values: Values, p: MergeParts): Promise<FuseResult> {
  const [, columns] = matrixShape(source.shape);
  const sums = { maxError: 0, maxAbs: 0 };
  const width = DTYPES[dtype].bits / 8;
  await panels(source, p, (w, start) => {
    values(w, start);
    const bytes = encodeAs(dtype, w);
    measure(sums, w, dtype === 'F32' ? w : decodeF32(dtype, bytes));
    p.write(start * columns * width, bytes);
    p.control.report((w.length * DTYPES[source.dtype].bits) / 8);
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
