/** Compares a tensor with its base element by element, in panels: stored bits of one dtype, f32 values of two float ones. */
import { DTYPES } from '../../core/dtype.js';
import { decodeF32, isFloat } from '../../core/float.js';
import { elementCount } from '../../core/shape.js';
import type { DiffResult, DiffTask } from '../messages/matrices.js';
import { HashingSource } from '../sources.js';
import type { TaskControl, WorkerState } from '../state.js';

const PANEL_BYTES = 1 << 20;

export async function diff(state: WorkerState, task: DiffTask, control: TaskControl): Promise<DiffResult> {
  const base = new HashingSource(await state.reader(task.base.checkpoint), task.base.name);
  const tuned = new HashingSource(await state.reader(task.tuned.checkpoint), task.tuned.name);
  const sums = { changed: 0, delta: 0, base: 0, maxAbs: 0 };
  if (base.dtype !== tuned.dtype) return compareValues(base, tuned, sums, control);
  const width = Math.max(1, DTYPES[tuned.dtype].bits / 8);
  const a = new Uint8Array(Math.min(PANEL_BYTES, base.byteLength));
  const b = new Uint8Array(a.length);
  for (let at = 0; at < base.byteLength; at += a.length) {
    control.checkpointCancel();
    const n = Math.min(a.length, base.byteLength - at);
    await base.readInto(at, a.subarray(0, n));
    await tuned.readInto(at, b.subarray(0, n));
    sums.changed += countChanged(a.subarray(0, n), b.subarray(0, n), width);
    if (isFloat(tuned.dtype)) addNorms(sums, decodeF32(base.dtype, a.subarray(0, n)), decodeF32(tuned.dtype, b.subarray(0, n)));
    control.report(n);
  }
  return result(sums, base.byteLength / width);
}

interface Sums {
  changed: number;
  delta: number;
  base: number;
  maxAbs: number;
}

const result = (sums: Sums, elements: number): DiffResult => ({
  changed: sums.changed,
  elements,
  deltaNorm: Math.sqrt(sums.delta),
  baseNorm: Math.sqrt(sums.base),
  maxAbs: sums.maxAbs,
});

/** Float tensors of different dtypes and one shape. */
async function compareValues(base: HashingSource, tuned: HashingSource, sums: Sums, control: TaskControl): Promise<DiffResult> {
  const elements = elementCount(base.shape);
  const panel = PANEL_BYTES / 8;
  const values = async (source: HashingSource, start: number, count: number): Promise<Float32Array> => {
    const width = DTYPES[source.dtype].bits / 8;
    const bytes = new Uint8Array(count * width);
    await source.readInto(start * width, bytes);
    return decodeF32(source.dtype, bytes);
  };
  for (let at = 0; at < elements; at += panel) {
    control.checkpointCancel();
    const count = Math.min(panel, elements - at);
    const w0 = await values(base, at, count);
    const w1 = await values(tuned, at, count);
    for (let i = 0; i < count; i++) if (!Object.is(w0[i], w1[i])) sums.changed++;
    addNorms(sums, w0, w1);
    control.report((count * DTYPES[tuned.dtype].bits) / 8);
  }
  return result(sums, elements);
}

function countChanged(a: Uint8Array, b: Uint8Array, width: number): number {
  let changed = 0;
  for (let i = 0; i < a.length; i += width) {
    for (let j = i; j < i + width; j++) {
      if (a[j] === b[j]) continue;
      changed++;
      break;
    }
  }
  return changed;
}

function addNorms(sums: Sums, w0: Float32Array, w1: Float32Array): void {
  for (let i = 0; i < w0.length; i++) {
    const d = w1[i]! - w0[i]!;
    sums.delta += d * d;
    sums.base += w0[i]! * w0[i]!;
    if (Math.abs(d) > sums.maxAbs) sums.maxAbs = Math.abs(d);
  }
}
