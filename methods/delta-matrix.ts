/** The difference of two tensors as an f32 matrix, read in panels: what most lossy codecs start from. */
import { DTYPES } from '../core/dtype.js';
import { isDense, PanelKernel, type DenseDType } from '../kernels/lowrank/panel.js';
import { matrixShape } from '../core/shape.js';
import type { Ctx } from './define.js';
import type { EncodeInfo, TensorPlan, TensorSource } from './kinds.js';

export const PANEL_VALUES = 1 << 19;

/** Nothing was written: the lossless coder takes the tensor. */
export const DECLINED: EncodeInfo = { identical: false, declined: true, facts: {} };

/** A float tensor with a base, of two dimensions or more and more than one row and column. */
export function isDenseMatrix(plan: TensorPlan): boolean {
  const [m, n] = matrixShape(plan.shape);
  return plan.hasBase && isDense(plan.dtype) && plan.shape.length >= 2 && m > 1 && n > 1;
}

export interface Difference {
  /** D = f32(W1) - f32(W0), row-major, valid until the next call. */
  readonly delta: Float32Array;
  /** Every stored byte agrees. */
  readonly same: boolean;
  /** ||D||_F^2, not finite when a value is not. */
  readonly norm: number;
}

export interface DeltaSums {
  /** Every stored byte agrees. */
  readonly same: boolean;
  /** Sum of |D|, not finite when a value is not. */
  readonly magnitude: number;
  /** ||D||_F^2 */
  readonly squares: number;
}

/** A panel of D = f32(W1) - f32(W0). */
export interface DeltaPanel {
  /** Place of its first value. */
  readonly at: number;
  readonly delta: Float32Array;
  /** Sums of |D| and D^2, not finite when a value is not. */
  readonly magnitude: number;
  readonly squares: number;
  /** Every stored byte agrees. */
  readonly same: boolean;
  /** The base's stored bytes, a view of the kernel's heap. */
  readonly base: Uint8Array;
}

/** One per codec and thread: its scratch is used again for every tensor. */
export class DeltaMatrix {
  #kernel: Promise<PanelKernel> | undefined;
  #scratch = new Float32Array(0);
  #panel = new Float32Array(0);
  panels(): Promise<PanelKernel> {
    this.#kernel ??= PanelKernel.create();
    return this.#kernel;
  }

  async read(c: Ctx, base: TensorSource, tuned: TensorSource): Promise<Difference> {
    const values = tuned.byteLength / (DTYPES[tuned.dtype].bits / 8);
    if (this.#scratch.length < values || this.#scratch.length > 4 * values + PANEL_VALUES) this.#scratch = new Float32Array(values);
    const delta = this.#scratch.subarray(0, values);
    let [same, norm] = [true, 0];
    const add = (p: DeltaPanel): void => {
      same &&= p.same;
      norm += p.squares;
    };
    await this.#panelsOf(c, base, tuned, add, PANEL_VALUES, (at, n) => delta.subarray(at, at + n));
    return { delta, same, norm };
  }

  /** Sums over D in one pass; `act` meets the panels on the way. */
  async sums(
    c: Ctx,
    base: TensorSource,
    tuned: TensorSource,
    act: (delta: Float32Array, at: number) => void = () => undefined,
    panelValues = PANEL_VALUES,
  ): Promise<DeltaSums> {
    let [same, magnitude, squares] = [true, 0, 0];
    const add = (p: DeltaPanel): void => {
      same &&= p.same;
      magnitude += p.magnitude;
      squares += p.squares;
      act(p.delta, p.at);
    };
    await this.each(c, base, tuned, add, panelValues);
    return { same, magnitude, squares };
  }

  /** Panels of D from front to back; views that the next panel overwrites. */
  async each(c: Ctx, base: TensorSource, tuned: TensorSource, act: (panel: DeltaPanel) => void | Promise<void>, panelValues = PANEL_VALUES): Promise<void> {
    if (this.#panel.length < panelValues) this.#panel = new Float32Array(panelValues);
    await this.#panelsOf(c, base, tuned, act, panelValues, (_, n) => this.#panel.subarray(0, n));
  }

  /** `place`: where the n values from `at` on go. */
  async #panelsOf(
    c: Ctx,
    base: TensorSource,
    tuned: TensorSource,
    act: (panel: DeltaPanel) => void | Promise<void>,
    panelValues: number,
    place: (at: number, n: number) => Float32Array,
  ): Promise<void> {
    const kernel = await this.panels();
    const width = DTYPES[tuned.dtype].bits / 8;
    const values = tuned.byteLength / width;
    for (let at = 0; at < values; at += panelValues) {
      c.checkpointCancel();
      const delta = place(at, Math.min(panelValues, values - at));
      const stored = kernel.subtractInputs(delta.length * width);
      await base.readInto(at * width, stored.base);
      await tuned.readInto(at * width, stored.tuned);
      const [magnitude, squares] = kernel.subtract(tuned.dtype as DenseDType, stored.tuned, stored.base, delta);
      await act({ at, delta, magnitude, squares, same: Buffer.compare(stored.base, stored.tuned) === 0, base: stored.base });
      c.report(delta.length * width);
    }
  }
}
