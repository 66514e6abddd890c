/** One object of a store: the coded form of one tensor's content, in a safetensors file named by the content's SHA-256. */
import { createHash } from 'node:crypto';
import { PithError } from '../../core/errors.js';
import { panelBuffer } from '../../core/panel-buffer.js';
import { sameShape } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import { checkSeal, seal } from '../delta/manifest.js';
import * as io from '../io.js';
import { SafetensorsFile } from '../safetensors/file.js';
import { buildHeader, canonicalOrder } from '../safetensors/layout.js';
import type { StoreFolder } from './folder.js';
import { contentPrefix, objectHead, STORE_VERSION, type ObjectHead } from './schema.js';

/** Sampled words, for finding a base without decoding. */
export const SKETCH = 'sketch';

/** OBJECT_DAMAGED for whatever is wrong with the file's content, the cause kept. */
export function damaged(file: string, error: unknown): PithError {
  if (!(error instanceof PithError)) return PithError.from(error, file);
  if (error.code === 'NOT_FOUND') return new PithError('OBJECT_MISSING', { file }, { cause: error });
  if (error.code === 'OBJECT_DAMAGED' || error.code === 'OBJECT_MISSING' || error.code === 'STORE_VERSION') return error;
  if (error.exitCode !== 65 && error.code !== 'SHORT_READ') return error;
  return new PithError('OBJECT_DAMAGED', { file, message: error.message.replace(`${file}: `, '') }, { cause: error });
}

export class ObjectFile implements Disposable {
  readonly #checked = new Set<string>();

  private constructor(
    private readonly file: SafetensorsFile,
    readonly head: ObjectHead,
  ) {}

  get path(): string {
    return this.file.path;
  }

  get bytes(): number {
    return this.file.bytes;
  }

  /** OBJECT_MISSING, OBJECT_DAMAGED or STORE_VERSION (all exit 65). Reads the header alone. */
  static open(path: string): ObjectFile {
    let file: SafetensorsFile | undefined;
    try {
      file = SafetensorsFile.open(path);
      const metadata = Object.fromEntries(file.metadata ?? []);
      if (metadata['pith.format'] !== 'object') throw new PithError('OBJECT_DAMAGED', { file: path, message: 'it is no object of a store' });
      checkSeal(file.rawHeader, path);
      const version = Number(metadata['pith.version']);
      if (version > STORE_VERSION) throw new PithError('STORE_VERSION', { file: path, expected: STORE_VERSION, got: version });
      return new ObjectFile(file, readHead(metadata, file));
    } catch (error) {
      file?.close();
      throw damaged(path, error);
    }
  }

  partInfo(part: string): TensorInfo {
    const entry = this.file.entries.get(part);
    if (entry === undefined) throw new PithError('OBJECT_DAMAGED', { file: this.path, message: `part "${part}" is missing` });
    return entry.info;
  }

  /** Bytes [begin, begin + target.length) of a part, the whole part hashed before the first is given out. */
  readInto(part: string, begin: number, target: Uint8Array): void {
    try {
      if (!this.#checked.has(part)) this.#check(part);
      this.file.readInto(part, begin, target);
    } catch (error) {
      throw damaged(this.path, error);
    }
  }

  #check(part: string): void {
    const { begin, end } = this.file.entry(part);
    const hash = createHash('sha256');
    const buffer = panelBuffer(end - begin);
    for (let at = 0; at < end - begin; at += buffer.length) {
      const piece = buffer.subarray(0, Math.min(buffer.length, end - begin - at));
      this.file.readInto(part, at, piece);
      hash.update(piece);
    }
    const got = hash.digest('hex');
    const expected = this.head.parts[part] ?? 'none';
    if (got !== expected) throw new PithError('OBJECT_DAMAGED', { file: this.path, message: `part "${part}": expected sha256 ${expected}, got ${got}` });
    this.#checked.add(part);
  }

  read(part: string, begin = 0, end?: number): Uint8Array {
    const out = new Uint8Array((end ?? this.partInfo(part).shape[0] ?? 0) - begin);
    this.readInto(part, begin, out);
    return out;
  }

  /** Hashes every part: whether the file is as it was written, without decoding it. */
  checkAll(): void {
    for (const part of Object.keys(this.head.parts)) this.readInto(part, 0, new Uint8Array(0));
  }

  [Symbol.dispose](): void {
    this.file.close();
  }
}

