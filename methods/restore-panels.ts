/** What restoring has in common for codecs that add to the base: checks of stored parts, and W0 + D^ in panels of rows. */
import { DTYPES, type DType } from '../core/dtype.js';
import { PithError } from '../core/errors.js';
import { byteLength, matrixShape } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import { isDense, type DenseDType, type PanelKernel } from '../kernels/lowrank/panel.js';
import type { Ctx } from './define.js';
import { PANEL_VALUES } from './delta-matrix.js';
import type { PartSink, PartSource, TensorSink, TensorSource } from './kinds.js';

export const malformed = (part: string, expected: string, got: string): PithError => new PithError('FACTORS_MALFORMED', { part, expected, got });

/** FACTORS_MALFORMED unless there is a base and its type is a float of 16 or 32 bits. */
export function requireBase(base: TensorSource | undefined, target: TensorInfo, part: string): asserts base is TensorSource & { readonly dtype: DenseDType } {
  if (base === undefined || !isDense(target.dtype) || base.dtype !== target.dtype) throw malformed(part, 'a float base tensor', target.dtype);
}

/** FACTORS_MALFORMED unless the part is of this type and shape. */
export function checkPart(parts: PartSource, part: string, dtype: DType, shape: readonly number[]): void {
  const got = parts.info(part);
  if (got.dtype !== dtype || got.shape.join() !== shape.join()) throw malformed(part, `${dtype} [${shape.join()}]`, `${got.dtype} [${got.shape.join()}]`);
}

/** The whole part, checked. */
export async function readPart(parts: PartSource, part: string, dtype: DType, shape: readonly number[]): Promise<Uint8Array> {
  checkPart(parts, part, dtype, shape);
  return shape.includes(0) ? new Uint8Array(0) : parts.read(part);
}

export async function writePart(parts: PartSink, part: string, dtype: DType, shape: readonly number[], bytes: Uint8Array): Promise<void> {
  await parts.write(part, 0, bytes);
  parts.declare(part, dtype, shape);
}

/** Values of a panel of whole rows of `n`. */
export const rowPanel = (n: number): number => Math.max(1, Math.floor(PANEL_VALUES / n)) * n;

/** Fills D^ of rows [row, row + count), (count, n) f32; a value of -0 leaves the base's as it is. */
export type FillRows = (delta: Float32Array, row: number, count: number) => void;

/** Writes round(f32(W0) + D^), one f32 sum a value. */
export async function addInPanels(c: Ctx, panels: PanelKernel, base: TensorSource, target: TensorInfo, out: TensorSink, fill: FillRows): Promise<void> {
  const [m, n] = matrixShape(target.shape);
  const dtype = target.dtype as DenseDType;
  const rows = Math.min(m, rowPanel(n) / n);
  const rowBytes = byteLength(dtype, [n]);
  const [stored, delta] = [panels.stored(rows * rowBytes), new Float32Array(rows * n)];
  for (let i = 0; i < m; i += rows) {
    c.checkpointCancel();
    const count = Math.min(rows, m - i);
    const [w0, d] = [stored.subarray(0, count * rowBytes), delta.subarray(0, count * n)];
    await base.readInto(i * rowBytes, w0);
    fill(d, i, count);
    await out.write(i * rowBytes, panels.add(dtype, w0, d));
    c.report(w0.length);
  }
}

/** Writes round(f32(W0) + B A), the product in a fixed order; a: (r, n), b: (m, r). */
export async function addFactored(
  c: Ctx,
  panels: PanelKernel,
  base: TensorSource,
  target: TensorInfo,
  out: TensorSink,
  a: Float32Array,
  b: Float32Array,
  r: number,
): Promise<void> {
  const [m, n] = matrixShape(target.shape);
  const dtype = target.dtype as DenseDType;
  const rows = Math.min(m, rowPanel(n) / n);
  const rowBytes = byteLength(dtype, [n]);
  const factored = panels.factor(a, r, n, rows);
  for (let i = 0; i < m; i += rows) {
    c.checkpointCancel();
    const count = Math.min(rows, m - i);
    const w0 = factored.input(count, count * rowBytes);
    await base.readInto(i * rowBytes, w0);
    await out.write(i * rowBytes, factored.add(dtype, w0, b.subarray(i * r, (i + count) * r)));
    c.report(w0.length);
  }
}

/** The base's own bytes: what a tensor restores to when its budget buys nothing. */
export async function copyBase(c: Ctx, base: TensorSource, out: TensorSink): Promise<void> {
  const step = PANEL_VALUES * (DTYPES[base.dtype].bits / 8);
  const buffer = new Uint8Array(Math.min(step, base.byteLength));
  for (let at = 0; at < base.byteLength; at += step) {
    c.checkpointCancel();
    const piece = buffer.subarray(0, Math.min(step, base.byteLength - at));
    await base.readInto(at, piece);
    await out.write(at, piece);
    c.report(piece.length);
  }
}
