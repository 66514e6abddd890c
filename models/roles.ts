/** Tensor name -> role, by the naming of the common architectures; an unknown name is judged by its shape alone. */
import { matrixShape } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';

export type Role = 'embedding' | 'head' | 'linear' | 'other';

const EMBEDDING = /(^|\.)(embed_tokens|wte|word_embeddings|tok_embeddings|embed_in|token_embedding|shared|embed_positions|position_embeddings|wpe)\.weight$/;
const HEAD = /(^|\.)(lm_head|embed_out|output|proj_out|cls\.predictions\.decoder)\.weight$/;

/** `linear` is any other matrix with both sides above 1 (convolutions count by their flattened shape). */
export function roleOf(info: TensorInfo): Role {
  if (EMBEDDING.test(info.name)) return 'embedding';
  if (HEAD.test(info.name)) return 'head';
  const [rows, columns] = matrixShape(info.shape);
  return info.shape.length >= 2 && rows > 1 && columns > 1 ? 'linear' : 'other';
}
