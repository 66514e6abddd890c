/** A checkpoint whose tensors others write at known places: headers first, then data in any order, at last everything on disk. */
import { join } from 'node:path';
import type { TensorInfo } from '../../core/tensor.js';
import * as io from '../io.js';
import { buildHeader, canonicalOrder } from './layout.js';
import { DEFAULT_SHARD_BYTES, indexJson, shardName, splitShards } from './writer.js';

export interface Place {
  readonly file: string;
  /** Of the tensor's first byte in the file. */
  readonly position: number;
}

export interface PreparedFiles {
  readonly places: ReadonlyMap<string, Place>;
  readonly files: readonly string[];
  readonly bytes: number;
  /** fsync of every file; the index of several. */
  finish(): void;
}

const METADATA = { format: 'pt' };

export interface PrepareOptions {
  readonly single: boolean;
  readonly shardBytes?: number;
  readonly metadata?: Readonly<Record<string, string>>;
  /** A file that is there with this header and size is gone on with; another one is replaced. */
  readonly resume?: boolean;
}

/** One file at `path`, or `model.safetensors` or shards in the folder `path`. The files must not exist, unless to resume. */
export function prepareFiles(path: string, infos: readonly TensorInfo[], options: PrepareOptions): PreparedFiles {
  const groups = options.single ? [infos] : splitShards(infos, options.shardBytes ?? DEFAULT_SHARD_BYTES);
  if (!options.single) io.mkdir(path);
  const places = new Map<string, Place>();
  const weightMap = new Map<string, string>();
  const files: string[] = [];
  let bytes = 0;
  groups.forEach((group, i) => {
    const name = groups.length === 1 ? 'model.safetensors' : shardName(i, groups.length);
    const file = options.single ? path : join(path, name);
    const { header, offsets, fileBytes } = buildHeader(canonicalOrder(group), { ...METADATA, ...options.metadata }, file);
    if (options.resume !== true || !isPrepared(file, header, fileBytes)) create(file, header, fileBytes, options.resume === true);
    for (const [tensor, { begin }] of offsets) places.set(tensor, { file, position: header.length + begin });
    for (const t of group) weightMap.set(t.name, name);
    files.push(file);
    bytes += fileBytes;
  });
  return { places, files, bytes, finish: () => finish(path, infos, files, weightMap) };
}

function create(file: string, header: Uint8Array, fileBytes: number, replace: boolean): void {
  const fd = io.openWrite(file, replace ? 'w+' : 'wx');
  try {
    io.truncate(fd, fileBytes, file);
    io.writeFully(fd, header, 0, file);
  } finally {
    io.close(fd);
  }
}

function isPrepared(file: string, header: Uint8Array, fileBytes: number): boolean {
  if (io.stat(file)?.bytes !== fileBytes) return false;
  const there = new Uint8Array(header.length);
  const fd = io.openRead(file);
  try {
    io.readFully(fd, there, 0, file);
  } finally {
    io.close(fd);
  }
  return Buffer.compare(there, header) === 0;
}

function finish(folder: string, infos: readonly TensorInfo[], files: readonly string[], weightMap: ReadonlyMap<string, string>): void {
  for (const file of files) {
    const fd = io.openWrite(file, 'r+');
    try {
      io.fsync(fd, file);
    } finally {
      io.close(fd);
    }
  }
  if (files.length > 1) io.writeFileDurably(join(folder, 'model.safetensors.index.json'), Buffer.from(indexJson(infos, weightMap), 'utf8'));
}
