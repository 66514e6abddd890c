/** Reads a file front to back through one small buffer: what a header claims is checked against the file before anything is allocated. */
import { PithError } from '../../core/errors.js';
import * as io from '../io.js';

const BUFFER_BYTES = 256 << 10;

export class Cursor {
  readonly #buffer: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  /** Position in the file of the buffer's first byte, and how many bytes of it are read. */
  #start = 0;
  #held = 0;
  #position = 0;

  constructor(
    private readonly fd: number,
    private readonly file: string,
    private readonly fileBytes: number,
  ) {
    this.#buffer = new Uint8Array(Math.min(BUFFER_BYTES, Math.max(8, fileBytes)));
    this.#view = new DataView(this.#buffer.buffer);
  }

  get position(): number {
    return this.#position;
  }

  get remaining(): number {
    return this.fileBytes - this.#position;
  }

  /** Index in the buffer of the next `count` bytes (no more than it holds), which are consumed. GGUF_TRUNCATED when they are not there. */
  #take(count: number, what: string): number {
    this.require(count, what);
    if (this.#position + count > this.#start + this.#held || this.#position < this.#start) {
      this.#start = this.#position;
      this.#held = Math.min(this.#buffer.length, this.remaining);
      io.readFully(this.fd, this.#buffer.subarray(0, this.#held), this.#start, this.file);
    }
    const at = this.#position - this.#start;
    this.#position += count;
    return at;
  }

  /** GGUF_TRUNCATED unless `count` more bytes are in the file. */
  require(count: number, what: string): void {
    if (count <= this.remaining) return;
    throw new PithError('GGUF_TRUNCATED', { file: this.file, what, expected: count, position: this.#position, got: this.remaining });
  }

  u8(what: string): number {
    return this.#buffer[this.#take(1, what)]!;
  }

  i8(what: string): number {
    return this.#view.getInt8(this.#take(1, what));
  }

  u16(what: string): number {
    return this.#view.getUint16(this.#take(2, what), true);
  }

  i16(what: string): number {
    return this.#view.getInt16(this.#take(2, what), true);
  }

  u32(what: string): number {
    return this.#view.getUint32(this.#take(4, what), true);
  }

  i32(what: string): number {
    return this.#view.getInt32(this.#take(4, what), true);
  }

  f32(what: string): number {
    return this.#view.getFloat32(this.#take(4, what), true);
  }

  u64(what: string): bigint {
    return this.#view.getBigUint64(this.#take(8, what), true);
  }

  i64(what: string): bigint {
    return this.#view.getBigInt64(this.#take(8, what), true);
  }

  f64(what: string): number {
    return this.#view.getFloat64(this.#take(8, what), true);
  }

  /** A u64 that counts bytes or elements: GGUF_TOO_LONG above `limit`. */
  length(limit: number, what: string): number {
    const at = this.#take(8, what);
    const low = this.#view.getUint32(at, true);
    const high = this.#view.getUint32(at + 4, true);
    if (high === 0 && low <= limit) return low;
    throw new PithError('GGUF_TOO_LONG', { file: this.file, what: `length of ${what}`, expected: limit, got: this.#view.getBigUint64(at, true) });
  }

  /** The next bytes, copied: at most 64 KiB. */
  bytes(count: number, what: string): Uint8Array<ArrayBuffer> {
    const at = this.#take(count, what);
    return this.#buffer.slice(at, at + count);
  }

  /** Passes over bytes without reading them. */
  skip(count: number, what: string): void {
    this.require(count, what);
    this.#position += count;
  }
}
