/** An open delta file: structure checked, parts read and hashed on demand. */
import { PithError } from '../../core/errors.js';
import { byteLength, sameShape } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import { SafetensorsFile } from '../safetensors/file.js';
import { headerLength, parseHeader, type Header } from '../safetensors/header.js';
import { ExactLayer } from './exact-layer.js';
import { checkSeal, field, manifestFromMetadata } from './manifest.js';
import {
  DELTA_FORMAT,
  EXACT_KEY,
  EXACT_TENSORS_KEY,
  HEADERS_KEY,
  partKey,
  SIDE_FILES_KEY,
  storedList,
  TENSORS_KEY,
  type DeltaManifest,
  type FileEntry,
  type Quality,
  type SideFileEntry,
  type TensorEntry,
} from './schema.js';
import { unpackFile } from './side-files.js';
import { hashPiece, inflated, storedPiece, type Piece, type Span } from './stored.js';

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
  #exact: ExactLayer | undefined;

  private constructor(
    readonly file: SafetensorsFile,
    readonly manifest: DeltaManifest,
    /** Where the bytes are; `path` is what the user named. */
    readonly location: string,
  ) {
    this.entries = new Map(manifest.tensors.map((t) => [t.name, t]));
  }

  get path(): string {
    return this.file.path;
  }

  /** Any error of a safetensors file, NOT_A_DELTA, DELTA_VERSION or DELTA_MALFORMED (all exit 65), which name it `path`. */
  static open(location: string, path = location): DeltaFile {
    const file = SafetensorsFile.open(location, path);
    try {
      const metadata = Object.fromEntries(file.metadata ?? []);
      if (metadata['pith.format'] === DELTA_FORMAT) checkSeal(file.rawHeader, path);
      const manifest = manifestFromMetadata(metadata, path, (key, sha256, bytes) => inflated(file, key, sha256, bytes));
      const delta = new DeltaFile(file, manifest, location);
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
    const lossy = this.#lossyHashes();
    const exact = this.manifest.exact === undefined ? [] : [EXACT_KEY, EXACT_TENSORS_KEY];
    const named = new Set([...lossy.keys(), ...exact]);
    for (const key of named) if (!this.file.entries.has(key)) this.#bad(`stored tensor "${key}" is missing`);
    for (const key of this.file.entries.keys()) if (!named.has(key)) this.#bad(`stored tensor "${key}" is not in the manifest`);
    // what is cut off must lie behind what stays
    const behind = [...this.file.entries.keys()].slice(lossy.size);
    for (const key of exact) if (!behind.includes(key)) this.#bad(`stored tensor "${key}" does not lie behind the lossy layer`);
  }

  /** Every stored tensor of the lossy layer with its hash. */
  #lossyHashes(): ReadonlyMap<string, string> {
    const { tuned, tensors, version } = this.manifest;
    const out = new Map(tensors.flatMap((t) => Object.entries(t.parts).map(([part, sha256]) => [partKey(t.name, part), sha256])));
    if ((version ?? 0) >= 2) out.set(TENSORS_KEY, field(storedList, Object.fromEntries(this.file.metadata ?? []), 'tensors', this.path).sha256);
    if (tuned.headers !== undefined) out.set(HEADERS_KEY, tuned.headers);
    if (tuned.sideFilesHash !== undefined) out.set(SIDE_FILES_KEY, tuned.sideFilesHash);
    return out;
  }

  /** The quality that is restored: what was asked for, else the best that the file holds. NO_EXACT_LAYER when it does not. */
  quality(wanted?: Quality): Quality {
    const { tuned, exact } = this.manifest;
    const best = exact !== undefined || tuned.contentHash === tuned.restoredContentHash ? 'exact' : 'lossy';
    if (wanted === 'exact' && best === 'lossy') throw new PithError('NO_EXACT_LAYER', { file: this.path });
    return wanted ?? best;
  }

  /** Content hash of what a restore at that quality gives. */
  contentHash(quality: Quality): string {
    const { contentHash, restoredContentHash } = this.manifest.tuned;
    return quality === 'exact' ? contentHash : restoredContentHash;
  }

  /** SHA-256 of a tensor as it is restored at that quality. */
  expected(t: TensorEntry, quality: Quality): string {
    return quality === 'exact' ? t.sha256 : (t.restored ?? t.sha256);
  }

  /** Bytes of the file before the exact layer: what is left of it when that is cut off. */
  get lossyBytes(): number {
    return this.manifest.exact === undefined ? this.file.bytes : this.file.dataStart + this.#exactBegin();
  }

  #exactBegin(): number {
    return Math.min(this.file.entry(EXACT_KEY).begin, this.file.entry(EXACT_TENSORS_KEY).begin);
  }

  /** Where a stored tensor lies in the file. */
  span(key: string): Span {
    const { begin, end } = this.file.entry(key);
    return [this.file.dataStart + begin, this.file.dataStart + end];
  }

  /** Where the data of a tensor lies in the file, as far as that quality needs it. */
  spans(t: TensorEntry, quality: Quality): Span[] {
    const parts = Object.keys(t.parts).map((part) => this.span(partKey(t.name, part)));
    const remainder = quality === 'exact' ? this.exact?.span(t.name) : undefined;
    return remainder === undefined ? parts : [...parts, remainder];
  }

  /** undefined in a file of one layer; DELTA_MALFORMED when it does not fit the lossy one. */
  get exact(): ExactLayer | undefined {
    if (this.manifest.exact === undefined) return undefined;
    this.#exact ??= this.#fitting(ExactLayer.read(this.file, this.manifest.exact));
    return this.#exact;
  }

  /** DELTA_MALFORMED unless it has two layers that fit each other. */
  checkLayers(): void {
    if (this.exact === undefined) this.#bad('it has one layer');
  }

  #fitting(layer: ExactLayer): ExactLayer {
    for (const t of this.entries.values()) {
      if (layer.has(t.name) !== (t.restored !== undefined)) this.#bad(`tensor "${t.name}": the exact layer does not fit the lossy one`);
    }
    for (const name of layer.tensors) if (!this.entries.has(name)) this.#bad(`the exact layer names tensor "${name}", which is not in the file`);
    return layer;
  }

  /** The lossy layer's stored tensors in the order of the file; together they are its data. */
  lossyPieces(): Piece[] {
    const hashes = this.#lossyHashes();
    const keys = [...this.file.entries.keys()].filter((key) => hashes.has(key));
    return keys.map((key) => storedPiece(this.file, key, hashes.get(key)!));
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
    return hashPiece(storedPiece(this.file, key, ''));
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
