/** Rotary position embedding, half-split layout (Su et al. 2021, arXiv 2104.09864; the layout of GPT-NeoX and Llama), with gradient. */
import * as tf from '#tf';
import { fusedKernel, hasFused, runFused, withGradient, type FusedKernel } from './heap.js';

/** cos and sin of every position's angles times the attention factor: (positions, rot / 2). */
export interface RotaryTables {
  readonly cos: tf.Tensor2D;
  readonly sin: tf.Tensor2D;
}

interface RotaryAttrs {
  readonly heads: number;
  readonly sign: 1 | -1;
}

/**
 * Rotates the leading `rot` channels of every head; the others pass. x: (T, heads * size); positions: (T) int32, rows of the tables.
 * The attention factor is in the tables, so the gradient is the rotation by the negative angle with the same factor.
 */
export function rotary(x: tf.Tensor2D, tables: RotaryTables, positions: tf.Tensor1D, heads: number): tf.Tensor2D {
  const turn = (t: tf.Tensor, [cos, sin, rows]: readonly tf.Tensor[], sign: 1 | -1): tf.Tensor =>
    hasFused(ROTARY)
      ? runFused(ROTARY, { x: t, cos: cos!, sin: sin!, positions: rows! }, { heads, sign })
      : plainRotary(t as tf.Tensor2D, { cos: cos as tf.Tensor2D, sin: sin as tf.Tensor2D }, rows as tf.Tensor1D, heads, sign);
  const saved = [tables.cos, tables.sin, positions];
  return withGradient(
    [x],
    () => ({ value: turn(x, saved, 1), saved }),
    (dy, kept) => turn(dy, kept, -1),
  ) as tf.Tensor2D;
}

export function plainRotary(x: tf.Tensor2D, { cos, sin }: RotaryTables, positions: tf.Tensor1D, heads: number, sign: 1 | -1 = 1): tf.Tensor2D {
  return tf.tidy(() => {
    const tokens = x.shape[0];
    const size = x.shape[1] / heads;
    const half = cos.shape[1];
    const all = tf.reshape(x, [tokens, heads, size]);
    const [a, b] = [tf.slice(all, [0, 0, 0], [tokens, heads, half]), tf.slice(all, [0, 0, half], [tokens, heads, half])];
    const [c, s] = [cos, sin].map((t) => tf.expandDims(tf.gather(t, positions), 1)) as [tf.Tensor3D, tf.Tensor3D];
    const signed = tf.mul(s, sign);
    const parts = [tf.sub(tf.mul(a, c), tf.mul(b, signed)), tf.add(tf.mul(b, c), tf.mul(a, signed))];
    if (2 * half < size) parts.push(tf.slice(all, [0, 0, 2 * half], [tokens, heads, size - 2 * half]));
    return tf.reshape(tf.concat(parts, 2), [tokens, heads * size]);
  });
}

const ROTARY = 'PithRotary';

export const rotaryKernels: readonly FusedKernel[] = [
  fusedKernel<RotaryAttrs>(ROTARY, (h, { x, cos, sin, positions }, { heads, sign }) => {
    const [tokens, width] = x!.shape as [number, number];
    const y = h.output([tokens, width]);
    h.nn.rotary(h.at(x!), h.at(cos!), h.at(sin!), h.at(positions!), h.at(y), tokens, heads, width / heads, 2 * cos!.shape[1]!, sign);
    return y;
  }),
];
