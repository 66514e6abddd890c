/** The difference of two tensors as an f32 matrix, read in panels: what most lossy codecs start from. */
import { DTYPES } from '../core/dtype.js';
import { sumOfSquares } from '../kernels/linalg/truncated-svd.js';
import { PanelKernel, type DenseDType } from '../kernels/lowrank/panel.js';
import type { Ctx } from './define.js';
import type { TensorSource } from './kinds.js';

export const PANEL_VALUES = 1 << 19;

export interface Difference {
  /** D = f32(W1) - f32(W0), row-major, valid until the next call. */
  readonly delta: Float32Array;
  /** Every stored byte agrees. */
  readonly same: boolean;
  /** ||D||_F^2, not finite when a value is not. */
  readonly norm: number;
}

/** One per codec and thread: its scratch is used again for every tensor. */
export class DeltaMatrix {
  #kernel: Promise<PanelKernel> | undefined;
  #scratch = new Float32Array(0);
  /** One panel of base and tuned, up to 4 bytes a value. */
  readonly #stored = [new Uint8Array(4 * PANEL_VALUES), new Uint8Array(4 * PANEL_VALUES)] as const;

  panels(): Promise<PanelKernel> {
    this.#kernel ??= PanelKernel.create();
    return this.#kernel;
  }

  async read(c: Ctx, base: TensorSource, tuned: TensorSource): Promise<Difference> {
    const values = tuned.byteLength / (DTYPES[tuned.dtype].bits / 8);
    if (this.#scratch.length < values || this.#scratch.length > 4 * values + PANEL_VALUES) this.#scratch = new Float32Array(values);
    const delta = this.#scratch.subarray(0, values);
    let same = true;
    await this.each(c, base, tuned, (at, panel, equal) => {
      delta.set(panel, at);
      same &&= equal;
    });
    return { delta, same, norm: sumOfSquares(delta) };
  }

  /** Panels of D from front to back with the base's stored bytes; views that the next panel overwrites. `rowValues`: panels are whole rows. */
  async each(
    c: Ctx,
    base: TensorSource,
    tuned: TensorSource,
    act: (at: number, delta: Float32Array, same: boolean, base: Uint8Array) => void | Promise<void>,
    panelValues = PANEL_VALUES,
  ): Promise<void> {
    const kernel = await this.panels();
    const width = DTYPES[tuned.dtype].bits / 8;
    const values = tuned.byteLength / width;
    const buffers = panelValues <= PANEL_VALUES ? this.#stored : ([new Uint8Array(4 * panelValues), new Uint8Array(4 * panelValues)] as const);
    const panel = new Float32Array(Math.min(panelValues, values));
    for (let at = 0; at < values; at += panelValues) {
      c.checkpointCancel();
      const out = panel.subarray(0, Math.min(panelValues, values - at));
      const [a, b] = [buffers[0].subarray(0, out.length * width), buffers[1].subarray(0, out.length * width)];
      await base.readInto(at * width, a);
      await tuned.readInto(at * width, b);
      kernel.subtract(tuned.dtype as DenseDType, b, a, out);
      await act(at, out, Buffer.compare(a, b) === 0, a);
      c.report(out.length * width);
    }
  }
}
