/** Receives what a lossy codec restores: hashes it and measures it against base and tuned. */
import { decodeF32 } from '../core/float.js';
import { DTYPES } from '../core/dtype.js';
import type { TensorSink, TensorSource } from '../methods/kinds.js';
import { HashingSink } from './sources.js';

const PANEL_BYTES = 1 << 20;

export class ErrorSink implements TensorSink {
  readonly #hash = new HashingSink();
  #error = 0;
  #delta = 0;

  constructor(
    private readonly base: TensorSource | undefined,
    private readonly tuned: TensorSource,
  ) {}

  async write(position: number, bytes: Uint8Array): Promise<void> {
    await this.#hash.write(position, bytes);
    if (this.base === undefined || DTYPES[this.tuned.dtype].float === undefined) return;
    const end = Math.min(position + bytes.length, this.base.byteLength);
    const buffers = { base: new Uint8Array(PANEL_BYTES), tuned: new Uint8Array(PANEL_BYTES) };
    for (let at = position; at < end; at += PANEL_BYTES) {
      const n = Math.min(PANEL_BYTES, end - at);
      await this.base.readInto(at, buffers.base.subarray(0, n));
      await this.tuned.readInto(at, buffers.tuned.subarray(0, n));
      this.#add(bytes.subarray(at - position, at - position + n), buffers.base.subarray(0, n), buffers.tuned.subarray(0, n));
    }
  }

  #add(what: Uint8Array, base: Uint8Array, tuned: Uint8Array): void {
    const dtype = this.tuned.dtype;
    const w = decodeF32(dtype, what);
    const w0 = decodeF32(dtype, base);
    const w1 = decodeF32(dtype, tuned);
    let error = 0;
    let delta = 0;
    for (let i = 0; i < w1.length; i++) {
      const e = w[i]! - w1[i]!;
      const d = w1[i]! - w0[i]!;
      error += e * e;
      delta += d * d;
    }
    this.#error += error;
    this.#delta += delta;
  }

  /** The base's own bytes from `offset` on: an unchanged piece. */
  async copy(base: TensorSource, offset: number): Promise<void> {
    const buffer = new Uint8Array(Math.min(PANEL_BYTES, base.byteLength));
    for (let at = 0; at < base.byteLength; at += buffer.length) {
      const n = Math.min(buffer.length, base.byteLength - at);
      await base.readInto(at, buffer.subarray(0, n));
      await this.write(offset + at, buffer.subarray(0, n));
    }
  }

  /** error = ||What - W1||_F / ||W1 - W0||_F, and its two squares for sums over the model. */
  result(): { sha256: string; error: number; errorSquared: number; deltaSquared: number } {
    const error = this.#delta > 0 ? Math.sqrt(this.#error / this.#delta) : 0;
    return { sha256: this.#hash.digest(), error, errorSquared: this.#error, deltaSquared: this.#delta };
  }
}
