/** A checkpoint whose tensors others write at known places: headers first, then data in any order, at last everything on disk. */
import { join } from 'node:path';
import { PithError } from '../../core/errors.js';
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
  /** Other values in the metadata, as long as those that it was prepared with: what is known only when all is written. */
  restate(metadata: Readonly<Record<string, string>>): void;
  /** fsync of every file; the index of several. */
  finish(): void;
}

const METADATA = { format: 'pt' };

export interface PrepareOptions {
  readonly single: boolean;
  readonly shardBytes?: number;
  /** In a folder: the files and what is in each, instead of shards by size. */
  readonly files?: readonly { readonly name: string; readonly tensors: readonly string[] }[];
  readonly metadata?: Readonly<Record<string, string>>;
  /** A file that is there with this header and size is gone on with; another one is replaced. */
  readonly resume?: boolean;
}

/** One file at `path`, or `model.safetensors` or shards in the folder `path`. The files must not exist, unless to resume. */
export function prepareFiles(path: string, infos: readonly TensorInfo[], options: PrepareOptions): PreparedFiles {
  const groups = groupsOf(infos, options);
  if (!options.single) io.mkdir(path);
  const places = new Map<string, Place>();
  const weightMap = new Map<string, string>();
  const files: string[] = [];
  let bytes = 0;
  const parts = groups.map(({ name, group }) => {
    const file = options.single ? path : join(path, name);
    const { header, offsets, fileBytes } = buildHeader(canonicalOrder(group), { ...METADATA, ...options.metadata }, file);
    if (options.resume !== true || !isPrepared(file, header, fileBytes)) create(file, header, fileBytes, options.resume === true);
    for (const [tensor, { begin }] of offsets) places.set(tensor, { file, position: header.length + begin });
    for (const t of group) weightMap.set(t.name, name);
    files.push(file);
    bytes += fileBytes;
    return { file, group, header };
  });
  const restate = (metadata: Readonly<Record<string, string>>): void => {
    for (const p of parts) overwriteHeader({ ...p, metadata });
  };
  return { places, files, bytes, restate, finish: () => finish(path, infos, files, weightMap) };
}

interface Group {
  readonly name: string;
  readonly group: readonly TensorInfo[];
}

function groupsOf(infos: readonly TensorInfo[], { single, shardBytes, files }: PrepareOptions): Group[] {
  if (single) return [{ name: '', group: infos }];
  if (files !== undefined) {
    const all = new Map(infos.map((t) => [t.name, t]));
    return files.map(({ name, tensors }) => ({ name, group: tensors.map((t) => all.get(t)!) }));
  }
  const shards = splitShards(infos, shardBytes ?? DEFAULT_SHARD_BYTES);
  return shards.map((group, i) => ({ name: shards.length === 1 ? 'model.safetensors' : shardName(i, shards.length), group }));
}

interface Restated {
  readonly file: string;
  readonly group: readonly TensorInfo[];
  /** The one that is there. */
  readonly header: Uint8Array;
  readonly metadata: Readonly<Record<string, string>>;
}

function overwriteHeader({ file, group, header, metadata }: Restated): void {
  const next = buildHeader(canonicalOrder(group), { ...METADATA, ...metadata }, file).header;
  if (next.length !== header.length) throw new PithError('INTERNAL', { message: `${file}: metadata of another length` });
  const fd = io.openWrite(file, 'r+');
  try {
    io.writeFully(fd, next, 0, file);
  } finally {
    io.close(fd);
  }
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
