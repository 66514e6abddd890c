/** A delta as a checkpoint, with its base or, when it was made without one, alone: each tensor is decoded whole when it is first read, and proven before a byte of it is given out. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { PithError } from '../core/errors.js';
import { byteLength, rowLength, sameShape } from '../core/shape.js';
import { DTYPES } from '../core/dtype.js';
import type { TensorInfo, TensorView } from '../core/tensor.js';
import type { CheckpointFile, CheckpointReader } from '../formats/checkpoint.js';
import { DeltaFile } from '../formats/delta/file.js';
import type { SideFileEntry, TensorEntry } from '../formats/delta/schema.js';
import { copyFile, hashFile } from '../formats/delta/side-files.js';
import * as io from '../formats/io.js';
import { readerFolder } from '../formats/open-checkpoint.js';
import { checkpointStamp } from '../formats/stamp.js';
import type { TensorSink, TensorSource } from '../methods/kinds.js';
import { Codecs, DECODE_SETTINGS, NO_CONTROL } from './codecs.js';
import { decodeLossy, decodeRemainder, hasRemainder } from './decode-layers.js';
import { decodePieces } from './decode-pieces.js';
import { Scratch } from './scratch.js';
import { HashingSink, HashingSource } from './sources.js';

export class ChainedReader implements CheckpointReader {
  readonly infos = new Map<string, TensorInfo>();
  readonly metadata: Readonly<Record<string, string>>;
  readonly files: readonly CheckpointFile[];
  /** A coder of its own: whoever reads may be in the middle of coding. */
  readonly #codecs = new Codecs();
  #last: { readonly name: string; readonly tensor: Scratch } | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #folder: string | undefined;
  #sides: Promise<string | undefined> | undefined;

  private constructor(
    readonly source: string,
    /** Undefined: the delta stands alone. */
    readonly base: CheckpointReader | undefined,
    readonly delta: DeltaFile,
  ) {
    const metadata = Object.create(null) as Record<string, string>;
    this.files = delta.tunedFiles().map(({ name, bytes, rawHeader, entries, metadata: own }) => {
      for (const [k, v] of own ?? []) metadata[k] ??= v;
      for (const t of entries.keys()) this.infos.set(t, infoOf(delta.entry(t)));
      return { name, path: delta.path, bytes, rawHeader, order: [...entries.keys()] };
    });
    this.metadata = metadata;
    for (const t of delta.manifest.tensors) this.infos.set(t.name, infoOf(t));
  }

  /** NOT_A_DELTA, SHAPE_MISMATCH, TENSOR_MISSING, or WRONG_BASE (65) when the base is a chain that ends elsewhere. Owns `base` from then on. */
  static open(source: string, base: CheckpointReader, path: string): ChainedReader {
    const delta = DeltaFile.open(path);
    try {
      const named = delta.manifest.base;
      if (named === null) throw new PithError('NOT_A_DELTA', { file: path, message: 'it was made without a base and stands alone' });
      const got = base instanceof ChainedReader ? base.contentHash : named.contentHash;
      if (got !== named.contentHash) {
        throw new PithError('WRONG_BASE', { file: path, tensor: 'all of them', expected: named.contentHash, got, base: base.source });
      }
      for (const t of delta.manifest.tensors) checkBaseShape(t, base, path);
      return new ChainedReader(source, base, delta);
    } catch (error) {
      delta.close();
      throw error;
    }
  }

  /** A delta that was made without a base. NOT_A_DELTA for another one. */
  static openAlone(source: string, path: string): ChainedReader {
    const delta = DeltaFile.open(path);
    try {
      if (delta.manifest.base !== null) throw new PithError('NOT_A_DELTA', { file: path, message: `it needs its base ${delta.manifest.base.name}` });
      return new ChainedReader(source, undefined, delta);
    } catch (error) {
      delta.close();
      throw error;
    }
  }

  /** Of what is read here: the best that the delta holds. */
  get contentHash(): string {
    return this.delta.contentHash(this.delta.quality());
  }

  get title(): string {
    return this.delta.manifest.tuned.name;
  }

  stamp(): string {
    const { bytes, mtimeMs } = io.stat(this.delta.path) ?? { bytes: 0, mtimeMs: 0 };
    return `${this.base === undefined ? '' : checkpointStamp(this.base)}+${basename(this.delta.path)}:${bytes}:${mtimeMs}`;
  }

  async read(name: string, rows?: readonly [number, number]): Promise<TensorView> {
    const info = this.infos.get(name) ?? this.#missing(name);
    const total = info.shape[0] ?? 1;
    const [from, to] = rows === undefined ? [0, total] : [Math.min(Math.max(0, rows[0]), total), Math.min(Math.max(0, rows[0], rows[1]), total)];
    const rowBits = rowLength(info.shape) * DTYPES[info.dtype].bits;
    if ((from * rowBits) % 8 !== 0 || (to * rowBits) % 8 !== 0) {
      throw new PithError('DTYPE_UNSUPPORTED', {
        file: this.source,
        tensor: name,
        got: info.dtype,
        message: `rows [${from}, ${to}) do not fall on byte boundaries`,
      });
    }
    const bytes = new Uint8Array(rows === undefined ? byteLength(info.dtype, info.shape) : ((to - from) * rowBits) / 8);
    await this.readInto(name, rows === undefined ? 0 : (from * rowBits) / 8, bytes);
    return { ...info, shape: rows === undefined ? info.shape : [to - from, ...info.shape.slice(1)], bytes };
  }

  async readInto(name: string, begin: number, target: Uint8Array): Promise<void> {
    // one at a time: two readers of this reader share its coder and its last tensor
    const turn = this.#queue.then(async () => (await this.#decoded(name)).readInto(begin, target));
    this.#queue = turn.catch(() => undefined);
    await turn;
  }

  #missing(name: string): never {
    throw new PithError('TENSOR_MISSING', { file: this.source, tensor: name });
  }

  async #decoded(name: string): Promise<Scratch> {
    if (this.#last?.name === name) return this.#last.tensor;
    this.#forget();
    const entry = this.delta.entries.get(name) ?? this.#missing(name);
    const tensor = new Scratch(infoOf(entry));
    try {
      await this.#decode(entry, tensor);
    } catch (error) {
      tensor[Symbol.dispose]();
      throw error;
    }
    this.#last = { name, tensor };
    return tensor;
  }

  async #decode(entry: TensorEntry, tensor: Scratch): Promise<void> {
    const { path } = this.delta;
    const base = entry.base === undefined || this.base === undefined ? undefined : new HashingSource(this.base, entry.name);
    const hashing = new HashingSink();
    const sink = {
      write: async (position: number, bytes: Uint8Array): Promise<void> => {
        await hashing.write(position, bytes);
        await tensor.write(position, bytes);
      },
    };
    let failure: unknown;
    try {
      await this.#layers(entry, base, sink);
    } catch (error) {
      failure = error;
    }
    const baseSha256 = await base?.digest(NO_CONTROL.checkpointCancel);
    if (entry.base !== undefined && baseSha256 !== entry.base.sha256) {
      // another base decodes to nonsense: say what is really wrong
      throw new PithError('WRONG_BASE', {
        file: path,
        tensor: entry.name,
        expected: entry.base.sha256,
        got: baseSha256 ?? 'nothing',
        base: this.base?.source ?? 'none',
      });
    }
    if (failure !== undefined) throw PithError.from(failure);
    const expected = this.delta.expected(entry, this.delta.quality());
    const got = hashing.digest();
    if (got !== expected) throw new PithError('HASH_MISMATCH', { file: path, tensor: entry.name, expected, got });
  }

  async #layers(entry: TensorEntry, base: TensorSource | undefined, sink: TensorSink): Promise<void> {
    const [codecs, settings, control] = [this.#codecs, DECODE_SETTINGS, NO_CONTROL];
    if (!hasRemainder(this.delta, entry, this.delta.quality())) return decodePieces(codecs, settings, control, this.delta, entry, base, sink);
    using lossy = await decodeLossy(codecs, settings, control, this.delta, entry, base);
    await decodeRemainder(codecs, settings, control, this.delta, entry, lossy, sink);
  }

  #forget(): void {
    this.#last?.tensor[Symbol.dispose]();
    this.#last = undefined;
  }

  /** The other files of the tuned checkpoint, unpacked into a temporary folder that goes with this reader. */
  sideFolder(): Promise<string | undefined> {
    return (this.#sides ??= this.#unpackSides());
  }

  /** config.json and the tokenizer may lie beside a file that stands alone. */
  async configFolder(): Promise<string | undefined> {
    return (await this.sideFolder()) ?? (this.base === undefined ? dirname(this.delta.path) : undefined);
  }

  async #unpackSides(): Promise<string | undefined> {
    const { sideFiles } = this.delta.manifest.tuned;
    if (sideFiles.length === 0) return undefined;
    const folder = mkdtempSync(join(tmpdir(), 'pith-side-'));
    this.#folder = folder;
    const open = (f: SideFileEntry): ((position: number, bytes: Uint8Array) => void) & Disposable => {
      const path = join(folder, f.name);
      io.mkdir(dirname(path));
      const fd = io.openWrite(path, 'w+');
      return Object.assign((position: number, bytes: Uint8Array) => io.writeFully(fd, bytes, position, path), { [Symbol.dispose]: () => io.close(fd) });
    };
    const baseFolder = this.base === undefined ? undefined : await readerFolder(this.base);
    for (const f of sideFiles.filter((s) => s.coding === 'base')) {
      const path = baseFolder === undefined ? undefined : join(baseFolder, f.name);
      const found = path !== undefined && io.stat(path)?.isFile === true;
      const got = found ? await hashFile(path, io.stat(path)!.bytes) : 'no such file';
      if (!found || got !== f.sha256) {
        throw new PithError('WRONG_BASE', { file: this.delta.path, tensor: `file ${f.name}`, expected: f.sha256, got, base: this.base?.source ?? 'none' });
      }
      using write = open(f);
      await copyFile(path, f.bytes, write);
    }
    await this.delta.unpackSideFiles(open);
    return folder;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#queue;
    this.#forget();
    if (this.#folder !== undefined) io.remove(this.#folder);
    this.delta.close();
    await this.base?.[Symbol.asyncDispose]();
  }
}

const infoOf = (t: TensorEntry): TensorInfo => ({ name: t.name, dtype: t.dtype, shape: t.shape });

/** TENSOR_MISSING or SHAPE_MISMATCH (65) unless the base has the tensor that `t` was coded against. */
export function checkBaseShape(t: TensorEntry, base: CheckpointReader, file: string): void {
  if (t.base === undefined) return;
  const info = base.infos.get(t.name);
  if (info === undefined) throw new PithError('TENSOR_MISSING', { file: base.source, tensor: t.name });
  const shape = t.base.shape ?? t.shape;
  if (info.dtype !== t.dtype || !sameShape(info.shape, shape)) {
    const got = `${info.dtype} [${info.shape.join(', ')}] in ${base.source}`;
    throw new PithError('SHAPE_MISMATCH', { file, tensor: t.name, expected: `${t.dtype} [${shape.join(', ')}]`, got });
  }
}
