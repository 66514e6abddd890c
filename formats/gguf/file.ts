/** One open GGUF file: header checked, metadata values and tensor data read by position. */
import { PithError } from '../../core/errors.js';
import * as io from '../io.js';
import { parseGguf, type GgufEntry, type GgufHeader, type GgufValue, SCALAR_BYTES, type ScalarType } from './header.js';

/** What a value is shown as in a list of metadata. */
const PREVIEW_BYTES = 16 << 10;

export class GgufFile implements Disposable {
  #open = true;

  private constructor(
    readonly path: string,
    readonly fd: number,
    readonly bytes: number,
    readonly mtimeMs: number,
    readonly header: GgufHeader,
  ) {}

  /** NOT_FOUND, IO, or one of the header's errors (exit 65). Reads the header and nothing else. */
  static open(path: string): GgufFile {
    const fd = io.openRead(path);
    try {
      const { bytes, mtimeMs, isFile } = io.fstat(fd, path);
      if (!isFile) throw new PithError('NOT_A_CHECKPOINT', { file: path, message: 'expected a regular file' });
      return new GgufFile(path, fd, bytes, mtimeMs, parseGguf(fd, bytes, path));
    } catch (error) {
      io.close(fd);
      throw error;
    }
  }

  get tensors(): ReadonlyMap<string, GgufEntry> {
    return this.header.tensors;
  }

  /** Bytes [begin, begin + target.length) of a tensor's blocks. */
  readInto(entry: GgufEntry, begin: number, target: Uint8Array): void {
    if (begin < 0 || begin + target.length > entry.bytes) {
      throw new PithError('INTERNAL', { message: `read of [${begin}, ${begin + target.length}) of tensor "${entry.name}"` });
    }
    io.readFully(this.fd, target, entry.position + begin, this.path);
  }

  #bytes(position: number, bytes: number): Buffer {
    const out = Buffer.alloc(bytes);
    io.readFully(this.fd, out, position, this.path);
    return out;
  }

  #wrong(key: string, expected: string, v: GgufValue): PithError {
    return new PithError('GGUF_FIELD', { file: this.path, key, expected, got: v.type === 'array' ? `an array of ${v.of}` : v.type });
  }

  keys(): Iterable<string> {
    return this.header.metadata.keys();
  }

  has(key: string): boolean {
    return this.header.metadata.has(key);
  }

  /** undefined when the key is absent; GGUF_FIELD (65) when its value is of another type. So do the others below. */
  string(key: string): string | undefined {
    const v = this.header.metadata.get(key);
    if (v === undefined) return undefined;
    if (v.type !== 'string') throw this.#wrong(key, 'a string', v);
    return this.#bytes(v.position, v.bytes).toString('utf8');
  }

  /** Any integer or float; an integer beyond 2^53 is refused. An array of equal numbers (one a layer) counts as that number. */
  number(key: string): number | undefined {
    const v = this.header.metadata.get(key);
    if (v === undefined) return undefined;
    if (v.type === 'array') {
      const all = this.numbers(key)!;
      if (all.length > 0 && all.every((n) => n === all[0])) return all[0];
      throw this.#wrong(key, 'one number', v);
    }
    if (v.type === 'string' || typeof v.value === 'boolean') throw this.#wrong(key, 'a number', v);
    const n = Number(v.value);
    if (typeof v.value === 'bigint' && !Number.isSafeInteger(n))
      throw new PithError('GGUF_FIELD', { file: this.path, key, expected: 'at most 2^53', got: v.value });
    return n;
  }

  boolean(key: string): boolean | undefined {
    const v = this.header.metadata.get(key);
    if (v === undefined) return undefined;
    if (v.type !== 'bool') throw this.#wrong(key, 'a bool', v);
    return v.value as boolean;
  }

  /** An array of strings. */
  strings(key: string): string[] | undefined {
    const v = this.header.metadata.get(key);
    if (v === undefined) return undefined;
    if (v.type !== 'array' || v.of !== 'string') throw this.#wrong(key, 'an array of strings', v);
    const bytes = this.#bytes(v.position, v.bytes);
    const out: string[] = [];
    let at = 0;
    for (let i = 0; i < v.count; i++) {
      // the header's reader has seen that it is below 2^30
      const length = bytes.readUInt32LE(at);
      out.push(bytes.toString('utf8', at + 8, at + 8 + length));
      at += 8 + length;
    }
    return out;
  }

  /** An array of numbers, or one number as an array. */
  numbers(key: string): number[] | undefined {
    const v = this.header.metadata.get(key);
    if (v === undefined) return undefined;
    if (v.type !== 'array') return [this.number(key)!];
    if (v.of === 'string' || v.of === 'bool') throw this.#wrong(key, 'an array of numbers', v);
    const { of } = v;
    const bytes = this.#bytes(v.position, v.bytes);
    return Array.from({ length: v.count }, (_, i) => Number(READ[of](bytes, i * SCALAR_BYTES[of])));
  }

  /** A value as one line of text; an array by its first elements and its length. */
  show(key: string): string {
    const v = this.header.metadata.get(key);
    if (v === undefined) return '';
    if (v.type === 'string') return this.#bytes(v.position, Math.min(v.bytes, PREVIEW_BYTES)).toString('utf8');
    if (v.type === 'array') return `[${v.count} x ${v.of}]`;
    return String(v.type === 'f32' ? Number((v.value as number).toPrecision(7)) : v.value);
  }

  /** Size and time of the last change. */
  stamp(): string {
    const { bytes, mtimeMs } = io.stat(this.path) ?? { bytes: 0, mtimeMs: 0 };
    return `${bytes}:${mtimeMs}`;
  }

  close(): void {
    if (this.#open) io.close(this.fd);
    this.#open = false;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

const READ: Readonly<Record<Exclude<ScalarType, 'bool'>, (b: Buffer, at: number) => number | bigint>> = {
  u8: (b, at) => b.readUInt8(at),
  i8: (b, at) => b.readInt8(at),
  u16: (b, at) => b.readUInt16LE(at),
  i16: (b, at) => b.readInt16LE(at),
  u32: (b, at) => b.readUInt32LE(at),
  i32: (b, at) => b.readInt32LE(at),
  f32: (b, at) => b.readFloatLE(at),
  u64: (b, at) => b.readBigUInt64LE(at),
  i64: (b, at) => b.readBigInt64LE(at),
  f64: (b, at) => b.readDoubleLE(at),
};
