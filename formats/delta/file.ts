/** An open delta file: structure checked, parts read and hashed on demand. */
import { createHash } from 'node:crypto';
import { inflateSync } from 'node:zlib';
import { PithError } from '../../core/errors.js';
import { byteLength, sameShape } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import { SafetensorsFile } from '../safetensors/file.js';
import { headerLength, parseHeader, type Header } from '../safetensors/header.js';
import { checkSeal, manifestFromMetadata } from './manifest.js';
import { HEADERS_KEY, partKey, SIDE_FILES_KEY, TENSORS_KEY, type DeltaManifest, type FileEntry, type SideFileEntry, type TensorEntry } from './schema.js';
import { unpackFile } from './side-files.js';
import { panelBuffer } from '../../core/panel-buffer.js';

/** One of the tuned checkpoint's tensor files. */
export interface TunedFile extends FileEntry {
  /** Its first bytes: header length and header. */
  readonly rawHeader: Uint8Array;
  readonly entries: Header['entries'];
  readonly metadata: Header['metadata'];
}

export class DeltaFile implements Disposable {
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly #checked = new Set<string>();

  private constructor(
    readonly file: SafetensorsFile,
    readonly manifest: DeltaManifest,
  ) {
    this.entries = new Map(manifest.tensors.map((t) => [t.name, t]));
  }

  get path(): string {
    return this.file.path;
  }

  /** Any error of a safetensors file, NOT_A_DELTA, DELTA_VERSION or DELTA_MALFORMED (all exit 65). */
  static open(path: string): DeltaFile {
    const file = SafetensorsFile.open(path);
    try {
      const metadata = Object.fromEntries(file.metadata ?? []);
      if (metadata['pith.format'] === 'delta') checkSeal(file.rawHeader, path);
      const manifest = manifestFromMetadata(metadata, path, (key, sha256, bytes) => inflated(file, key, sha256, bytes));
      const delta = new DeltaFile(file, manifest);
      delta.#checkParts();
      return delta;
    } catch (error) {
      file.close();
      throw error;
    }
  }

