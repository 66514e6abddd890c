/** A file, a folder (one file, shards with or without an index) or a Hub cache snapshot -> reader. */
import { realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { PithError } from '../core/errors.js';
import type { TensorInfo, TensorView } from '../core/tensor.js';
import type { CheckpointFile, CheckpointReader } from './checkpoint.js';
import * as io from './io.js';
import { readJson } from './json.js';
import { SafetensorsFile } from './safetensors/file.js';
import { compareUtf8 } from './safetensors/layout.js';

class FilesReader implements CheckpointReader {
  readonly infos = new Map<string, TensorInfo>();
  readonly metadata: Readonly<Record<string, string>>;
  readonly files: readonly CheckpointFile[];
  readonly #fileOf = new Map<string, SafetensorsFile>();

  constructor(
    readonly source: string,
    private readonly opened: readonly SafetensorsFile[],
    readonly warnings: readonly string[],
  ) {
    const metadata: Record<string, string> = Object.create(null) as Record<string, string>;
    for (const f of opened) {
      for (const [name, entry] of f.entries) {
        const other = this.#fileOf.get(name);
        if (other !== undefined) throw new PithError('DUPLICATE_TENSOR', { file: source, tensor: name, expected: other.path, got: f.path });
        this.#fileOf.set(name, f);
        this.infos.set(name, entry.info);
      }
      for (const [k, v] of f.metadata ?? []) metadata[k] ??= v;
    }
    this.metadata = metadata;
    this.files = opened.map((f) => ({ name: basename(f.path), path: f.path, bytes: f.bytes, rawHeader: f.rawHeader, order: [...f.entries.keys()] }));
  }

  #file(name: string): SafetensorsFile {
    const file = this.#fileOf.get(name);
    if (file === undefined) throw new PithError('TENSOR_MISSING', { file: this.source, tensor: name });
    return file;
  }

  async read(name: string, rows?: readonly [number, number]): Promise<TensorView> {
    return this.#file(name).read(name, rows);
  }

  async readInto(name: string, begin: number, target: Uint8Array): Promise<void> {
    this.#file(name).readInto(name, begin, target);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const f of this.opened) f.close();
  }
}

function openFiles(source: string, paths: readonly string[], warnings: string[], check?: (files: readonly SafetensorsFile[]) => void): CheckpointReader {
  const opened: SafetensorsFile[] = [];
  try {
    for (const p of paths) opened.push(SafetensorsFile.open(p));
    check?.(opened);
    return new FilesReader(source, opened, [...warnings, ...opened.flatMap((f) => f.warnings)]);
  } catch (error) {
    for (const f of opened) f.close();
    throw error;
  }
}

/** NOT_FOUND (66) when there is nothing; NOT_A_CHECKPOINT (65) when it is something else. */
export async function openCheckpoint(path: string): Promise<CheckpointReader> {
  const s = io.stat(path);
  if (s === undefined) throw new PithError('NOT_FOUND', { file: path });
  if (s.isFile) return openFiles(path, [path], []);
  return openFolder(path, hubSnapshot(path) ?? path);
}

/** `models--org--name` of the Hub's cache: the snapshot that refs/main names, or the only one there is. */
function hubSnapshot(folder: string): string | undefined {
  const snapshots = join(folder, 'snapshots');
  if (io.stat(snapshots)?.isDirectory !== true) return undefined;
  const ref = join(folder, 'refs', 'main');
  if (io.stat(ref)?.isFile === true) {
    const revision = Buffer.from(io.readFile(ref)).toString('utf8').trim();
    if (!/^[0-9A-Za-z._-]+$/.test(revision) || revision === '..' || revision === '.') {
      throw new PithError('NOT_A_CHECKPOINT', { file: ref, message: 'refs/main names no revision' });
    }
    return join(snapshots, revision);
  }
  const all = io.readdir(snapshots).filter((e) => e.isDirectory());
  if (all.length === 1) return join(snapshots, all[0]!.name);
  throw new PithError('NOT_A_CHECKPOINT', { file: folder, message: `expected refs/main or one snapshot, got ${all.length} snapshots` });
}

function openFolder(source: string, folder: string): CheckpointReader {
  const names = io
    .readdir(folder)
    .map((e) => e.name)
    .sort(compareUtf8);
  const indexes = names.filter((n) => n.endsWith('.safetensors.index.json'));
  const files = names.filter((n) => n.endsWith('.safetensors') && io.stat(join(folder, n))?.isFile === true);
  if (indexes.length > 1) throw new PithError('NOT_A_CHECKPOINT', { file: source, message: `several indexes: ${indexes.join(', ')}` });
  if (indexes.length === 1) return openIndexed(source, folder, indexes[0]!);
  const single = ['model.safetensors', 'adapter_model.safetensors'].find((n) => files.includes(n));
  if (single !== undefined) return openFiles(source, [join(folder, single)], []);
  if (files.length === 0) throw new PithError('NOT_A_CHECKPOINT', { file: source, message: 'no .safetensors file in it' });
  return openFiles(
    source,
    files.map((n) => join(folder, n)),
    [],
  );
}

