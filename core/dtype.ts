/** Every storage type a safetensors header can name, with the facts that readers, writers and kernels need. */

export type DType =
  | 'BOOL'
  | 'F4'
  | 'F6_E2M3'
  | 'F6_E3M2'
  | 'U8'
  | 'I8'
  | 'F8_E5M2'
  | 'F8_E4M3'
  | 'F8_E8M0'
  | 'F8_E4M3FNUZ'
  | 'F8_E5M2FNUZ'
  | 'I16'
  | 'U16'
  | 'F16'
  | 'BF16'
  | 'I32'
  | 'U32'
  | 'F32'
  | 'C64'
  | 'F64'
  | 'I64'
  | 'U64';

export interface DTypeInfo {
  /** Width of one element in bits; below 8 for the packed types. */
  readonly bits: number;
  /** Position in the reference's enum: the writer sorts by it, descending (safetensors 0.8.0, `tensor.rs`). */
  readonly rank: number;
  /** Present for a floating-point type with sign, exponent and mantissa fields. */
  readonly float?: { readonly exponentBits: number; readonly mantissaBits: number };
}

const float = (bits: number, rank: number, exponentBits: number): DTypeInfo => ({
  bits,
  rank,
  float: { exponentBits, mantissaBits: bits - 1 - exponentBits },
});
const plain = (bits: number, rank: number): DTypeInfo => ({ bits, rank });

export const DTYPES: Readonly<Record<DType, DTypeInfo>> = {
  BOOL: plain(8, 0),
  F4: float(4, 1, 2),
  F6_E2M3: float(6, 2, 2),
  F6_E3M2: float(6, 3, 3),
  U8: plain(8, 4),
  I8: plain(8, 5),
  F8_E5M2: float(8, 6, 5),
  F8_E4M3: float(8, 7, 4),
  F8_E8M0: plain(8, 8),
  F8_E4M3FNUZ: float(8, 9, 4),
  F8_E5M2FNUZ: float(8, 10, 5),
  I16: plain(16, 11),
  U16: plain(16, 12),
  F16: float(16, 13, 5),
  BF16: float(16, 14, 8),
  I32: plain(32, 15),
  U32: plain(32, 16),
  F32: float(32, 17, 8),
  C64: plain(64, 18),
  F64: float(64, 19, 11),
  I64: plain(64, 20),
  U64: plain(64, 21),
};

export function isDType(name: string): name is DType {
  return Object.hasOwn(DTYPES, name);
}