function readHead(metadata: Readonly<Record<string, string>>, file: SafetensorsFile): ObjectHead {
  const bad = (message: string): never => {
    throw new PithError('OBJECT_DAMAGED', { file: file.path, message });
  };
  let value: unknown;
  try {
    value = JSON.parse(metadata['object'] ?? '');
  } catch {
    return bad('metadata "object" is not JSON');
  }
  const parsed = objectHead.safeParse(value);
  if (!parsed.success) return bad(`metadata "object" at ${parsed.error.issues[0]?.path.join('.') ?? '?'}: ${parsed.error.issues[0]?.message ?? '?'}`);
  const head = parsed.data;
  const named = Object.keys(head.parts);
  if (named.length !== file.entries.size || named.some((p) => !file.entries.has(p))) return bad('its parts are not those that it names');
  for (const [name, { info }] of file.entries) if (info.dtype !== 'U8' || info.shape.length !== 1) return bad(`part "${name}" is no list of bytes`);
  if (head.base?.rows !== undefined && !(head.base.rows <= (head.shape[0] ?? -1))) return bad('its common rows do not fit its shape');
  if ((head.base === null) !== (head.depth === 0)) return bad('its depth does not fit its base');
  return head;
}

/** STORE_MALFORMED when a model has an object for something else than it holds. `expected`: as contentPrefix gives it. */
export function requireContent(store: StoreFolder, hash: string, content: Pick<TensorInfo, 'dtype' | 'shape'>, expected: string): void {
  const got = contentPrefix(content);
  if (got === expected) return;
  const text = (prefix: string): string => prefix.trim().replace('\t', ' ');
  throw new PithError('STORE_MALFORMED', { file: store.object(hash), message: `a model has it for ${text(expected)}, it holds ${text(got)}` });
}

/** A base of a fitting type and shape, as the coder needs it. */
export function checkBase(path: string, head: ObjectHead, base: ObjectHead): void {
  const rows = head.base?.rows;
  const tail = (shape: readonly number[]): readonly number[] => (rows === undefined ? shape : shape.slice(1));
  const fits = head.dtype === base.dtype && sameShape(tail(head.shape), tail(base.shape)) && (rows === undefined || rows <= (base.shape[0] ?? -1));
  if (!fits) throw new PithError('OBJECT_DAMAGED', { file: path, message: 'its base has another type or shape' });
}

export interface ObjectPart {
  readonly part: string;
  readonly bytes: number;
  readonly sha256: string;
  /** Where the bytes are: a spooled file, or here. */
  readonly from: string | Uint8Array;
}

/** Writes and syncs an object's file at `temp`; returns its size. Every part is hashed again while it is copied. */
export function writeObject(temp: string, head: Omit<ObjectHead, 'parts'>, parts: readonly ObjectPart[]): number {
  const full: ObjectHead = { ...head, parts: Object.fromEntries(parts.map((p) => [p.part, p.sha256])) };
  const infos = canonicalOrder(parts.map((p): TensorInfo => ({ name: p.part, dtype: 'U8', shape: [p.bytes] })));
  const metadata = { 'pith.format': 'object', 'pith.version': String(STORE_VERSION), 'pith.seal': '0'.repeat(64), object: JSON.stringify(full) };
  const { header, offsets, fileBytes } = buildHeader(infos, metadata, temp);
  seal(header);
  const fd = io.openWrite(temp, 'w+');
  try {
    io.writeFully(fd, header, 0, temp);
    for (const p of parts) copyPart(fd, header.length + offsets.get(p.part)!.begin, p, temp);
    io.fsync(fd, temp);
  } finally {
    io.close(fd);
  }
  return fileBytes;
}

function copyPart(to: number, position: number, part: ObjectPart, temp: string): void {
  if (typeof part.from !== 'string') {
    io.writeFully(to, part.from, position, temp);
    return;
  }
  const fd = io.openRead(part.from);
  try {
    const hash = createHash('sha256');
    const buffer = panelBuffer(part.bytes);
    for (let at = 0; at < part.bytes; at += buffer.length) {
      const piece = buffer.subarray(0, Math.min(buffer.length, part.bytes - at));
      io.readFully(fd, piece, at, part.from);
      hash.update(piece);
      io.writeFully(to, piece, position + at, temp);
    }
    const got = hash.digest('hex');
    if (got !== part.sha256) throw new PithError('HASH_MISMATCH', { file: part.from, tensor: part.part, expected: part.sha256, got });
  } finally {
    io.close(fd);
  }
}
