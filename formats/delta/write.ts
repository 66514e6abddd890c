/** Puts a delta file together from spooled parts. */
import { createHash } from 'node:crypto';
import type { DType } from '../../core/dtype.js';
import { PithError } from '../../core/errors.js';
import type { TensorInfo } from '../../core/tensor.js';
import * as io from '../io.js';
import { buildHeader, canonicalOrder } from '../safetensors/layout.js';
import { PlannedFile } from '../safetensors/planned-file.js';
import type { Blob } from './blob.js';
import { manifestToMetadata, seal } from './manifest.js';
import { HEADERS_KEY, partKey, SIDE_FILES_KEY, TENSORS_KEY, type DeltaManifest } from './schema.js';
import { panelBuffer } from '../../core/panel-buffer.js';

export interface StoredPart {
  readonly part: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly sha256: string;
  /** File that holds exactly this part. */
  readonly file: string;
}

export interface DeltaContent {
  readonly manifest: DeltaManifest;
  /** By tensor name. */
  readonly parts: ReadonlyMap<string, readonly StoredPart[]>;
  readonly headers: Blob | undefined;
  /** Made by `packFiles`. */
  readonly sideFiles: { readonly bytes: number; readonly sha256: string; readonly file: string } | undefined;
  /** Bytes that the header leaves free, for a layer that will be put behind this one. */
  readonly room?: number;
}

/** Size of the file that `writeDelta` would make. */
export function deltaBytes(content: DeltaContent): number {
  return planned('', content).fileBytes;
}

function planned(out: string, content: DeltaContent) {
  const infos: TensorInfo[] = [];
  const files = new Map<string, StoredPart>();
  for (const [tensor, parts] of content.parts) {
    for (const p of parts) {
      const name = partKey(tensor, p.part);
      infos.push({ name, dtype: p.dtype, shape: p.shape });
      files.set(name, p);
    }
  }
  const blobs = new Map<string, Blob>();
  if (content.headers !== undefined) blobs.set(HEADERS_KEY, content.headers);
  if (content.sideFiles !== undefined) {
    const part = { part: 'side files', dtype: 'U8', shape: [content.sideFiles.bytes], ...content.sideFiles } as const;
    infos.push({ name: SIDE_FILES_KEY, dtype: part.dtype, shape: part.shape });
    files.set(SIDE_FILES_KEY, part);
  }
  const { metadata, tensors } = manifestToMetadata(content.manifest);
  blobs.set(TENSORS_KEY, tensors);
  for (const [name, b] of blobs) infos.push({ name, dtype: 'U8', shape: [b.bytes.length] });
  const order = canonicalOrder(infos);
  const layout = buildHeader(order, metadata, out);
  const roomy = content.room === undefined ? layout : buildHeader(order, metadata, out, { headerBytes: layout.header.length + content.room });
  return { files, blobs, ...roomy };
}

/** Writes, syncs and renames; returns the file's size. Every part is hashed again while it is copied. */
export function writeDelta(out: string, content: DeltaContent, options: { readonly force: boolean }): number {
  const { files, blobs, header, offsets, fileBytes } = planned(out, content);
  seal(header);
  const file = PlannedFile.create(out, fileBytes, options);
  try {
    file.write(0, header);
    for (const [name, { begin }] of offsets) {
      const blob = blobs.get(name);
      if (blob === undefined) copyPart(file, header.length + begin, files.get(name)!);
      else file.write(header.length + begin, blob.bytes);
    }
  } catch (error) {
    file.abort();
    throw error;
  }
  file.finalize();
  return fileBytes;
}

function copyPart(out: PlannedFile, position: number, part: StoredPart): void {
  const fd = io.openRead(part.file);
  try {
    const hash = createHash('sha256');
    const buffer = panelBuffer(part.bytes);
    for (let at = 0; at < part.bytes; at += buffer.length) {
      const piece = buffer.subarray(0, Math.min(buffer.length, part.bytes - at));
      io.readFully(fd, piece, at, part.file);
      hash.update(piece);
      out.write(position + at, piece);
    }
    const got = hash.digest('hex');
    if (got !== part.sha256) throw new PithError('HASH_MISMATCH', { file: part.file, tensor: part.part, expected: part.sha256, got });
  } finally {
    io.close(fd);
  }
}
