/**
 * GGUF header -> metadata and tensor table, by the rules of llama.cpp's C reader (`ggml/src/gguf.cpp`): what it refuses is refused here,
 * one error code per kind of fault. Strings and arrays are left in the file until somebody asks for them.
 *
 * Own code, not @huggingface/gguf 0.4.6: its parser reads big-endian files and version 1, lets a second key of the same name replace the
 * first, allows arrays in arrays, checks neither offsets, names, types nor blocks, decodes wrong UTF-8 without a word, holds the whole
 * header (at most 50 MB) and throws a plain Error without file or key for all that it does refuse. The rules cannot be checked on its result.
 */
import { GGML_TYPES, type GgmlType } from '../../core/ggml.js';
import { PithError } from '../../core/errors.js';
import { Cursor } from './cursor.js';

/** Names of the value types, by id. */
export const VALUE_TYPES = ['u8', 'i8', 'u16', 'i16', 'u32', 'i32', 'f32', 'bool', 'string', 'array', 'u64', 'i64', 'f64'] as const;
export type ValueType = (typeof VALUE_TYPES)[number];
export type ScalarType = Exclude<ValueType, 'string' | 'array'>;

export const SCALAR_BYTES: Readonly<Record<ScalarType, number>> = { u8: 1, i8: 1, u16: 2, i16: 2, u32: 4, i32: 4, f32: 4, bool: 1, u64: 8, i64: 8, f64: 8 };

export type GgufValue =
  | { readonly type: ScalarType; readonly value: number | bigint | boolean }
  /** `bytes` of UTF-8 at `position` in the file. */
  | { readonly type: 'string'; readonly position: number; readonly bytes: number }
  /** Elements from `position` in the file, `bytes` in all; strings with their lengths. */
  | { readonly type: 'array'; readonly of: Exclude<ValueType, 'array'>; readonly count: number; readonly position: number; readonly bytes: number };

export interface GgufEntry {
  readonly name: string;
  readonly type: GgmlType;
  /** As torch counts them, outermost first: the file's dims reversed. */
  readonly shape: readonly number[];
  /** Of the tensor's data in the file. */
  readonly position: number;
  readonly bytes: number;
}

export interface GgufHeader {
  readonly version: number;
  readonly alignment: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufEntry>;
  readonly warnings: readonly string[];
}

/** GGUF_MAX_STRING_LENGTH and GGUF_MAX_ARRAY_ELEMENTS. */
const MAX_LENGTH = 2 ** 30;
/** The specification's limit for a key. */
const MAX_KEY_BYTES = 65_535;
/** GGML_MAX_NAME less its terminator. */
const MAX_NAME_BYTES = 63;
const MAX_DIMS = 4;
const DEFAULT_ALIGNMENT = 32;
/** The least that a key and its value, or a tensor's line in the table, take. */
const MIN_KEY_BYTES = 8 + 1 + 4 + 1;
const MIN_TENSOR_BYTES = 8 + 4 + 4 + 8;

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** `file`: for the errors. Reads the header and nothing else. */
export function parseGguf(fd: number, fileBytes: number, file: string): GgufHeader {
  const at = new Cursor(fd, file, fileBytes);
  const magic = Buffer.from(at.bytes(Math.min(4, fileBytes), 'the magic number')).toString('latin1');
  if (magic !== 'GGUF') throw new PithError('GGUF_MAGIC', { file, got: magic });
  const version = at.u32('the version');
  if (version !== 0 && (version & 0xffff) === 0) throw new PithError('GGUF_ENDIAN', { file, got: version });
  if (version !== 2 && version !== 3) throw new PithError('GGUF_VERSION', { file, got: version });
  const tensorCount = at.i64('the number of tensors');
  const keyCount = at.i64('the number of metadata keys');
  checkCount(tensorCount, Math.floor(at.remaining / MIN_TENSOR_BYTES), 'number of tensors', file);
  checkCount(keyCount, Math.floor(at.remaining / MIN_KEY_BYTES), 'number of metadata keys', file);
  const metadata = readMetadata(at, Number(keyCount), file);
  const alignment = readAlignment(metadata.get('general.alignment'), file);
  const table = readTable(at, Number(tensorCount), file);
  const dataStart = tensorCount === 0n ? at.position : padded(at.position, alignment);
  at.require(dataStart - at.position, 'the padding before the data');
  return { version, alignment, metadata, ...placeTensors(table, dataStart, alignment, fileBytes, file) };
}

function checkCount(got: bigint, most: number, what: string, file: string): void {
  if (got < 0n || got > BigInt(most)) throw new PithError('GGUF_COUNT', { file, what, expected: most, got });
}

function text(bytes: Uint8Array, what: string, position: number, file: string): string {
  try {
    return strict.decode(bytes);
  } catch {
    throw new PithError('GGUF_UTF8', { file, what, position });
  }
}

function readMetadata(at: Cursor, count: number, file: string): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>();
  for (let index = 0; index < count; index++) {
    const bytes = at.length(MAX_KEY_BYTES, 'a metadata key');
    if (bytes === 0) throw new PithError('GGUF_KEY_EMPTY', { file, index });
    const position = at.position;
    const key = text(at.bytes(bytes, 'a metadata key'), 'a metadata key', position, file);
    if (metadata.has(key)) throw new PithError('GGUF_KEY_DUPLICATE', { file, key });
    metadata.set(key, readValue(at, key, file));
  }
  return metadata;
}

