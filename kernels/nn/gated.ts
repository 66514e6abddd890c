/** Activations, alone and as the gate of a feed-forward layer (Shazeer 2020, arXiv 2002.05202), with gradients. */
import * as tf from '#tf';
import { ACTIVATION_KINDS, type ActivationKind } from './activations.js';
import { fusedKernel, hasFused, runFused, runFusedAll, withGradient, type FusedKernel } from './heap.js';

interface KindAttrs {
  readonly kind: number;
}
/** The numbers of kernels/wasm/assembly/nn.ts. */
const kindOf = (kind: ActivationKind): number => ACTIVATION_KINDS.indexOf(kind);

/** act(x). */
export function activation(x: tf.Tensor2D, kind: ActivationKind): tf.Tensor2D {
  if (!hasFused(ACT)) return plainActivation(x, kind);
  return withGradient(
    [x],
    () => ({ value: runFused(ACT, { x }, { kind: kindOf(kind) }), saved: [x] }),
    (dy, [x1]) => runFused(ACT_GRAD, { x: x1!, dy }, { kind: kindOf(kind) }),
  ) as tf.Tensor2D;
}

/** act(gate) * up, both of one shape. */
export function gatedActivation(gate: tf.Tensor2D, up: tf.Tensor2D, kind: ActivationKind): tf.Tensor2D {
  if (!hasFused(GATED)) return tf.tidy(() => tf.mul(plainActivation(gate, kind), up));
  return withGradient(
    [gate, up],
    () => ({ value: runFused(GATED, { gate, up }, { kind: kindOf(kind) }), saved: [gate, up] }),
    (dy, [g, u]) => runFusedAll(GATED_GRAD, { gate: g!, up: u!, dy }, { kind: kindOf(kind) }),
  ) as tf.Tensor2D;
}

export function plainActivation(x: tf.Tensor2D, kind: ActivationKind): tf.Tensor2D {
  const half = (y: tf.Tensor2D): tf.Tensor2D => tf.mul(tf.mul(x, 0.5), tf.add(y, 1));
  return tf.tidy(() => {
    switch (kind) {
      case 'silu':
        return tf.mul(x, tf.sigmoid(x));
      case 'gelu':
        return half(tf.erf(tf.mul(x, Math.SQRT1_2)));
      case 'gelu_tanh': {
        const cube = tf.mul(tf.mul(tf.square(x), x), 0.044715);
        return half(tf.tanh(tf.mul(tf.add(x, cube), Math.sqrt(2 / Math.PI))));
      }
      case 'relu':
        return tf.relu(x);
      case 'relu2':
        return tf.square(tf.relu(x));
      case 'quick_gelu':
        return tf.mul(x, tf.sigmoid(tf.mul(x, 1.702)));
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
