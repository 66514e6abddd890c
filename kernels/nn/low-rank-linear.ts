/**
 * y = x (W + s B A)^T with a frozen W (Hu et al. 2021, arXiv 2106.09685): the low-rank product is added where W's lies, and its gradients
 * take two thin products each. The gradient goes to x, A and B.
 */
import * as tf from '#tf';
import { frozenLinear, heapProduct, type LinearAttrs } from './frozen-linear.js';
import type { FrozenMatrix } from './frozen-matrix.js';
import { fusedKernel, hasFused, runFusedAll, withGradient, type FusedKernel, type Heap, type Inputs } from './heap.js';

interface LowRankAttrs extends LinearAttrs {
  readonly scale: number;
}

/** x: (T, in); w: (out, in), or (in, out) when `transposed`; a: (r, in); b: (out, r). Gives (T, out), without a bias. */
export function lowRankLinear(x: tf.Tensor2D, w: FrozenMatrix, a: tf.Tensor2D, b: tf.Tensor2D, scale: number, transposed = false): tf.Tensor2D {
  if (!hasFused(FORWARD)) return tf.add(frozenLinear(x, w, undefined, transposed), lowRankProduct(x, a, b, scale));
  const attrs: LowRankAttrs = { matrix: w, transposed, scale };
  return withGradient(
    [x, a, b],
    () => {
      const [value, u] = runFusedAll(FORWARD, { x, a, b }, attrs);
      return { value: value!, saved: [x, a, b, u!] };
    },
    (dy, [x1, a1, b1, u]) => runFusedAll(BACKWARD, { x: x1!, a: a1!, b: b1!, u: u!, dy }, attrs),
  ) as tf.Tensor2D;
}

/** s (x A^T) B^T alone. */
export function lowRankProduct(x: tf.Tensor2D, a: tf.Tensor2D, b: tf.Tensor2D, scale: number): tf.Tensor2D {
  return tf.mul(tf.matMul(tf.matMul(x, a, false, true), b, false, true), scale);
}

const FORWARD = 'PithLowRankLinear';
const BACKWARD = 'PithLowRankLinearGrad';

const viewOf = (h: Heap, t: tf.TensorInfo): Float32Array => h.values(h.at(t), t.shape[0]! * t.shape[1]!);

// u = x A^T; y = x W^T + s u B^T
function forward(h: Heap, { x, a, b }: Inputs, { scale, ...linear }: LowRankAttrs): tf.TensorInfo[] {
  const [tokens, inner] = x!.shape as [number, number];
  const [out, rank] = b!.shape as [number, number];
  const y = heapProduct(h, x!, linear);
  const u = h.output([tokens, rank]);
  h.blas!.sgemm(false, true, tokens, rank, inner, 1, viewOf(h, x!), inner, viewOf(h, a!), inner, 0, viewOf(h, u), rank);
  h.blas!.sgemm(false, true, tokens, out, rank, scale, viewOf(h, u), rank, viewOf(h, b!), rank, 1, viewOf(h, y), out);
  return [y, u];
}

// v = s dy B; dx = dy W + v A; dA = v^T x; dB = s dy^T u
function backward(h: Heap, { x, a, b, u, dy }: Inputs, { scale, matrix, transposed }: LowRankAttrs): tf.TensorInfo[] {
  const [tokens, inner] = x!.shape as [number, number];
  const [out, rank] = b!.shape as [number, number];
  const dx = heapProduct(h, dy!, { matrix, transposed: !transposed });
  const [v, da, db] = [h.output([tokens, rank]), h.output([rank, inner]), h.output([out, rank])];
  const [dys, us, vs] = [viewOf(h, dy!), viewOf(h, u!), viewOf(h, v)];
  h.blas!.sgemm(false, false, tokens, rank, out, scale, dys, out, viewOf(h, b!), rank, 0, vs, rank);
  h.blas!.sgemm(false, false, tokens, inner, rank, 1, vs, rank, viewOf(h, a!), inner, 1, viewOf(h, dx), inner);
  h.blas!.sgemm(true, false, rank, inner, tokens, 1, vs, rank, viewOf(h, x!), inner, 0, viewOf(h, da), inner);
  h.blas!.sgemm(true, false, out, rank, tokens, scale, dys, out, us, rank, 0, viewOf(h, db), rank);
  h.free(v);
  return [dx, da, db];
}

export const lowRankKernels: readonly FusedKernel[] = [fusedKernel<LowRankAttrs>(FORWARD, forward, true), fusedKernel<LowRankAttrs>(BACKWARD, backward, true)];
