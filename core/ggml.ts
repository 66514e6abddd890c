/**
 * ggml's tensor types, for the reader, the decoders and the writer of GGUF files: id, name, elements and bytes of a block
 * (`ggml.h`; `GGML_QUANT_SIZES` of gguf 0.19.0). Ids that are missing were taken back (4, 5: Q4_2, Q4_3; 31-33, 36-38: repacked copies).
 */
import type { DType } from './dtype.js';

export type GgmlTypeName =
  | 'F32'
  | 'F16'
  | 'Q4_0'
  | 'Q4_1'
  | 'Q5_0'
  | 'Q5_1'
  | 'Q8_0'
  | 'Q8_1'
  | 'Q2_K'
  | 'Q3_K'
  | 'Q4_K'
  | 'Q5_K'
  | 'Q6_K'
  | 'Q8_K'
  | 'IQ2_XXS'
  | 'IQ2_XS'
  | 'IQ3_XXS'
  | 'IQ1_S'
  | 'IQ4_NL'
  | 'IQ3_S'
  | 'IQ2_S'
  | 'IQ4_XS'
  | 'I8'
  | 'I16'
  | 'I32'
  | 'I64'
  | 'F64'
  | 'IQ1_M'
  | 'BF16'
  | 'TQ1_0'
  | 'TQ2_0'
  | 'MXFP4'
  | 'NVFP4'
  | 'Q1_0';

export interface GgmlType {
  readonly id: number;
  readonly name: GgmlTypeName;
  /** Elements of a row that are stored together. */
  readonly blockElements: number;
  readonly blockBytes: number;
  /** The storage type that safetensors has too; the others are blocks of codes. */
  readonly dtype?: DType;
}

const block = (id: number, name: GgmlTypeName, blockElements: number, blockBytes: number): GgmlType => ({ id, name, blockElements, blockBytes });
const plain = (id: number, name: GgmlTypeName & DType, blockBytes: number): GgmlType => ({ id, name, blockElements: 1, blockBytes, dtype: name });

const TYPES: readonly GgmlType[] = [
  plain(0, 'F32', 4),
  plain(1, 'F16', 2),
  block(2, 'Q4_0', 32, 18),
  block(3, 'Q4_1', 32, 20),
  block(6, 'Q5_0', 32, 22),
  block(7, 'Q5_1', 32, 24),
  block(8, 'Q8_0', 32, 34),
  block(9, 'Q8_1', 32, 36), // as ggml.h has it; gguf 0.19.0 says 40
  block(10, 'Q2_K', 256, 84),
  block(11, 'Q3_K', 256, 110),
  block(12, 'Q4_K', 256, 144),
  block(13, 'Q5_K', 256, 176),
  block(14, 'Q6_K', 256, 210),
  block(15, 'Q8_K', 256, 292),
  block(16, 'IQ2_XXS', 256, 66),
  block(17, 'IQ2_XS', 256, 74),
  block(18, 'IQ3_XXS', 256, 98),
  block(19, 'IQ1_S', 256, 50),
  block(20, 'IQ4_NL', 32, 18),
  block(21, 'IQ3_S', 256, 110),
  block(22, 'IQ2_S', 256, 82),
  block(23, 'IQ4_XS', 256, 136),
  plain(24, 'I8', 1),
  plain(25, 'I16', 2),
  plain(26, 'I32', 4),
  plain(27, 'I64', 8),
  plain(28, 'F64', 8),
  block(29, 'IQ1_M', 256, 56),
  plain(30, 'BF16', 2),
  block(34, 'TQ1_0', 256, 54),
  block(35, 'TQ2_0', 256, 66),
  block(39, 'MXFP4', 32, 17),
  block(40, 'NVFP4', 64, 36),
  block(41, 'Q1_0', 128, 18),
];

/** By id. */
export const GGML_TYPES: ReadonlyMap<number, GgmlType> = new Map(TYPES.map((t) => [t.id, t]));

const BY_NAME = new Map(TYPES.map((t) => [t.name, t]));

export function ggmlType(name: GgmlTypeName): GgmlType {
  return BY_NAME.get(name)!;
}

/** `general.file_type` (`llama_ftype`): what most of a file's matrices are. */
export const GGUF_FILE_TYPES: ReadonlyMap<number, string> = new Map([
  [0, 'F32'],
  [1, 'F16'],
  [2, 'Q4_0'],
  [3, 'Q4_1'],
  [7, 'Q8_0'],
  [8, 'Q5_0'],
  [9, 'Q5_1'],
  [10, 'Q2_K'],
  [11, 'Q3_K_S'],
  [12, 'Q3_K_M'],
  [13, 'Q3_K_L'],
  [14, 'Q4_K_S'],
  [15, 'Q4_K_M'],
  [16, 'Q5_K_S'],
  [17, 'Q5_K_M'],
  [18, 'Q6_K'],
  [19, 'IQ2_XXS'],
  [20, 'IQ2_XS'],
  [21, 'Q2_K_S'],
  [22, 'IQ3_XS'],
  [23, 'IQ3_XXS'],
  [24, 'IQ1_S'],
  [25, 'IQ4_NL'],
  [26, 'IQ3_S'],
  [27, 'IQ3_M'],
  [28, 'IQ2_S'],
  [29, 'IQ2_M'],
  [30, 'IQ4_XS'],
  [31, 'IQ1_M'],
  [32, 'BF16'],
  [36, 'TQ1_0'],
  [37, 'TQ2_0'],
  [38, 'MXFP4_MOE'],
  [39, 'NVFP4'],
  [40, 'Q1_0'],
]);
