import type { DType } from './dtype.js';

export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** A tensor in its storage form: little-endian, row-major, exactly `byteLength(dtype, shape)` bytes. */
export interface TensorView extends TensorInfo {
  readonly bytes: Uint8Array;
}
