/** Small pieces of a delta file that are stored deflated, as tensors of their own. */
import { createHash } from 'node:crypto';
import { deflateSync } from 'node:zlib';

export interface Blob {
  readonly bytes: Uint8Array;
  readonly sha256: string;
}

/** Level 9: they are small against the weights. */
export function deflated(piece: Uint8Array): Blob {
  const bytes = deflateSync(piece, { level: 9 });
  return { bytes, sha256: createHash('sha256').update(bytes).digest('hex') };
}
