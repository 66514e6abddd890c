/** Weights that do not train: outside the wasm heap, in their storage type, decoded to f32 panel by panel when they are multiplied. */
import type { DType } from '../../core/dtype.js';
import { decodeF32 } from '../../core/float.js';

export interface FrozenMatrix {
  readonly rows: number;
  readonly columns: number;
  /** Bytes it holds in memory. */
  readonly bytes: number;
  /** The values themselves, where nothing has to be decoded. */
  readonly values?: Float32Array;
  /** bf16 patterns, which the heap's own kernel widens. */
  readonly bf16?: Uint8Array;
  /** Rows [start, end) in f32. */
  decode(start: number, end: number, out: Float32Array): void;
}

/** `bytes`: a stored float tensor, row-major, kept by reference. DTYPE_UNSUPPORTED for integers. */
export function frozenMatrix(dtype: DType, rows: number, columns: number, bytes: Uint8Array): FrozenMatrix {
  const width = bytes.length / Math.max(1, rows);
  const decode = (start: number, end: number, out: Float32Array): void => void decodeF32(dtype, bytes.subarray(start * width, end * width), out);
  const plain = { rows, columns, bytes: bytes.length, decode };
  if (dtype === 'BF16') return { ...plain, bf16: bytes };
  if (dtype !== 'F32' || bytes.byteOffset % 4 !== 0) return plain;
  return { ...plain, values: new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4) };
}

/** f32 values as a matrix, kept by reference. */
export function f32Matrix(rows: number, columns: number, values: Float32Array): FrozenMatrix {
  const decode = (start: number, end: number, out: Float32Array): void => out.set(values.subarray(start * columns, end * columns));
  return { rows, columns, bytes: values.byteLength, values, decode };
}

/** Rows [start, end) as f32, straight from the matrix where it has them. */
export function rowsOf(matrix: FrozenMatrix, start: number, end: number): Float32Array {
  if (matrix.values !== undefined) return matrix.values.subarray(start * matrix.columns, end * matrix.columns);
  const out = new Float32Array((end - start) * matrix.columns);
  matrix.decode(start, end, out);
  return out;
}
