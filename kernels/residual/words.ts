/** How each storage type is cut into the words that the coder works on. */
import { DTYPES, type DType } from '../../core/dtype.js';
import { byteLength } from '../../core/shape.js';

/** 0 unsigned, 1 two's complement, 2 sign-magnitude (IEEE floats). */
export type Sign = 0 | 1 | 2;

export interface WordKind {
  readonly width: 8 | 16 | 32;
  readonly sign: Sign;
  /** Mantissa bits: position of the exponent field. */
  readonly mantissaBits: number;
  /** Mask of the exponent field after the shift; 0 for integers. */
  readonly exponentMask: number;
  /** Added to the exponent field so that 2^(e - 127) is a normal f32 for every type. */
  readonly exponentAdd: number;
}

const integer = (width: 8 | 16 | 32, sign: Sign): WordKind => ({ width, sign, mantissaBits: 0, exponentMask: 0, exponentAdd: 127 });
const U8 = integer(8, 0);
const U32 = integer(32, 0);

function floatKind(dtype: DType): WordKind {
  const { bits, float } = DTYPES[dtype];
  const { exponentBits, mantissaBits } = float!;
  return {
    width: bits as 8 | 16 | 32,
    sign: 2,
    mantissaBits,
    exponentMask: 2 ** exponentBits - 1,
    exponentAdd: exponentBits === 8 ? 0 : 112,
  };
}

/** Packed and 64-bit types are taken as bytes and 32-bit words, a complex number as two floats. */
export function wordKind(dtype: DType): WordKind {
  switch (dtype) {
    case 'BF16':
    case 'F16':
    case 'F32':
    case 'F8_E4M3':
    case 'F8_E5M2':
    case 'F8_E4M3FNUZ':
    case 'F8_E5M2FNUZ':
      return floatKind(dtype);
    case 'C64':
      return floatKind('F32');
    case 'I8':
      return integer(8, 1);
    case 'I16':
      return integer(16, 1);
    case 'U16':
      return integer(16, 0);
    case 'I32':
      return integer(32, 1);
    case 'U32':
    case 'F64':
    case 'I64':
    case 'U64':
      return U32;
    default:
      return U8;
  }
}

/** Words of a whole tensor. */
export function residualElements(dtype: DType, shape: readonly number[]): number {
  return (byteLength(dtype, shape) * 8) / wordKind(dtype).width;
}
