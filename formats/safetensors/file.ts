/** One open safetensors file: header checked, data read by position. */
import { DTYPES } from '../../core/dtype.js';
import { PithError } from '../../core/errors.js';
import { rowLength } from '../../core/shape.js';
import type { TensorView } from '../../core/tensor.js';
import * as io from '../io.js';
import { headerLength, parseHeader, type TensorEntry } from './header.js';

export class SafetensorsFile implements Disposable {
  #open = true;

  private constructor(
    readonly path: string,
    readonly fd: number,
    readonly bytes: number,
    readonly mtimeMs: number,
    /** The first `8 + N` bytes as they are in the file. */
    readonly rawHeader: Uint8Array,
    readonly entries: ReadonlyMap<string, TensorEntry>,
    readonly metadata: ReadonlyMap<string, string> | undefined,
    readonly warnings: readonly string[],
  ) {}

  /** NOT_FOUND, IO, or one of the header's errors (exit 65), which name it `path`. Reads the header and nothing else. */
  static open(location: string, path = location): SafetensorsFile {
    const fd = io.openRead(location);
    try {
      const { bytes, mtimeMs, isFile } = io.fstat(fd, path);
      if (!isFile) throw new PithError('NOT_A_CHECKPOINT', { file: path, message: 'expected a regular file' });
      const prefix = new Uint8Array(Math.min(8, bytes));
      io.readFully(fd, prefix, 0, path);
      const n = headerLength(prefix, bytes, path);
      const rawHeader = new Uint8Array(8 + n);
      io.readFully(fd, rawHeader, 0, path);
      const { entries, metadata, warnings } = parseHeader(rawHeader.subarray(8), bytes - 8 - n, path);
      return new SafetensorsFile(path, fd, bytes, mtimeMs, rawHeader, entries, metadata, warnings);
    } catch (error) {
      io.close(fd);
      throw error;
    }
  }

  get dataStart(): number {
    return this.rawHeader.length;
  }

  entry(name: string): TensorEntry {
    const entry = this.entries.get(name);
    if (entry === undefined) throw new PithError('TENSOR_MISSING', { file: this.path, tensor: name });
    return entry;
  }

  /** Bytes [begin, begin + target.length) of the tensor. */
  readInto(name: string, begin: number, target: Uint8Array): void {
    const entry = this.entry(name);
    if (begin < 0 || begin + target.length > entry.end - entry.begin) {
      throw new PithError('INTERNAL', { message: `read of [${begin}, ${begin + target.length}) of tensor "${name}"` });
    }
    io.readFully(this.fd, target, this.dataStart + entry.begin + begin, this.path);
  }

  /** The whole tensor or rows [start, end) of its first dimension, clamped as a slice is. */
  read(name: string, rows?: readonly [start: number, end: number]): TensorView {
    const { info, begin, end } = this.entry(name);
    if (rows === undefined) {
      const bytes = new Uint8Array(end - begin);
      this.readInto(name, 0, bytes);
      return { ...info, bytes };
    }
    const total = info.shape[0];
    if (total === undefined) throw new PithError('DTYPE_UNSUPPORTED', { file: this.path, tensor: name, got: info.dtype, message: 'a scalar has no rows' });
    const from = Math.min(Math.max(0, rows[0]), total);
    const to = Math.min(Math.max(from, rows[1]), total);
    const rowBits = rowLength(info.shape) * DTYPES[info.dtype].bits;
    if ((from * rowBits) % 8 !== 0 || (to * rowBits) % 8 !== 0) {
      throw new PithError('DTYPE_UNSUPPORTED', {
        file: this.path,
        tensor: name,
        got: info.dtype,
        message: `rows [${from}, ${to}) do not fall on byte boundaries`,
      });
    }
    const bytes = new Uint8Array(((to - from) * rowBits) / 8);
    this.readInto(name, (from * rowBits) / 8, bytes);
    return { name, dtype: info.dtype, shape: [to - from, ...info.shape.slice(1)], bytes };
  }

  /** FILE_CHANGED when somebody wrote the file since it was opened. */
  assertUnchanged(): void {
    const now = io.fstat(this.fd, this.path);
    if (now.bytes !== this.bytes || now.mtimeMs !== this.mtimeMs) {
      throw new PithError('FILE_CHANGED', { file: this.path, expected: `${this.bytes} bytes of ${this.mtimeMs}`, got: `${now.bytes} bytes of ${now.mtimeMs}` });
    }
  }

  close(): void {
    if (this.#open) io.close(this.fd);
    this.#open = false;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