function valueType(at: Cursor, key: string, file: string): ValueType {
  const id = at.u32(`the value type of "${key}"`);
  const type = VALUE_TYPES[id];
  if (type === undefined) throw new PithError('GGUF_VALUE_TYPE', { file, key, got: id });
  return type;
}

function readValue(at: Cursor, key: string, file: string): GgufValue {
  const what = `the value of "${key}"`;
  const type = valueType(at, key, file);
  if (type === 'string') {
    const bytes = at.length(MAX_LENGTH, what);
    const { position } = at;
    at.skip(bytes, what);
    return { type, position, bytes };
  }
  if (type !== 'array') return { type, value: type === 'bool' ? at.u8(what) !== 0 : at[type](what) };
  const of = valueType(at, key, file);
  if (of === 'array') throw new PithError('GGUF_NESTED', { file, key });
  const count = at.length(MAX_LENGTH, what);
  const { position } = at;
  if (of !== 'string') at.skip(count * SCALAR_BYTES[of], what);
  else {
    at.require(count * 8, what);
    for (let i = 0; i < count; i++) at.skip(at.length(MAX_LENGTH, what), what);
  }
  return { type, of, count, position, bytes: at.position - position };
}

function readAlignment(v: GgufValue | undefined, file: string): number {
  if (v === undefined) return DEFAULT_ALIGNMENT;
  const bad = (got: string): PithError => new PithError('GGUF_ALIGNMENT', { file, expected: 'a u32 that is a power of two', got });
  if (v.type !== 'u32') throw bad(v.type);
  const value = Number(v.value);
  if (value === 0 || !Number.isInteger(Math.log2(value))) throw bad(String(value));
  return value;
}

const padded = (n: number, alignment: number): number => Math.ceil(n / alignment) * alignment;

interface Line {
  readonly name: string;
  readonly type: GgmlType;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly offset: bigint;
}

function readTable(at: Cursor, count: number, file: string): Map<string, Line> {
  const table = new Map<string, Line>();
  for (let i = 0; i < count; i++) {
    const bytes = at.length(MAX_NAME_BYTES, 'a tensor name');
    const position = at.position;
    const name = text(at.bytes(bytes, 'a tensor name'), 'a tensor name', position, file);
    if (table.has(name)) throw new PithError('GGUF_DUPLICATE_TENSOR', { file, tensor: name });
    table.set(name, readLine(at, name, file));
  }
  return table;
}

function readLine(at: Cursor, tensor: string, file: string): Line {
  const what = `the line of tensor "${tensor}"`;
  const dimCount = at.u32(what);
  if (dimCount > MAX_DIMS) throw new PithError('GGUF_DIMS', { file, tensor, got: dimCount });
  const dims: bigint[] = [];
  for (let index = 0; index < dimCount; index++) {
    const d = at.i64(what);
    if (d < 0n) throw new PithError('GGUF_NEGATIVE_DIM', { file, tensor, index, got: d });
    dims.push(d);
  }
  // an empty tensor too must have dimensions that are numbers
  const [elements, extent] = [dims.reduce((n, d) => n * d, 1n), dims.reduce((n, d) => n * (d || 1n), 1n)];
  if (extent >= 2n ** 53n) throw new PithError('GGUF_OVERFLOW', { file, tensor, got: extent });
  const id = at.i32(what);
  const type = GGML_TYPES.get(id);
  if (type === undefined) throw new PithError('GGUF_TENSOR_TYPE', { file, tensor, got: id });
  const row = dims[0] ?? 1n;
  if (row % BigInt(type.blockElements) !== 0n) throw new PithError('GGUF_BLOCK', { file, tensor, expected: type.blockElements, got: row, type: type.name });
  const bytes = (elements / BigInt(type.blockElements)) * BigInt(type.blockBytes);
  return { name: tensor, type, shape: dims.map(Number).reverse(), bytes: Number(bytes), offset: at.u64(what) };
}

/** Offsets must be the running sum of the padded sizes, in the order of the table. */
function placeTensors(
  table: ReadonlyMap<string, Line>,
  dataStart: number,
  alignment: number,
  fileBytes: number,
  file: string,
): Pick<GgufHeader, 'tensors' | 'warnings'> {
  const tensors = new Map<string, GgufEntry>();
  let offset = 0;
  for (const { name, type, shape, bytes, offset: got } of table.values()) {
    if (got !== BigInt(offset)) throw new PithError('GGUF_OFFSET', { file, tensor: name, expected: offset, got });
    const position = dataStart + offset;
    if (position + bytes > fileBytes) {
      throw new PithError('GGUF_TRUNCATED', {
        file,
        what: `the data of tensor "${name}"`,
        expected: bytes,
        position,
        got: Math.max(0, fileBytes - position),
      });
    }
    tensors.set(name, { name, type, shape, position, bytes });
    offset += padded(bytes, alignment);
  }
  const rest = fileBytes - dataStart - offset;
  return { tensors, warnings: rest > 0 ? [`${file}: ${rest} bytes after the last tensor belong to none`] : [] };
}
