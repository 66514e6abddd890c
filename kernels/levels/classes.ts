/** Classes of stored floats by their exponent, as contexts for what is coded against them. */
import { DTYPES } from '../../core/dtype.js';
import { CLASSES, type ExponentField } from './coder.js';

export type FloatDType = 'BF16' | 'F16' | 'F32';

export const EXPONENT: Readonly<Record<FloatDType, ExponentField>> = {
  BF16: { shift: 7, mask: 255 },
  F16: { shift: 10, mask: 31 },
  F32: { shift: 7, mask: 255 },
};

/** Stored values that are read by byte range. */
export interface StoredFloats {
  readonly byteLength: number;
  readInto(begin: number, target: Uint8Array): Promise<void>;
}

const SAMPLES = 64;
const SAMPLE_BYTES = 64;

/** The exponent that class 0 ends with, so that the largest of a sample is the last but one class. */
export async function exponentBase(dtype: FloatDType, stored: StoredFloats): Promise<number> {
  const { shift, mask } = EXPONENT[dtype];
  const width = DTYPES[dtype].bits / 8;
  let top = 0;
  for (let s = 0; s < SAMPLES; s++) {
    const at = Math.floor((s * Math.max(0, stored.byteLength - SAMPLE_BYTES)) / SAMPLES / width) * width;
    const bytes = new Uint8Array(Math.min(SAMPLE_BYTES, stored.byteLength - at));
    await stored.readInto(at, bytes);
    for (let i = width - 2; i + 1 < bytes.length; i += width) top = Math.max(top, ((bytes[i]! | (bytes[i + 1]! << 8)) >> shift) & mask);
  }
  return Math.max(0, top - (CLASSES - 2));
}

/** min(15, max(0, exponent - first)) of every stored value; normative. */
export function exponentClasses(dtype: FloatDType, stored: Uint8Array, first: number, classes: Uint8Array): void {
  const { shift, mask } = EXPONENT[dtype];
  const width = DTYPES[dtype].bits / 8;
  for (let i = 0, at = width - 2; i < classes.length; i++, at += width) {
    const e = (((stored[at]! | (stored[at + 1]! << 8)) >> shift) & mask) - first;
    classes[i] = e < 0 ? 0 : e >= CLASSES ? CLASSES - 1 : e;
  }
}
