/** Activations, alone and as the gate of a feed-forward layer (Shazeer 2020, arXiv 2002.05202), with gradients. */
import * as tf from '#tf';
import { fusedKernel, hasFused, runFused, type FusedKernel } from './heap.js';

/** Order of the kinds in kernels/wasm/assembly/nn.ts. */
const KINDS = ['silu', 'gelu', 'gelu_tanh', 'relu', 'relu2', 'quick_gelu', 'tanh', 'identity'] as const;
export type ActivationKind = (typeof KINDS)[number];

interface KindAttrs {
  readonly kind: number;
}
const kindOf = (kind: ActivationKind): number => KINDS.indexOf(kind);

/** act(x), any shape. */
export function activation<T extends tf.Tensor>(x: T, kind: ActivationKind): T {
  if (!hasFused(ACT)) return plainActivation(x, kind);
  const op = tf.customGrad((x_, save) => {
    (save as tf.GradSaveFunc)([x_ as tf.Tensor]);
    return {
      value: runFused<tf.Tensor>(ACT, { x: x_ as tf.Tensor }, { kind: kindOf(kind) }),
      gradFunc: (dy: tf.Tensor, [x1]: tf.Tensor[]) => runFused<tf.Tensor>(ACT_GRAD, { x: x1!, dy }, { kind: kindOf(kind) }),
    };
  });
  return op(x) as T;
}

/** act(gate) * up, both of one shape. */
export function gatedActivation(gate: tf.Tensor2D, up: tf.Tensor2D, kind: ActivationKind): tf.Tensor2D {
  if (!hasFused(GATED)) return tf.tidy(() => tf.mul(plainActivation(gate, kind), up));
  const op = tf.customGrad((g_, u_, save) => {
    const [g, u] = [g_ as tf.Tensor, u_ as tf.Tensor];
    (save as tf.GradSaveFunc)([g, u]);
    return {
      value: runFused<tf.Tensor>(GATED, { gate: g, up: u }, { kind: kindOf(kind) }),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => runFused<tf.Tensor[]>(GATED_GRAD, { gate: saved[0]!, up: saved[1]!, dy }, { kind: kindOf(kind) }),
    };
  });
  return op(gate, up) as tf.Tensor2D;
}

export function plainActivation<T extends tf.Tensor>(x: T, kind: ActivationKind): T {
  return tf.tidy(() => {
    switch (kind) {
      case 'silu':
        return tf.mul(x, tf.sigmoid(x)) as T;
      case 'gelu':
        return tf.mul(tf.mul(x, 0.5), tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1)) as T;
      case 'gelu_tanh': {
        const inner = tf.mul(tf.add(x, tf.mul(tf.mul(tf.square(x), x), 0.044715)), Math.sqrt(2 / Math.PI));
        return tf.mul(tf.mul(x, 0.5), tf.add(tf.tanh(inner), 1)) as T;
      }
      case 'relu':
        return tf.relu(x);
      case 'relu2':
        return tf.square(tf.relu(x));
      case 'quick_gelu':
        return tf.mul(x, tf.sigmoid(tf.mul(x, 1.702))) as T;
      case 'tanh':
        return tf.tanh(x);
      case 'identity':
        return tf.clone(x);
    }
  });
}

const ACT = 'PithActivation';
const ACT_GRAD = 'PithActivationGrad';
const GATED = 'PithGated';
const GATED_GRAD = 'PithGatedGrad';

const size = (t: tf.TensorInfo): number => tf.util.sizeFromShape(t.shape);

export const gatedKernels: readonly FusedKernel[] = [
  fusedKernel<KindAttrs>(ACT, (h, { x }, { kind }) => {
    const y = h.output(x!.shape);
    h.nn.activation(h.at(x!), h.at(y), size(x!), kind);
    return y;
  }),
  fusedKernel<KindAttrs>(ACT_GRAD, (h, { x, dy }, { kind }) => {
    const dx = h.output(x!.shape);
    h.nn.activationGrad(h.at(x!), h.at(dy!), h.at(dx), size(x!), kind);
    return dx;
  }),
  fusedKernel<KindAttrs>(GATED, (h, { gate, up }, { kind }) => {
    const y = h.output(gate!.shape);
    h.nn.gated(h.at(gate!), h.at(up!), h.at(y), size(y), kind);
    return y;
  }),
  fusedKernel<KindAttrs>(GATED_GRAD, (h, { gate, up, dy }, { kind }) => {
    const [dgate, dup] = [h.output(gate!.shape), h.output(gate!.shape)];
    h.nn.gatedGrad(h.at(gate!), h.at(up!), h.at(dy!), h.at(dgate), h.at(dup), size(dy!), kind);
    return [dgate, dup];
  }),
];
