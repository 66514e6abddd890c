/** RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467) and LayerNorm (Ba et al. 2016, arXiv 1607.06450) over the last axis, with gradients. */
import * as tf from '#tf';
import { fusedKernel, hasFused, runFusedAll, withGradient, type FusedKernel } from './heap.js';

interface RmsAttrs {
  readonly eps: number;
  /** 0: gain w; 1: gain 1 + w, as Gemma stores it. */
  readonly offset: number;
}

/** y = x (mean x^2 + eps)^-1/2 (offset + w). x: (T, n), w: (n). */
export function rmsNorm(x: tf.Tensor2D, w: tf.Tensor1D, eps: number, offset: 0 | 1 = 0): tf.Tensor2D {
  if (!hasFused(RMS)) return plainRmsNorm(x, w, eps, offset);
  return withGradient(
    [x, w],
    () => {
      const [value, r] = runFusedAll(RMS, { x, w }, { eps, offset });
      return { value: value!, saved: [x, w, r!] };
    },
    (dy, [x1, w1, r]) => runFusedAll(RMS_GRAD, { x: x1!, w: w1!, dy, r: r! }, { offset }),
  ) as tf.Tensor2D;
}

/** The same in tfjs operations: what other backends run, and the test's oracle. */
export function plainRmsNorm(x: tf.Tensor2D, w: tf.Tensor1D, eps: number, offset: 0 | 1 = 0): tf.Tensor2D {
  return tf.tidy(() => {
    const r = tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), eps));
    return tf.mul<tf.Tensor2D>(tf.mul(x, r), offset === 0 ? w : tf.add(w, 1));
  });
}

/** y = (x - mean) (var + eps)^-1/2 w + b. x: (T, n); w, b: (n). */
export function layerNorm(x: tf.Tensor2D, w: tf.Tensor1D, b: tf.Tensor1D, eps: number): tf.Tensor2D {
  if (!hasFused(LAYER)) return plainLayerNorm(x, w, b, eps);
  return withGradient(
    [x, w, b],
    () => {
      const [value, means, r] = runFusedAll(LAYER, { x, w, b }, { eps });
      return { value: value!, saved: [x, w, means!, r!] };
    },
    (dy, [x1, w1, means, r]) => runFusedAll(LAYER_GRAD, { x: x1!, w: w1!, dy, means: means!, r: r! }),
  ) as tf.Tensor2D;
}

export function plainLayerNorm(x: tf.Tensor2D, w: tf.Tensor1D, b: tf.Tensor1D, eps: number): tf.Tensor2D {
  return tf.tidy(() => {
    const { mean, variance } = tf.moments(x, -1, true);
    const u = tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, eps)));
    return tf.add<tf.Tensor2D>(tf.mul(u, w), b);
  });
}

const RMS = 'PithRmsNorm';
const RMS_GRAD = 'PithRmsNormGrad';
const LAYER = 'PithLayerNorm';
const LAYER_GRAD = 'PithLayerNormGrad';

export const normKernels: readonly FusedKernel[] = [
  fusedKernel<RmsAttrs>(RMS, (h, { x, w }, { eps, offset }) => {
    const [rows, n] = x!.shape as [number, number];
    const [y, r] = [h.output([rows, n]), h.output([rows])];
    h.nn.rmsNorm(h.at(x!), h.at(w!), h.at(y), h.at(r), rows, n, eps, offset);
    return [y, r];
  }),
  fusedKernel<RmsAttrs>(RMS_GRAD, (h, { x, w, dy, r }, { offset }) => {
    const [rows, n] = x!.shape as [number, number];
    const [dx, dw] = [h.output([rows, n]), h.zeros([n])];
    h.nn.rmsNormGrad(h.at(x!), h.at(w!), h.at(dy!), h.at(r!), h.at(dx), h.at(dw), rows, n, offset);
    return [dx, dw];
  }),
  fusedKernel<{ eps: number }>(LAYER, (h, { x, w, b }, { eps }) => {
    const [rows, n] = x!.shape as [number, number];
    const [y, means, r] = [h.output([rows, n]), h.output([rows]), h.output([rows])];
    h.nn.layerNorm(h.at(x!), h.at(w!), h.at(b!), h.at(y), h.at(means), h.at(r), rows, n, eps);
    return [y, means, r];
  }),
  fusedKernel(LAYER_GRAD, (h, { x, w, dy, means, r }) => {
    const [rows, n] = x!.shape as [number, number];
    const [dx, dw, db] = [h.output([rows, n]), h.zeros([n]), h.zeros([n])];
    h.nn.layerNormGrad(h.at(x!), h.at(w!), h.at(dy!), h.at(means!), h.at(r!), h.at(dx), h.at(dw), h.at(db), rows, n);
    return [dx, dw, db];
  }),
];
