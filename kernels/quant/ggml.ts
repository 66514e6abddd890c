/**
 * ggml's blocks -> f32, bit for bit what `gguf` (Python) and ggml's C make of them. Every product and sum below is exact in a double,
 * so that storing it rounds once, as their f32 arithmetic does. A NaN (a scale that is not finite) always gets the same bits.
 */
import { ggmlType, type GgmlTypeName } from '../../core/ggml.js';
import { PithError } from '../../core/errors.js';
import { decodeF32 } from '../../core/float.js';
import { iq4nl, iq4xs, mxfp4, nvfp4, q4_0, q4_1, q5_0, q5_1, q8_0, tq1_0, tq2_0 } from './ggml-blocks.js';
import { q2k, q3k, q4k, q5k, q6k } from './ggml-k-blocks.js';

/** bytes: whole blocks; out: as many values. */
export type BlockDecoder = (bytes: Uint8Array, out: Float32Array) => void;

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const DECODERS: Readonly<Partial<Record<GgmlTypeName, BlockDecoder>>> = {
  F32: (bytes, out) => void decodeF32('F32', bytes, out),
  F16: (bytes, out) => void decodeF32('F16', bytes, out),
  BF16: (bytes, out) => void decodeF32('BF16', bytes, out),
  F64: (bytes, out) => void decodeF32('F64', bytes, out),
  I8: (bytes, out) => fill(out, bytes, 1, (v, at) => v.getInt8(at)),
  I16: (bytes, out) => fill(out, bytes, 2, (v, at) => v.getInt16(at, true)),
  I32: (bytes, out) => fill(out, bytes, 4, (v, at) => v.getInt32(at, true)),
  I64: (bytes, out) => fill(out, bytes, 8, (v, at) => Number(v.getBigInt64(at, true))),
  Q4_0: q4_0,
  Q4_1: q4_1,
  Q5_0: q5_0,
  Q5_1: q5_1,
  Q8_0: q8_0,
  Q2_K: q2k,
  Q3_K: q3k,
  Q4_K: q4k,
  Q5_K: q5k,
  Q6_K: q6k,
  IQ4_NL: iq4nl,
  IQ4_XS: iq4xs,
  TQ1_0: tq1_0,
  TQ2_0: tq2_0,
  MXFP4: mxfp4,
  NVFP4: nvfp4,
};

function fill(out: Float32Array, bytes: Uint8Array, width: number, read: (v: DataView, at: number) => number): void {
  const v = view(bytes);
  for (let i = 0; i * width < bytes.length; i++) out[i] = read(v, i * width);
}

export const canDecode = (type: GgmlTypeName): boolean => DECODERS[type] !== undefined;

/** Decodes whole blocks into `out`, which has room for just their elements. DTYPE_UNSUPPORTED (65) for a type that is not known here. */
export function decodeBlocks(type: GgmlTypeName, bytes: Uint8Array, out: Float32Array): void {
  const decode = DECODERS[type];
  if (decode === undefined) throw new PithError('DTYPE_UNSUPPORTED', { file: '', tensor: '', got: type, message: 'its blocks cannot be decoded' });
  const { blockBytes, blockElements } = ggmlType(type);
  if (bytes.length % blockBytes !== 0 || out.length !== (bytes.length / blockBytes) * blockElements) {
    throw new PithError('INTERNAL', { message: `${bytes.length} bytes of ${type} into ${out.length} values` });
  }
  decode(bytes, out);
}
