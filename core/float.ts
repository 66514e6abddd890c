/** Storage floats -> f32 and back, exactly: round to nearest even, NaN, infinities and -0 kept. */
import { DTYPES, type DType } from './dtype.js';
import { PithError } from './errors.js';

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

/** bits of an f32 */
function bitsOf(v: number): number {
  f32[0] = v;
  return u32[0]!;
}

function fromBits(bits: number): number {
  u32[0] = bits;
  return f32[0]!;
}

/** Value of a small IEEE-like pattern. FNUZ: no infinities, no -0, the bias one higher; E4M3 (fn): no infinities. */
function smallToF32(dtype: DType, w: number): number {
  if (dtype === 'F8_E8M0') return w === 255 ? NaN : 2 ** (w - 127);
  const { exponentBits, mantissaBits } = DTYPES[dtype].float!;
  const fnuz = dtype.endsWith('FNUZ');
  const bias = 2 ** (exponentBits - 1) - (fnuz ? 0 : 1);
  const sign = (w >> (exponentBits + mantissaBits)) & 1 ? -1 : 1;
  const e = (w >> mantissaBits) & (2 ** exponentBits - 1);
  const m = w & (2 ** mantissaBits - 1);
  if (fnuz && sign < 0 && e === 0 && m === 0) return NaN;
  const top = 2 ** exponentBits - 1;
  if (dtype === 'F8_E4M3' && e === top && m === 2 ** mantissaBits - 1) return NaN;
  if ((dtype === 'F16' || dtype === 'F8_E5M2') && e === top) return m === 0 ? sign * Infinity : NaN;
  return sign * (e === 0 ? m * 2 ** (1 - bias - mantissaBits) : (1 + m / 2 ** mantissaBits) * 2 ** (e - bias));
}

const tables = new Map<DType, Float32Array>();

/** All values of an 8- or 16-bit type but bf16, by pattern. Derived data, made once. */
function valueTable(dtype: DType): Float32Array {
  let table = tables.get(dtype);
  if (table === undefined) {
    table = Float32Array.from({ length: 2 ** DTYPES[dtype].bits }, (_, w) => smallToF32(dtype, w));
    tables.set(dtype, table);
  }
  return table;
}

/** Values of all f16 patterns. */
export const f16Values = (): Float32Array => valueTable('F16');

export function isFloat(dtype: DType): boolean {
  return DTYPES[dtype].float !== undefined || dtype === 'F8_E8M0' || dtype === 'F64';
}

/** Elements of a stored float tensor as f32. DTYPE_UNSUPPORTED for packed and integer types. */
export function decodeF32(dtype: DType, bytes: Uint8Array, out?: Float32Array): Float32Array {
  const n = (bytes.length * 8) / DTYPES[dtype].bits;
  const target = out ?? new Float32Array(n);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (dtype) {
    case 'F32':
      new Uint8Array(target.buffer, target.byteOffset, n * 4).set(bytes);
      return target;
    case 'F64':
      for (let i = 0; i < n; i++) target[i] = view.getFloat64(i * 8, true);
      return target;
    case 'BF16': {
      const words = new Uint32Array(target.buffer, target.byteOffset, n);
      for (let i = 0; i < n; i++) words[i] = (bytes[2 * i]! << 16) | (bytes[2 * i + 1]! << 24);
      return target;
    }
    case 'F16': {
      const table = valueTable(dtype);
      for (let i = 0; i < n; i++) target[i] = table[view.getUint16(2 * i, true)]!;
      return target;
    }
    case 'F8_E4M3':
    case 'F8_E5M2':
    case 'F8_E4M3FNUZ':
    case 'F8_E5M2FNUZ':
    case 'F8_E8M0': {
      const table = valueTable(dtype);
      for (let i = 0; i < n; i++) target[i] = table[bytes[i]!]!;
      return target;
    }
    default:
      throw new PithError('DTYPE_UNSUPPORTED', { file: '', tensor: '', got: dtype, message: 'it has no floating-point value' });
  }
}

/** bf16 pattern nearest to an f32, ties to even; a NaN keeps its sign and stays a NaN. */
export function toBf16(v: number): number {
  const b = bitsOf(v);
  if ((b & 0x7fffffff) > 0x7f800000) return (b >>> 16) | 0x40;
  return ((b + 0x7fff + ((b >>> 16) & 1)) >>> 16) & 0xffff;
}

/** f16 pattern nearest to an f32, ties to even. */
export function toF16(v: number): number {
  const b = bitsOf(v);
  const sign = (b >>> 16) & 0x8000;
  const magnitude = b & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  // 65520 is the first value that rounds to infinity
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  // below 2^-14: subnormal, in units of 2^-24; the f32 addition rounds to nearest even
  if (magnitude < 0x38800000) return sign | (bitsOf(Math.fround(fromBits(magnitude) + 0.5)) - 0x3f000000);
  const rebased = magnitude - 0x38000000;
  return sign | ((rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13);
}

/** f32 values in a 16- or 32-bit storage type. */
export function encodeAs(dtype: 'BF16' | 'F16' | 'F32', values: Float32Array): Uint8Array {
  if (dtype === 'F32') return new Uint8Array(values.slice().buffer);
  const out = new Uint8Array(values.length * 2);
  if (dtype === 'BF16') {
    const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
    const halves = new Uint16Array(out.buffer);
    for (let i = 0; i < words.length; i++) {
      const b = words[i]!;
      halves[i] = (b & 0x7fffffff) > 0x7f800000 ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
    }
    return out;
  }
  for (let i = 0; i < values.length; i++) {
    const w = toF16(values[i]!);
    out[2 * i] = w & 255;
    out[2 * i + 1] = w >>> 8;
  }
  return out;
}
