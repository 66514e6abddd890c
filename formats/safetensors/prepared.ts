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

/** One file at `path`, or `model.safetensors` or shards in the folder `path`. The files must not exist. */
export function prepareFiles(path: string, infos: readonly TensorInfo[], options: { readonly single: boolean; readonly shardBytes?: number }): PreparedFiles {
  const groups = options.single ? [infos] : splitShards(infos, options.shardBytes ?? DEFAULT_SHARD_BYTES);
  if (!options.single) io.mkdir(path);
  const places = new Map<string, Place>();
  const weightMap = new Map<string, string>();
  const files: string[] = [];
  let bytes = 0;
  groups.forEach((group, i) => {
    const name = groups.length === 1 ? 'model.safetensors' : shardName(i, groups.length);
    const file = options.single ? path : join(path, name);
    const { header, offsets, fileBytes } = buildHeader(canonicalOrder(group), METADATA, file);
    const fd = io.openWrite(file, 'wx');
    try {
      io.truncate(fd, fileBytes, file);
      io.writeFully(fd, header, 0, file);
    } finally {
      io.close(fd);
    }
    for (const [tensor, { begin }] of offsets) places.set(tensor, { file, position: header.length + begin });
    for (const t of group) weightMap.set(t.name, name);
    files.push(file);
    bytes += fileBytes;
  });
  return { places, files, bytes, finish: () => finish(path, infos, files, weightMap) };
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
