/** The one file that the tensors of a checkpoint would make, for those that lie in no safetensors file as they are read. */
import type { TensorInfo } from '../../core/tensor.js';
import type { CheckpointFile } from '../checkpoint.js';
import { buildHeader, canonicalOrder } from './layout.js';

/** `path`: the file that stands for it; `source`: what errors name. */
export function asOneFile(infos: Iterable<TensorInfo>, path: string, source: string): CheckpointFile {
  const order = canonicalOrder(infos);
  const { header, fileBytes } = buildHeader(order, { format: 'pt' }, source);
  return { name: 'model.safetensors', path, bytes: fileBytes, rawHeader: header, order: order.map((t) => t.name) };
}
