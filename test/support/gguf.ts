/** GGUF files for tests, right ones and wrong ones: every field can be given as it should not be. */
import { join } from 'node:path';
import { ggmlType, type GgmlTypeName } from '../../core/ggml.js';
import type { GgufFile } from '../../formats/gguf/file.js';
import type { GgufMetadata } from '../../models/gguf/metadata.js';
import { ROOT } from './files.js';

export const GGUF_GOLDEN = join(ROOT, 'test', 'golden', 'gguf');

const TYPE_IDS = { u8: 0, i8: 1, u16: 2, i16: 3, u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9, u64: 10, i64: 11, f64: 12 } as const;
type Scalar = Exclude<keyof typeof TYPE_IDS, 'array'>;

export interface TestKey {
  readonly key: string | Buffer;
  readonly type: keyof typeof TYPE_IDS | number;
  /** Of an array: its elements. */
  readonly value: string | number | bigint | boolean | Buffer | readonly (string | number)[];
  readonly of?: Scalar | 'array';
}

export interface TestTensor {
  readonly name: string | Buffer;
  /** As the file has them: the first is the contiguous one. */
  readonly dims: readonly (number | bigint)[];
  readonly type: GgmlTypeName | number;
  readonly data?: Uint8Array;
  readonly offset?: bigint;
}

export interface TestGguf {
  readonly magic?: string;
  readonly version?: number;
  readonly tensorCount?: bigint;
  readonly keyCount?: bigint;
  readonly keys?: readonly TestKey[];
  readonly tensors?: readonly TestTensor[];
  readonly alignment?: number;
}

const u32 = (n: number): Buffer => {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(n);
  return b;
};
export const u64 = (n: number | bigint): Buffer => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(BigInt.asUintN(64, BigInt(n)));
  return b;
};
const text = (s: string | Buffer): Buffer => {
  const bytes = Buffer.from(s as string);
  return Buffer.concat([u64(bytes.length), bytes]);
};

function scalar(type: Scalar, value: string | number | bigint | boolean): Buffer {
  const b = Buffer.alloc(8);
  switch (type) {
    case 'string':
      return text(String(value));
    case 'u8':
    case 'bool':
      b.writeUInt8(Number(value));
      return b.subarray(0, 1);
    case 'i8':
      b.writeInt8(Number(value));
      return b.subarray(0, 1);
    case 'u16':
      b.writeUInt16LE(Number(value));
      return b.subarray(0, 2);
    case 'i16':
      b.writeInt16LE(Number(value));
      return b.subarray(0, 2);
    case 'u32':
      return u32(Number(value));
    case 'i32':
      b.writeInt32LE(Number(value));
      return b.subarray(0, 4);
    case 'f32':
      b.writeFloatLE(Number(value));
      return b.subarray(0, 4);
    case 'f64':
      b.writeDoubleLE(Number(value));
      return b;
    default:
      return u64(BigInt(value));
  }
}

function keyBytes({ key, type, value, of }: TestKey): Buffer {
  const id = typeof type === 'number' ? type : TYPE_IDS[type];
  const head = Buffer.concat([text(key), u32(id)]);
  if (Buffer.isBuffer(value)) return Buffer.concat([head, value]);
  if (type !== 'array') return Buffer.concat([head, typeof type === 'number' ? Buffer.alloc(0) : scalar(type, value as string)]);
  const elements = value as readonly (string | number)[];
  const body = of === 'array' ? [] : elements.map((e) => scalar(of!, e));
  return Buffer.concat([head, u32(TYPE_IDS[of!]), u64(elements.length), ...body]);
}

const bytesOf = ({ dims, type, data }: TestTensor): number => {
  if (data !== undefined) return data.length;
  if (typeof type === 'number') return 0;
  const { blockElements, blockBytes } = ggmlType(type);
  return (Number(dims.reduce<bigint>((n, d) => n * BigInt(d), 1n)) / blockElements) * blockBytes;
};

/** Offsets are the right ones unless given; tensors without data are zeros. */
export function ggufBytes(g: TestGguf): Buffer {
  const { keys = [], tensors = [], alignment = 32 } = g;
  const pad = (n: number): number => (alignment - (n % alignment)) % alignment;
  let offset = 0;
  const lines = tensors.map((t) => {
    const at = t.offset ?? BigInt(offset);
    offset += bytesOf(t) + pad(bytesOf(t));
    const id = typeof t.type === 'number' ? t.type : ggmlType(t.type).id;
    return Buffer.concat([text(t.name), u32(t.dims.length), ...t.dims.map(u64), u32(id), u64(at)]);
  });
  const counts = [u64(g.tensorCount ?? tensors.length), u64(g.keyCount ?? keys.length)];
  const header = Buffer.concat([Buffer.from(g.magic ?? 'GGUF', 'latin1'), u32(g.version ?? 3), ...counts, ...keys.map(keyBytes), ...lines]);
  const parts: Uint8Array[] = [header];
  if (tensors.length > 0) parts.push(Buffer.alloc(pad(header.length)));
  for (const t of tensors) parts.push(t.data ?? Buffer.alloc(bytesOf(t)), Buffer.alloc(pad(bytesOf(t))));
  return Buffer.concat(parts);
}

/** Metadata of a file, some values replaced. */
export function metadataOf(file: GgufFile, replaced: Readonly<Record<string, string | boolean>> = {}): GgufMetadata {
  return {
    path: file.path,
    has: (key) => key in replaced || file.has(key),
    string: (key) => (key in replaced ? String(replaced[key]) : file.string(key)),
    boolean: (key) => (key in replaced ? replaced[key] === true : file.boolean(key)),
    number: (key) => file.number(key),
    strings: (key) => file.strings(key),
    numbers: (key) => file.numbers(key),
  };
}
