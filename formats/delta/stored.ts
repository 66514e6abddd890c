/** Stored tensors of a delta as bytes with hashes: read, proven, inflated. */
import { createHash } from 'node:crypto';
import { inflateSync } from 'node:zlib';
import { PithError } from '../../core/errors.js';
import { panelBuffer } from '../../core/panel-buffer.js';
import type { SafetensorsFile } from '../safetensors/file.js';

/** Bytes [begin, end) of something. */
export type Span = readonly [begin: number, end: number];

/** A run of stored bytes with the hash that covers it. */
export interface Piece {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
  read(position: number, target: Uint8Array): void;
}

/** A span of a stored tensor, the whole of it by default. */
export function storedPiece(file: SafetensorsFile, key: string, sha256: string, span?: Span, name = key): Piece {
  const entry = file.entry(key);
  const [begin, end] = span ?? [0, entry.end - entry.begin];
  return { name, bytes: end - begin, sha256, read: (position, target) => file.readInto(key, begin + position, target) };
}

/** SHA-256 of what is stored. */
export function hashPiece(piece: Piece): string {
  const hash = createHash('sha256');
  const buffer = panelBuffer(piece.bytes);
  for (let at = 0; at < piece.bytes; at += buffer.length) {
    const panel = buffer.subarray(0, Math.min(buffer.length, piece.bytes - at));
    piece.read(at, panel);
    hash.update(panel);
  }
  return hash.digest('hex');
}

/** zlib makes at most so many bytes of one. */
const MOST_INFLATION = 1040;

/** A stored blob, checked against its hash and length: DELTA_MALFORMED. Memory is bounded by the file's own size. */
export function inflated(file: SafetensorsFile, key: string, sha256: string | undefined, expected: number): Uint8Array {
  const bad = (message: string): never => {
    throw new PithError('DELTA_MALFORMED', { file: file.path, message });
  };
  if (!file.entries.has(key)) bad(`stored tensor "${key}" is missing`);
  const { bytes } = file.read(key);
  const got = createHash('sha256').update(bytes).digest('hex');
  if (got !== sha256) bad(`"${key}": expected sha256 ${String(sha256)}, got ${got}`);
  if (expected > bytes.length * MOST_INFLATION) bad(`"${key}": ${bytes.length} bytes cannot hold ${expected}`);
  let out: Uint8Array | undefined;
  try {
    out = inflateSync(bytes, { maxOutputLength: Math.max(1, expected) });
  } catch {
    bad(`"${key}": cannot be inflated to ${expected} bytes`);
  }
  if (out!.length !== expected) bad(`"${key}": expected ${expected} bytes, got ${out!.length}`);
  return out!;
}
