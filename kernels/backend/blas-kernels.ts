/**
 * BatchMatMul and _FusedMatMul of the tfjs wasm backend on the machine's BLAS: cblas_sgemm straight on the wasm heap.
 * The heap moves when it grows, so views are taken anew after the output is allocated.
 */
import * as tf from '#tf';
import type { Blas } from './blas.js';

interface WasmBackend {
  readonly wasm: { readonly HEAPU8: Uint8Array };
  readonly dataIdMap: { get(id: object): { readonly memoryOffset: number } };
  makeOutput(shape: number[], dtype: 'float32'): tf.TensorInfo;
}
interface MatMulAttrs {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  readonly activation?: string;
  readonly leakyreluAlpha?: number;
}

const KERNELS = ['BatchMatMul', '_FusedMatMul'] as const;
/** tfjs's own kernels, to go back to. */
const plain = new Map<string, tf.KernelConfig>();

/** The wasm backend's own kernels again. */
export function usePlain(): void {
  for (const [kernelName, config] of plain) {
    tf.unregisterKernel(kernelName, 'wasm');
    tf.registerKernel(config);
  }
  plain.clear();
}

/** Replaces the two kernels; the others stay as they are. */
export function useBlas(blas: Blas): void {
  if (plain.size > 0) return;
  for (const kernelName of KERNELS) {
    plain.set(kernelName, tf.getKernel(kernelName, 'wasm'));
    tf.unregisterKernel(kernelName, 'wasm');
    tf.registerKernel({
      kernelName,
      backendName: 'wasm',
      kernelFunc: ({ inputs, attrs, backend }) => matMul(blas, backend as WasmBackend, inputs, attrs as unknown as MatMulAttrs),
    });
  }
}

function matMul(blas: Blas, backend: WasmBackend, inputs: tf.NamedTensorInfoMap, attrs: MatMulAttrs): tf.TensorInfo {
  const [a, b] = [inputs['a']!, inputs['b']!];
  const { transposeA, transposeB } = attrs;
  const [m, k] = ends(a.shape, transposeA);
  const [kb, n] = ends(b.shape, transposeB);
  tf.util.assert(k === kb, () => `matMul: inner sides ${k} and ${kb} of ${a.shape.join('x')} and ${b.shape.join('x')} differ`);
  const outer = tf.broadcast_util.assertAndGetBroadcastShape(a.shape.slice(0, -2), b.shape.slice(0, -2));
  const out = backend.makeOutput([...outer, m, n], 'float32');
  const view = (t: tf.TensorInfo): Float32Array =>
    new Float32Array(backend.wasm.HEAPU8.buffer, backend.dataIdMap.get(t.dataId).memoryOffset, tf.util.sizeFromShape(t.shape));
  const [va, vb, vc] = [view(a), view(b), view(out)];
  if (k === 0) vc.fill(0);
  const batches = tf.util.sizeFromShape(outer);
  for (let i = 0; i < batches && m * n * k > 0; i++) {
    const from = batchOf(i, outer, a.shape.slice(0, -2)) * m * k;
    const with_ = batchOf(i, outer, b.shape.slice(0, -2)) * k * n;
    const to = vc.subarray(i * m * n, (i + 1) * m * n);
    blas.sgemm(
      transposeA,
      transposeB,
      m,
      n,
      k,
      1,
      va.subarray(from, from + m * k),
      transposeA ? m : k,
      vb.subarray(with_, with_ + k * n),
      transposeB ? k : n,
      0,
      to,
      n,
    );
  }
  const bias = inputs['bias'];
  const prelu = inputs['preluActivationWeights'];
  finish(vc, bias === undefined ? undefined : view(bias), activationOf(attrs, prelu === undefined ? undefined : view(prelu)));
  return out;
}

const ends = (shape: readonly number[], transposed: boolean): [rows: number, columns: number] => {
  const [r, c] = [shape.at(-2)!, shape.at(-1)!];
  return transposed ? [c, r] : [r, c];
};

/** Index of the operand's matrix for the output's `i`-th one: dimensions of 1 repeat. */
function batchOf(i: number, outer: readonly number[], own: readonly number[]): number {
  let [at, stride] = [0, 1];
  for (let d = outer.length - 1, left = i; d >= 0; d--) {
    const index = left % outer[d]!;
    left = Math.floor(left / outer[d]!);
    const size = own[d - (outer.length - own.length)];
    if (size === undefined) break;
    if (size > 1) at += index * stride;
    stride *= size;
  }
  return at;
}

/** value and its column -> value */
type Activation = (v: number, column: number) => number;

function activationOf(attrs: MatMulAttrs, prelu: Float32Array | undefined): Activation | undefined {
  const alpha = attrs.leakyreluAlpha ?? 0.2;
  switch (attrs.activation ?? 'linear') {
    case 'linear':
      return undefined;
    case 'relu':
      return (v) => (v < 0 ? 0 : v);
    case 'relu6':
      return (v) => Math.min(6, v < 0 ? 0 : v);
    case 'elu':
      return (v) => (v >= 0 ? v : Math.expm1(v));
    case 'leakyrelu':
      return (v) => (v < 0 ? alpha * v : v);
    case 'prelu':
      return (v, column) => (v < 0 ? prelu![prelu!.length === 1 ? 0 : column % prelu!.length]! * v : v);
    case 'sigmoid':
      return (v) => 1 / (1 + Math.exp(-v));
    default:
      throw new Error(`_FusedMatMul: activation ${attrs.activation ?? ''} is not supported`);
  }
}

/** c = activation(c + bias), the bias along the columns. */
function finish(c: Float32Array, bias: Float32Array | undefined, activation: Activation | undefined): void {
  const columns = bias?.length ?? 1;
  if (bias !== undefined) for (let i = 0; i < c.length; i += columns) for (let j = 0; j < columns; j++) c[i + j] = c[i + j]! + bias[j]!;
  if (activation !== undefined) for (let i = 0; i < c.length; i++) c[i] = activation(c[i]!, i);
}
