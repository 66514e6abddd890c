/**
 * What a distribution over the vocabulary says of each token, from panels of its logits, so that the logits of no token ever lie in
 * memory together: log-sum-exp, the likeliest token, the target's log probability, and the divergence from another model's distribution.
 * A panel's sums come from the device; they are joined here in f64.
 *
 * With m = max z and S = sum e^(z - m): lse = m + ln S, -log p(t) = lse - z_t, and for a reference r
 * D(r || z) = sum p_r (log p_r - log p_z) = sum e^(r - m_r) (r - z) / S_r - (lse_r - lse_z).
 */
import * as tf from '#tf';
import { fusedKernel, hasFused, runFused, type FusedKernel } from './heap.js';

/** Numbers of a row of `panelSums`. */
const SUMS = 4;
/** A target that lies in another panel: far below any logit, and finite, as GPUs need not know infinities. */
const LOWEST = -1e30;

/** z: (T, n) logits; targets: (T) int32, columns of the panel, or outside of it. Gives (T, 4): m, S, the first column that has m, z at the target or LOWEST. */
export function panelSums(z: tf.Tensor2D, targets: tf.Tensor1D): tf.Tensor2D {
  return hasFused(PANEL) ? (runFused(PANEL, { z, targets }) as tf.Tensor2D) : plainPanelSums(z, targets);
}

export function plainPanelSums(z: tf.Tensor2D, targets: tf.Tensor1D): tf.Tensor2D {
  return tf.tidy(() => {
    const [rows, n] = z.shape;
    const m = tf.max(z, 1, true);
    const sum = tf.sum(tf.exp(tf.sub(z, m)), 1);
    const inside = tf.logicalAnd(tf.greaterEqual(targets, 0), tf.less(targets, n));
    // a gather by flat index, as not every backend takes one value a row
    const places = tf.add(tf.mul(tf.range(0, rows, 1, 'int32'), n), tf.cast(tf.clipByValue(targets, 0, n - 1), 'int32'));
    const picked = tf.where(inside, tf.gather(tf.reshape(z, [rows * n]), tf.cast(places, 'int32')), tf.fill([rows], LOWEST));
    return tf.stack([tf.reshape(m, [rows]), sum, tf.cast(tf.argMax(z, 1), 'float32'), picked], 1) as tf.Tensor2D;
  });
}

/** z, r: (T, n) logits of the model and of the reference; their panelSums. Gives (T): sum e^(r - m_r) ((r - m_r) - (z - m_z)). */
export function panelDivergence(z: tf.Tensor2D, r: tf.Tensor2D, zSums: tf.Tensor2D, rSums: tf.Tensor2D): tf.Tensor1D {
  return hasFused(DIVERGENCE) ? (runFused(DIVERGENCE, { z, r, zSums, rSums }) as tf.Tensor1D) : plainPanelDivergence(z, r, zSums, rSums);
}

export function plainPanelDivergence(z: tf.Tensor2D, r: tf.Tensor2D, zSums: tf.Tensor2D, rSums: tf.Tensor2D): tf.Tensor1D {
  return tf.tidy(() => {
    const below = (x: tf.Tensor2D, sums: tf.Tensor2D): tf.Tensor2D => tf.sub(x, tf.slice(sums, [0, 0], [x.shape[0], 1]));
    const a = below(r, rSums);
    return tf.sum(tf.mul(tf.exp(a), tf.sub(a, below(z, zSums))), 1);
  });
}

const PANEL = 'PithPanelSums';
const DIVERGENCE = 'PithPanelDivergence';

export const tokenScoreKernels: readonly FusedKernel[] = [
  fusedKernel(PANEL, (h, { z, targets }) => {
    const [rows, n] = z!.shape as [number, number];
    const out = h.output([rows, SUMS]);
    h.nn.panelSums(h.at(z!), h.at(targets!), h.at(out), rows, n);
    return out;
  }),
  fusedKernel(DIVERGENCE, (h, { z, r, zSums, rSums }) => {
    const [rows, n] = z!.shape as [number, number];
    const out = h.output([rows]);
    h.nn.panelDivergence(h.at(z!), h.at(r!), h.at(zSums!), h.at(rSums!), h.at(out), rows, n);
    return out;
  }),
];

/** The distribution of every token so far, over the panels that were added. */
export class RunningSums {
  /** Greatest logit and sum of e^(z - max). */
  readonly max: Float64Array;
  readonly sum: Float64Array;
  /** Column of the greatest logit, the lowest of equals. */
  readonly top: Int32Array;
  /** The target's logit. */
  readonly picked: Float64Array;

  constructor(tokens: number) {
    this.max = new Float64Array(tokens).fill(-Infinity);
    this.sum = new Float64Array(tokens);
    this.top = new Int32Array(tokens);
    this.picked = new Float64Array(tokens).fill(-Infinity);
  }

  /** Panels come in rising order of their first column. `sums`: panelSums of tokens [start, ...). */
  add(start: number, sums: Float32Array, firstColumn: number): void {
    for (let i = 0, at = start; i < sums.length; i += SUMS, at++) {
      const [m, s, column, picked] = [sums[i]!, sums[i + 1]!, sums[i + 2]!, sums[i + 3]!];
      const [before, sum] = [this.max[at]!, this.sum[at]!];
      if (m > before) {
        this.max[at] = m;
        this.sum[at] = sum * Math.exp(before - m) + s;
        this.top[at] = firstColumn + column;
      } else this.sum[at] = sum + s * Math.exp(m - before);
      if (picked > LOWEST / 2) this.picked[at] = picked;
    }
  }

  logSumExp(at: number): number {
    return this.max[at]! + Math.log(this.sum[at]!);
  }

  /** -log p of the targets, nats. */
  nll(): Float32Array {
    return Float32Array.from(this.max, (_, i) => this.logSumExp(i) - this.picked[i]!);
  }
}

/** D(reference || model) of every token, over the panels that were added. */
export class RunningDivergence {
  /** Sum of e^(r - max r) (r - z). */
  readonly #sum: Float64Array;

  constructor(
    private readonly model: RunningSums,
    private readonly reference: RunningSums,
  ) {
    this.#sum = new Float64Array(model.max.length);
  }

  /** Adds the panel to both models too. `divergence`: panelDivergence of tokens [start, ...). */
  add(start: number, sums: Float32Array, referenceSums: Float32Array, divergence: Float32Array, firstColumn: number): void {
    const before = this.reference.max.slice(start, start + divergence.length);
    this.model.add(start, sums, firstColumn);
    this.reference.add(start, referenceSums, firstColumn);
    divergence.forEach((d, i) => {
      const [mz, mr, s] = [sums[i * SUMS]!, referenceSums[i * SUMS]!, referenceSums[i * SUMS + 1]!];
      const max = this.reference.max[start + i]!;
      // sum e^(r - mr) (r - z) of the panel
      const panel = d + s * (mr - mz);
      const kept = before[i] === -Infinity ? 0 : this.#sum[start + i]! * Math.exp(before[i]! - max);
      this.#sum[start + i] = kept + panel * Math.exp(mr - max);
    });
  }

  /** Nats. */
  values(): Float32Array {
    const { model, reference } = this;
    return Float32Array.from(this.#sum, (sum, i) => sum / reference.sum[i]! - (reference.logSumExp(i) - model.logSumExp(i)));
  }
}
