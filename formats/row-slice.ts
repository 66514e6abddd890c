/** Rows of a tensor as a range of its bytes. */
import { DTYPES } from '../core/dtype.js';
import { PithError } from '../core/errors.js';
import { byteLength, rowLength } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';

export interface RowSlice {
  readonly shape: readonly number[];
  readonly begin: number;
  readonly bytes: number;
}

/** The whole tensor, or rows [start, end) of its first dimension, clamped as a slice is. DTYPE_UNSUPPORTED (65) when they are not whole bytes. */
export function rowSlice(info: TensorInfo, rows: readonly [start: number, end: number] | undefined, source: string): RowSlice {
  if (rows === undefined) return { shape: info.shape, begin: 0, bytes: byteLength(info.dtype, info.shape) };
  const refuse = (message: string): PithError => new PithError('DTYPE_UNSUPPORTED', { file: source, tensor: info.name, got: info.dtype, message });
  const total = info.shape[0];
  if (total === undefined) throw refuse('a scalar has no rows');
  const from = Math.min(Math.max(0, rows[0]), total);
  const to = Math.min(Math.max(from, rows[1]), total);
  const rowBits = rowLength(info.shape) * DTYPES[info.dtype].bits;
  if ((from * rowBits) % 8 !== 0 || (to * rowBits) % 8 !== 0) throw refuse(`rows [${from}, ${to}) do not fall on byte boundaries`);
  return { shape: [to - from, ...info.shape.slice(1)], begin: (from * rowBits) / 8, bytes: ((to - from) * rowBits) / 8 };
}
