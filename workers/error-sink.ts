/** Receives what a lossy codec restores: hashes it and measures it against base and tuned. */
import { isFloat } from '../core/float.js';
import type { PanelKernel } from '../kernels/lowrank/panel.js';
import type { TensorSink, TensorSource } from '../methods/kinds.js';
import { HashingSink } from './sources.js';
import { panelBuffer } from '../core/panel-buffer.js';

const PANEL_BYTES = 1 << 20;

export class ErrorSink implements TensorSink {
  readonly #hash = new HashingSink();
  #error = 0;
  #delta = 0;

  constructor(
    private readonly base: TensorSource | undefined,
    private readonly tuned: TensorSource,
    private readonly kernel: PanelKernel,
  ) {}

  async write(position: number, bytes: Uint8Array): Promise<void> {
    await this.#hash.write(position, bytes);
    if (this.base === undefined || !isFloat(this.tuned.dtype)) return;
    const end = Math.min(position + bytes.length, this.base.byteLength);
    for (let at = position; at < end; at += PANEL_BYTES) {
      const n = Math.min(PANEL_BYTES, end - at);
      const { base, tuned } = this.kernel.squaresInputs(n);
      await this.base.readInto(at, base);
      await this.tuned.readInto(at, tuned);
      const [error, delta] = this.kernel.squares(this.tuned.dtype, bytes.subarray(at - position, at - position + n), tuned, base);
      this.#error += error;
      this.#delta += delta;
    }
  }

  /** The base's own bytes from `offset` on: an unchanged piece. */
  async copy(base: TensorSource, offset: number): Promise<void> {
    const buffer = panelBuffer(base.byteLength, 'copy');
    for (let at = 0; at < base.byteLength; at += buffer.length) {
      const n = Math.min(buffer.length, base.byteLength - at);
      await base.readInto(at, buffer.subarray(0, n));
      await this.write(offset + at, buffer.subarray(0, n));
    }
  }

  /** error = ||What - W1||_F / ||W1 - W0||_F, and its two squares for sums over the model. */
  result(): { sha256: string; error: number; squares: [error: number, delta: number] } {
    const error = this.#delta > 0 ? Math.sqrt(this.#error / this.#delta) : 0;
    return { sha256: this.#hash.digest(), error, squares: [this.#error, this.#delta] };
  }
}
