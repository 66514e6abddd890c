/** Shape arithmetic. Sizes are checked: a product that leaves the safe integers is a bug of the caller, headers check first. */
import { DTYPES, type DType } from './dtype.js';

/** Number of elements; 1 for a scalar (`[]`), 0 when any dimension is 0. */
export function elementCount(shape: readonly number[]): number {
  let n = 1;
  for (const d of shape) n *= d;
  return n;
}

/** Bytes of a whole tensor; the caller has checked that sub-byte types fill whole bytes. */
export function byteLength(dtype: DType, shape: readonly number[]): number {
  return (elementCount(shape) * DTYPES[dtype].bits) / 8;
}

/** Bytes of all their tensors. */
export function totalByteLength(infos: Iterable<{ readonly dtype: DType; readonly shape: readonly number[] }>): number {
  let sum = 0;
  for (const { dtype, shape } of infos) sum += byteLength(dtype, shape);
  return sum;
}

/** Rows are slices of the first dimension. A scalar is one row of one element. */
export function rowCount(shape: readonly number[]): number {
  return shape.length === 0 ? 1 : shape[0]!;
}

/** Elements of one row. */
export function rowLength(shape: readonly number[]): number {
  return elementCount(shape.slice(1));
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((d, i) => d === b[i]);
}

/** The (out, in) view of a weight: the first dimension against all others flattened; convolutions become (out, in*kh*kw). */
export function matrixShape(shape: readonly number[]): [rows: number, columns: number] {
  return [rowCount(shape), rowLength(shape)];
}
