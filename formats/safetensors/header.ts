/** Header bytes -> tensors, by the rules of safetensors 0.8.0 (`tensor.rs`, Metadata::validate) and pith's stricter ones. */
import { DTYPES, isDType, type DType } from '../../core/dtype.js';
import { PithError } from '../../core/errors.js';
import type { TensorInfo } from '../../core/tensor.js';
import { JsonScanner } from './json.js';

/** The reference's own cap on the header's length. */
export const MAX_HEADER_BYTES = 100_000_000;

export interface TensorEntry {
  readonly info: TensorInfo;
  /** Offsets in the data section. */
  readonly begin: number;
  readonly end: number;
}

export interface Header {
  /** In the order of the data. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
  /** undefined when the file has no `__metadata__`. */
  readonly metadata: ReadonlyMap<string, string> | undefined;
  readonly warnings: readonly string[];
}

interface RawEntry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly bigint[];
  readonly begin: bigint;
  readonly end: bigint;
}

const U64_MAX = 2n ** 64n - 1n;

/** Length of the header, checked against the file before anything is allocated. `prefix`: the first bytes of the file. */
export function headerLength(prefix: Uint8Array, fileBytes: number, file: string): number {
  if (fileBytes < 8 || prefix.length < 8) throw new PithError('HEADER_TOO_SMALL', { file, got: fileBytes });
  const n = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (n > BigInt(MAX_HEADER_BYTES)) throw new PithError('HEADER_TOO_LARGE', { file, expected: MAX_HEADER_BYTES, got: n });
  if (8n + n > BigInt(fileBytes)) throw new PithError('HEADER_LENGTH', { file, expected: n, got: fileBytes });
  return Number(n);
}

/** `json`: the header without its length. `dataBytes`: what follows it in the file. */
export function parseHeader(json: Uint8Array, dataBytes: number, file: string): Header {
  try {
    new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(json);
  } catch {
    throw new PithError('HEADER_UTF8', { file });
  }
  const warnings: string[] = [];
  const scan = new JsonScanner(json, file);
  const raw = new Map<string, RawEntry>();
  let metadata: Map<string, string> | undefined;
  let metadataSeen = false;
  scan.peek();
  if (scan.at > 0 && scan.at < json.length) warnings.push(`${file}: whitespace before the header's first brace`);
  scan.object((key) => {
    if (key === '__metadata__') {
      if (metadataSeen) throw new PithError('HEADER_DUPLICATE', { file, key });
      metadataSeen = true;
      metadata = readMetadata(scan, file);
      return;
    }
    if (raw.has(key)) throw new PithError('HEADER_DUPLICATE', { file, key });
    raw.set(key, readEntry(scan, key, file, warnings));
  });
  if (scan.peek() >= 0) scan.fail('trailing characters');
  const entries = place([...raw.values()], dataBytes, json.length, file);
  if ((8 + json.length) % 8 !== 0) warnings.push(`${file}: data does not start on a multiple of 8`);
  return { entries, metadata, warnings };
}

function readMetadata(scan: JsonScanner, file: string): Map<string, string> | undefined {
  if (scan.word('null')) return undefined;
  if (scan.peek() !== 0x7b) throw new PithError('HEADER_METADATA', { file, key: '', expected: 'an object', got: scan.skip() });
  const out = new Map<string, string>();
  scan.object((key) => {
    if (out.has(key)) throw new PithError('HEADER_DUPLICATE', { file, key });
    if (scan.peek() !== 0x22) throw new PithError('HEADER_METADATA', { file, key, expected: 'a string', got: scan.skip() });
    out.set(key, scan.string());
  });
  return out;
}

