/** Content hash of a checkpoint: independent of shards, headers and order in the files. */
import { createHash } from 'node:crypto';
import type { TensorInfo } from '../core/tensor.js';
import { compareUtf8 } from './safetensors/layout.js';

/** SHA-256 over the lines `name\tdtype\tshape\tsha256\n`, shape as JSON, sorted by the UTF-8 bytes of the name. */
export function contentHash(tensors: Iterable<TensorInfo & { readonly sha256: string }>): string {
  const hash = createHash('sha256');
  for (const t of [...tensors].sort((a, b) => compareUtf8(a.name, b.name))) {
    hash.update(`${t.name}\t${t.dtype}\t${JSON.stringify(t.shape)}\t${t.sha256}\n`);
  }
  return hash.digest('hex');
}