  #bad(message: string): never {
    throw new PithError('DELTA_MALFORMED', { file: this.path, message });
  }

  /** The stored tensors are exactly those that the manifest names. */
  #checkParts(): void {
    const { tuned, tensors } = this.manifest;
    const named = new Set(tensors.flatMap((t) => Object.keys(t.parts).map((part) => partKey(t.name, part))));
    if ((this.manifest.version ?? 0) >= 2) named.add(TENSORS_KEY);
    if (tuned.headers !== undefined) named.add(HEADERS_KEY);
    if (tuned.sideFilesHash !== undefined) named.add(SIDE_FILES_KEY);
    for (const key of named) if (!this.file.entries.has(key)) this.#bad(`stored tensor "${key}" is missing`);
    for (const key of this.file.entries.keys()) if (!named.has(key)) this.#bad(`stored tensor "${key}" is not in the manifest`);
  }

  entry(name: string): TensorEntry {
    return this.entries.get(name) ?? this.#bad(`tensor "${name}" is not in it`);
  }

  partInfo(tensor: string, part: string): TensorInfo {
    const key = partKey(tensor, part);
    const entry = this.file.entries.get(key);
    if (entry === undefined) throw new PithError('DELTA_TENSOR', { file: this.path, tensor, message: `part "${part}" is missing` });
    return entry.info;
  }

  /** Bytes [begin, end) of a part. The whole part is hashed before its first byte is given out: DELTA_TENSOR when it is damaged. */
  readPart(tensor: string, part: string, begin = 0, end?: number): Uint8Array {
    const entry = this.file.entry(partKey(tensor, part));
    const bytes = new Uint8Array((end ?? entry.end - entry.begin) - begin);
    this.readPartInto(tensor, part, begin, bytes);
    return bytes;
  }

  /** The same into a buffer of the caller's. */
  readPartInto(tensor: string, part: string, begin: number, target: Uint8Array): void {
    const key = partKey(tensor, part);
    const expected = this.entry(tensor).parts[part] ?? '';
    if (!this.#checked.has(key)) {
      const got = this.#hash(key);
      if (got !== expected)
        throw new PithError('DELTA_TENSOR', { file: this.path, tensor, message: `part "${part}": expected sha256 ${expected}, got ${got}` });
      this.#checked.add(key);
    }
    this.file.readInto(key, begin, target);
  }

  #hash(key: string): string {
    const { begin, end } = this.file.entry(key);
    const hash = createHash('sha256');
    const buffer = panelBuffer(end - begin);
    for (let at = 0; at < end - begin; at += buffer.length) {
      const piece = buffer.subarray(0, Math.min(buffer.length, end - begin - at));
      this.file.readInto(key, at, piece);
      hash.update(piece);
    }
    return hash.digest('hex');
  }

  /** Raw header (length and JSON) of each tuned file, in the order of the manifest. */
  #rawHeaders(): Uint8Array[] {
    const { files, headers } = this.manifest.tuned;
    if (files.length === 0) return [];
    const total = files.reduce((sum, f) => sum + f.headerBytes, 0);
    const all = inflated(this.file, HEADERS_KEY, headers, total);
    let at = 0;
    return files.map((f) => all.subarray(at, (at += f.headerBytes)));
  }

  /** The tensor files that a restore makes. DELTA_MALFORMED unless their headers hold every tensor of the manifest once, in its type and size. */
  tunedFiles(): TunedFile[] {
    const headers = this.#rawHeaders();
    const seen = new Set<string>();
    const files = this.manifest.tuned.files.map((f, i): TunedFile => {
      const rawHeader = headers[i]!;
      const where = `${this.path}: header of ${f.name}`;
      if (headerLength(rawHeader, f.bytes, where) !== rawHeader.length - 8) this.#bad(`header of ${f.name}: its length is not ${rawHeader.length - 8}`);
      const { entries, metadata } = parseHeader(rawHeader.subarray(8), f.bytes - f.headerBytes, where);
      for (const [name, { info, begin, end }] of entries) {
        const t = this.entry(name);
        const fits = t.dtype === info.dtype && sameShape(t.shape, info.shape) && byteLength(t.dtype, t.shape) === end - begin && !seen.has(name);
        if (!fits) this.#bad(`tensor "${name}" does not fit file ${f.name}`);
        seen.add(name);
      }
      return { ...f, rawHeader, entries, metadata };
    });
    for (const name of files.length === 0 ? [] : this.entries.keys()) if (!seen.has(name)) this.#bad(`tensor "${name}" is in no file`);
    return files;
  }

  /**
   * The side files that travel in the delta, one after another: `open` gives where one goes, undefined to check it only.
   * Every size, hash and stream is checked (DELTA_MALFORMED); memory is bounded whatever the file states.
   */
  async unpackSideFiles(open?: (f: SideFileEntry) => ((position: number, bytes: Uint8Array) => void) & Disposable): Promise<void> {
    const { sideFiles, sideFilesHash } = this.manifest.tuned;
    const own = sideFiles.filter((f) => f.coding === 'deflate');
    if (sideFilesHash === undefined) return own.length === 0 ? undefined : this.#bad('it names side files and stores none');
    const got = this.#hash(SIDE_FILES_KEY);
    if (got !== sideFilesHash) this.#bad(`"${SIDE_FILES_KEY}": expected sha256 ${sideFilesHash}, got ${got}`);
    const { begin, end } = this.file.entry(SIDE_FILES_KEY);
    const stored = own.reduce((sum, f) => sum + (f.stored ?? NaN), 0);
    if (stored !== end - begin) this.#bad('side files do not fill their tensor');
    let at = 0;
    for (const f of own) {
      const start = at;
      using write = open?.(f);
      const read = (position: number, target: Uint8Array): void => this.file.readInto(SIDE_FILES_KEY, start + position, target);
      await unpackFile(f, this.path, read, write ?? (() => undefined));
      at += f.stored ?? 0;
    }
  }

  close(): void {
    this.file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** zlib makes at most so many bytes of one. */
const MOST_INFLATION = 1040;

/** A stored blob, checked against its hash and length: DELTA_MALFORMED. Memory is bounded by the file's own size. */
function inflated(file: SafetensorsFile, key: string, sha256: string | undefined, expected: number): Uint8Array {
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