function readEntry(scan: JsonScanner, tensor: string, file: string, warnings: string[]): RawEntry {
  const wrong = (field: string, expected: string, got: string): never => {
    throw new PithError('HEADER_FIELD', { file, tensor, field, expected, got });
  };
  if (scan.peek() !== 0x7b) wrong('entry', 'an object', scan.skip());
  let dtype: DType | undefined;
  let shape: bigint[] | undefined;
  let offsets: bigint[] | undefined;
  const once = (field: string, value: unknown): void => {
    if (value !== undefined) throw new PithError('HEADER_DUPLICATE', { file, key: `${tensor}.${field}` });
  };
  const integers = (field: string): bigint[] => {
    if (scan.peek() !== 0x5b) wrong(field, 'an array', scan.skip());
    const out: bigint[] = [];
    scan.array(() => {
      const c = scan.peek();
      const text = c === 0x2d || (c >= 0x30 && c <= 0x39) ? scan.number() : wrong(field, 'unsigned integers', scan.skip());
      const value = /^(0|[1-9][0-9]*)$/.test(text) && text.length <= 20 ? BigInt(text) : U64_MAX + 1n;
      if (value > U64_MAX) wrong(field, 'unsigned 64-bit integers', text.slice(0, 40));
      out.push(value);
    });
    return out;
  };
  scan.object((field) => {
    if (field === 'dtype') {
      once(field, dtype);
      if (scan.peek() !== 0x22) wrong(field, 'a string', scan.skip());
      const name = scan.string();
      if (!isDType(name)) throw new PithError('HEADER_DTYPE', { file, tensor, got: name });
      dtype = name;
    } else if (field === 'shape') {
      once(field, shape);
      shape = integers(field);
    } else if (field === 'data_offsets') {
      once(field, offsets);
      offsets = integers(field);
      if (offsets.length !== 2) wrong(field, '2 integers', `${offsets.length}`);
    } else {
      scan.skip();
      warnings.push(`${file}: tensor "${tensor}" has an unknown field "${field}"`);
    }
  });
  if (dtype === undefined) return wrong('dtype', 'a value', 'none');
  if (shape === undefined) return wrong('shape', 'a value', 'none');
  if (offsets === undefined) return wrong('data_offsets', 'a value', 'none');
  return { name: tensor, dtype, shape, begin: offsets[0]!, end: offsets[1]! };
}

const compare = (a: bigint, b: bigint): number => (a < b ? -1 : a > b ? 1 : 0);

/** Steps 6 to 8 of the reference: order by offset, no hole, no overlap, sizes that agree, the whole file covered. */
function place(raw: RawEntry[], dataBytes: number, headerBytes: number, file: string): Map<string, TensorEntry> {
  raw.sort((a, b) => compare(a.begin, b.begin) || compare(a.end, b.end));
  const entries = new Map<string, TensorEntry>();
  let start = 0n;
  for (const t of raw) {
    if (t.begin !== start || t.end < t.begin) throw new PithError('TENSOR_OFFSET', { file, tensor: t.name, expected: start, begin: t.begin, end: t.end });
    start = t.end;
    const bits = bitsOf(t, file);
    const shape = `[${t.shape.join(', ')}]`;
    if (bits % 8n !== 0n) throw new PithError('TENSOR_MISALIGNED', { file, tensor: t.name, dtype: t.dtype, shape, got: bits });
    if (t.end - t.begin !== bits / 8n) {
      throw new PithError('TENSOR_SIZE', { file, tensor: t.name, dtype: t.dtype, shape, expected: bits / 8n, got: t.end - t.begin });
    }
    if (t.end > BigInt(dataBytes)) break;
    // an empty tensor may have any other dimensions: they must still be usable as numbers
    if (t.shape.some((d) => d > BigInt(Number.MAX_SAFE_INTEGER))) throw new PithError('TENSOR_OVERFLOW', { file, tensor: t.name, shape });
    entries.set(t.name, { info: { name: t.name, dtype: t.dtype, shape: t.shape.map(Number) }, begin: Number(t.begin), end: Number(t.end) });
  }
  if (start !== BigInt(dataBytes)) {
    throw new PithError('FILE_NOT_COVERED', { file, expected: 8n + BigInt(headerBytes) + start, got: 8 + headerBytes + dataBytes });
  }
  return entries;
}

function bitsOf(t: RawEntry, file: string): bigint {
  let n = 1n;
  for (const d of t.shape) {
    n *= d;
    if (n > U64_MAX) throw new PithError('TENSOR_OVERFLOW', { file, tensor: t.name, shape: `[${t.shape.join(', ')}]` });
  }
  const bits = n * BigInt(DTYPES[t.dtype].bits);
  if (bits > U64_MAX) throw new PithError('TENSOR_OVERFLOW', { file, tensor: t.name, shape: `[${t.shape.join(', ')}]` });
  return bits;
}
