/**
 * How the two factors of a low-rank delta are stored: as floats, or as symmetric integers per component.
 *   int8: scale_k = max|f_k| / 127, one f32 scale per component      (ERE, arXiv 2305.18425; width: pith's default)
 *   int4: scale = bf16(max|f_k[group]| / 7), one bf16 scale per 64 values of a component
 * lora_A is (rank, n): component k is row k. lora_B is (m, rank): component k is column k.
 */
import type { DType } from '../../core/dtype.js';
import { decodeF32, encodeAs } from '../../core/float.js';
import { packInt4, unpackInt4 } from '../quant/pack.js';

export const FACTOR_FORMATS = ['bf16', 'f16', 'f32', 'int8', 'int4'] as const;
export type FactorFormat = (typeof FACTOR_FORMATS)[number];

const GROUP = 64;
const FLOAT: Partial<Record<FactorFormat, 'BF16' | 'F16' | 'F32'>> = { bf16: 'BF16', f16: 'F16', f32: 'F32' };

/** Which way the components of a factor run. */
export type Axis = 'rows' | 'columns';

export interface StoredArray {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export interface StoredFactor {
  readonly values: StoredArray;
  readonly scale?: StoredArray;
}

/** Bytes that one component of a factor of `length` values takes. */
export function componentBytes(format: FactorFormat, length: number): number {
  if (format === 'int8') return length + 4;
  if (format === 'int4') return length / 2 + 2 * Math.ceil(length / GROUP);
  return length * (format === 'f32' ? 4 : 2);
}

/** values: (rows, columns) f32. */
export function storeFactor(values: Float32Array, rows: number, columns: number, axis: Axis, format: FactorFormat): StoredFactor {
  const float = FLOAT[format];
  if (float !== undefined) return { values: { dtype: float, shape: [rows, columns], bytes: encodeAs(float, values) } };
  const at = groups(rows, columns, axis, format);
  const top = format === 'int8' ? 127 : 7;
  const scales = new Float32Array(at.shape.reduce((a, b) => a * b, 1));
  for (let i = 0; i < values.length; i++) {
    const g = at.index(i);
    scales[g] = Math.max(scales[g]!, Math.abs(values[i]!) / top);
  }
  const scaleBytes = encodeAs(at.dtype, scales);
  const stored = decodeF32(at.dtype, scaleBytes);
  const codes = new Int8Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const s = stored[at.index(i)]!;
    codes[i] = s === 0 ? 0 : Math.max(-top, Math.min(top, roundEven(values[i]! / s)));
  }
  const scale: StoredArray = { dtype: at.dtype, shape: at.shape, bytes: scaleBytes };
  if (format === 'int8') return { values: { dtype: 'I8', shape: [rows, columns], bytes: new Uint8Array(codes.buffer) }, scale };
  return { values: { dtype: 'U8', shape: [rows, Math.ceil(columns / 2)], bytes: packInt4(codes, rows, columns) }, scale };
}

/** The inverse: (rows, columns) f32. One multiplication per value, so the bits are the same everywhere. */
export function loadFactor(stored: StoredFactor, rows: number, columns: number, axis: Axis, format: FactorFormat): Float32Array {
  const float = FLOAT[format];
  if (float !== undefined) return decodeF32(float, stored.values.bytes);
  const at = groups(rows, columns, axis, format);
  const scales = decodeF32(at.dtype, stored.scale!.bytes);
  const { bytes } = stored.values;
  const codes = format === 'int8' ? new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length) : unpackInt4(bytes, rows, columns);
  const out = new Float32Array(rows * columns);
  for (let i = 0; i < out.length; i++) out[i] = codes[i]! * scales[at.index(i)]!;
  return out;
}

/** Shape and type of the parts, to check a stored factor against. */
export function factorShapes(
  rows: number,
  columns: number,
  axis: Axis,
  format: FactorFormat,
): { values: Omit<StoredArray, 'bytes'>; scale?: Omit<StoredArray, 'bytes'> } {
  const float = FLOAT[format];
  if (float !== undefined) return { values: { dtype: float, shape: [rows, columns] } };
  const { dtype, shape } = groups(rows, columns, axis, format);
  const values = format === 'int8' ? { dtype: 'I8' as const, shape: [rows, columns] } : { dtype: 'U8' as const, shape: [rows, Math.ceil(columns / 2)] };
  return { values, scale: { dtype, shape } };
}

interface Groups {
  readonly dtype: 'F32' | 'BF16';
  readonly shape: readonly number[];
  /** Scale of the value at a row-major position. */
  index(position: number): number;
}

function groups(rows: number, columns: number, axis: Axis, format: FactorFormat): Groups {
  const byRow = axis === 'rows';
  const components = byRow ? rows : columns;
  const length = byRow ? columns : rows;
  if (format === 'int8') {
    return { dtype: 'F32', shape: [components], index: (p) => (byRow ? Math.floor(p / columns) : p % columns) };
  }
  const perComponent = Math.ceil(length / GROUP);
  const index = (p: number): number => {
    const [i, j] = [Math.floor(p / columns), p % columns];
    return byRow ? i * perComponent + Math.floor(j / GROUP) : j * perComponent + Math.floor(i / GROUP);
  };
  return { dtype: 'BF16', shape: [components, perComponent], index };
}

/** Nearest integer, ties to even. */
function roundEven(v: number): number {
  const r = Math.round(v);
  return Math.abs(v - Math.trunc(v)) === 0.5 && r % 2 !== 0 ? r - 1 : r;
}