function openIndexed(source: string, folder: string, indexName: string): CheckpointReader {
  const file = join(folder, indexName);
  const { weightMap, totalSize } = parseIndex(file);
  const shards = [...new Set(weightMap.values())].sort(compareUtf8);
  for (const shard of shards) {
    if (io.stat(join(folder, shard)) === undefined) throw new PithError('SHARD_MISSING', { file, shard });
  }
  const warnings: string[] = [];
  return openFiles(
    source,
    shards.map((n) => join(folder, n)),
    warnings,
    (opened) => {
      const byName = new Map(opened.map((f) => [basename(f.path), f]));
      for (const [tensor, shard] of weightMap) {
        if (byName.get(shard)?.entries.has(tensor) !== true) throw new PithError('INDEX_MISSING_TENSOR', { file, tensor, shard });
      }
      const bytes = opened.reduce((sum, f) => sum + f.bytes - f.dataStart, 0);
      if (totalSize !== undefined && totalSize !== bytes) warnings.push(`${file}: total_size says ${totalSize}, the shards hold ${bytes}`);
    },
  );
}

function parseIndex(file: string): { weightMap: Map<string, string>; totalSize: number | undefined } {
  const value = readJson(file, (message) => new PithError('INDEX_MALFORMED', { file, message }));
  const map = isRecord(value) ? value['weight_map'] : undefined;
  if (!isRecord(value) || !isRecord(map)) throw new PithError('INDEX_MALFORMED', { file, message: 'expected an object "weight_map"' });
  const weightMap = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== 'string') throw new PithError('INDEX_MALFORMED', { file, message: `weight_map "${tensor}": expected a file name` });
    // one path component, so that nothing outside the folder is ever opened
    // eslint-disable-next-line no-control-regex
    if (/[/\\\u0000]|^[A-Za-z]:/.test(shard) || shard === '.' || shard === '..' || !shard.endsWith('.safetensors')) {
      throw new PithError('INDEX_ESCAPES', { file, tensor, got: shard });
    }
    weightMap.set(tensor, shard);
  }
  const metadata = value['metadata'];
  const total = isRecord(metadata) ? metadata['total_size'] : undefined;
  return { weightMap, totalSize: typeof total === 'number' ? total : undefined };
}

const isRecord = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null && !Array.isArray(v);

export interface SideFile {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
}

/** The folder that a checkpoint's files lie in, or undefined for a single file that was named itself. */
export function checkpointFolder(path: string): string | undefined {
  if (io.stat(path)?.isDirectory !== true) return undefined;
  return hubSnapshot(path) ?? path;
}

/** The folder that holds a checkpoint's other files; a composed one unpacks them first. */
export async function readerFolder(reader: CheckpointReader): Promise<string | undefined> {
  return reader.sideFolder === undefined ? checkpointFolder(reader.source) : reader.sideFolder();
}

/** Where config.json and the tokenizer of a checkpoint lie; of a single file, the folder that it is in. */
export async function readerConfigFolder(reader: CheckpointReader): Promise<string | undefined> {
  const folder = reader.configFolder === undefined ? await readerFolder(reader) : await reader.configFolder();
  return folder ?? (io.stat(reader.source)?.isFile === true ? dirname(reader.source) : undefined);
}

/** The other files of a checkpoint, wherever they lie. */
export async function readerSideFiles(reader: CheckpointReader): Promise<SideFile[]> {
  const folder = await readerFolder(reader);
  return folder === undefined ? [] : listSideFiles(folder, reader.sideFolder === undefined ? reader.files : []);
}

/** Regular files of the folder that are not its tensors, `/`-separated and sorted; caches, partial results and folder links are left out. */
export function listSideFiles(folder: string, files: readonly CheckpointFile[]): SideFile[] {
  const own = new Set(files.map((f) => realpathSync(f.path)));
  const out: SideFile[] = [];
  const walk = (dir: string, prefix: string): void => {
    for (const e of io.readdir(dir)) {
      const path = join(dir, e.name);
      if (/^(\.git|\.cache)$|\.pith-partial$|\.pith-tmp-/.test(e.name)) continue;
      if (e.isDirectory()) walk(path, `${prefix}${e.name}/`);
      else {
        const s = io.stat(path);
        if (s?.isFile === true && !own.has(realpathSync(path))) out.push({ name: prefix + e.name, path, bytes: s.bytes });
      }
    }
  };
  walk(folder, '');
  return out.sort((a, b) => compareUtf8(a.name, b.name));
}
