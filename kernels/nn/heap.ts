/** The wasm backend's heap as the fused kernels see it: pointers to tensors, outputs, scratch. */
import * as tf from '#tf';
import type { Blas } from '../backend/blas.js';

export interface WasmBackend {
  readonly wasm: {
    readonly HEAPU8: Uint8Array;
    readonly asm: Readonly<Record<string, unknown>>;
    _malloc(bytes: number): number;
    _free(pointer: number): void;
  };
  readonly dataIdMap: { get(id: object): { readonly memoryOffset: number } };
  makeOutput(shape: number[], dtype: 'float32' | 'int32' | 'bool'): tf.TensorInfo;
}

/** What kernels/wasm/assembly/nn.ts exports; all arguments are byte positions in the heap or plain numbers. */
export interface NnExports {
  rmsNorm(x: number, w: number, y: number, r: number, rows: number, n: number, eps: number, offset: number): void;
  rmsNormGrad(x: number, w: number, dy: number, r: number, dx: number, dw: number, rows: number, n: number, offset: number): void;
  layerNorm(x: number, w: number, b: number, y: number, means: number, r: number, rows: number, n: number, eps: number): void;
  layerNormGrad(x: number, w: number, dy: number, means: number, r: number, dx: number, dw: number, db: number, rows: number, n: number): void;
  rotary(x: number, cos: number, sin: number, positions: number, y: number, tokens: number, heads: number, size: number, rot: number, sign: number): void;
  softmaxRows(
    s: number,
    rows: number,
    keys: number,
    first: number,
    causal: number,
    window: number,
    cap: number,
    scale: number,
    mask: number,
    lse: number,
    inv: number,
  ): void;
  softmaxRowsGrad(
    s: number,
    dp: number,
    rows: number,
    keys: number,
    first: number,
    causal: number,
    window: number,
    cap: number,
    scale: number,
    mask: number,
    lse: number,
    d: number,
  ): void;
  copyRows(from: number, fromStride: number, to: number, toStride: number, rows: number, n: number, factor: number): void;
  rowDots(a: number, b: number, out: number, rows: number, n: number, stride: number): void;
  activation(x: number, y: number, n: number, kind: number): void;
  activationGrad(x: number, dy: number, dx: number, n: number, kind: number): void;
  gated(gate: number, up: number, y: number, n: number, kind: number): void;
  gatedGrad(gate: number, up: number, dy: number, dgate: number, dup: number, n: number, kind: number): void;
  logSumExpRows(z: number, targets: number, lse: number, picked: number, rows: number, n: number, cap: number): void;
  crossEntropyGradRows(z: number, targets: number, lse: number, weight: number, rows: number, n: number, cap: number): void;
  panelSums(z: number, targets: number, out: number, rows: number, n: number): void;
  panelDivergence(z: number, r: number, zSums: number, rSums: number, out: number, rows: number, n: number): void;
  widenBf16(from: number, out: number, n: number): void;
  axpy(x: number, y: number, a: number, n: number): void;
  addRow(y: number, b: number, rows: number, n: number): void;
  columnSums(x: number, squares: number, absolutes: number, rows: number, n: number): void;
}

/** Values of a panel of frozen weights that is decoded at a time: 4 MiB in f32, about what a core's cache holds. */
export const PANEL_VALUES = 1 << 20;

export class Heap {
  #scratch = { pointer: 0, bytes: 0 };

  constructor(
    readonly backend: WasmBackend,
    readonly nn: NnExports,
    readonly blas: Blas | undefined,
  ) {}

  at(t: tf.TensorInfo): number {
    return this.backend.dataIdMap.get(t.dataId).memoryOffset;
  }

  output(shape: readonly number[]): tf.TensorInfo {
    return this.backend.makeOutput([...shape], 'float32');
  }

  zeros(shape: readonly number[]): tf.TensorInfo {
    const t = this.output(shape);
    this.values(this.at(t), tf.util.sizeFromShape([...shape])).fill(0);
    return t;
  }

  /** An output of a kernel that nobody is given. */
  free(t: tf.TensorInfo): void {
    (this.backend as unknown as { disposeData(id: object): boolean }).disposeData(t.dataId);
  }

  /** `n` values from a byte position on; valid until something is allocated. */
  values(pointer: number, n: number): Float32Array {
    return new Float32Array(this.backend.wasm.HEAPU8.buffer, pointer, n);
  }

  /** Bytes that stay the thread's: their contents last until the next call. */
  scratch(bytes: number): number {
    if (this.#scratch.bytes < bytes) {
      if (this.#scratch.pointer !== 0) this.backend.wasm._free(this.#scratch.pointer);
      const pointer = this.backend.wasm._malloc(bytes) >>> 0;
      if (pointer === 0) throw new Error(`the wasm heap has no ${bytes} bytes left`);
      this.#scratch = { pointer, bytes };
    }
    return this.#scratch.pointer;
  }
}

export type Inputs = Readonly<Record<string, tf.TensorInfo | undefined>>;
export type KernelBody<Attrs> = (heap: Heap, inputs: Inputs, attrs: Attrs) => tf.TensorInfo | tf.TensorInfo[];

/** A fused kernel of the wasm backend, under a name of its own. */
export interface FusedKernel {
  readonly name: string;
  /** It needs the machine's BLAS. */
  readonly blas: boolean;
  readonly body: KernelBody<never>;
}

export function fusedKernel<Attrs>(name: string, body: KernelBody<Attrs>, blas = false): FusedKernel {
  return { name, blas, body: body };
}

/** Whether the backend in use has the kernel; without it an operation is composed of tfjs's own. */
export function hasFused(name: string): boolean {
  return isRegistered(name, tf.getBackend());
}

/** tfjs declares that there is always a kernel. */
export function isRegistered(name: string, backend: string): boolean {
  return (tf.getKernel(name, backend) as tf.KernelConfig | undefined) !== undefined;
}

/** Runs a fused kernel inside a custom gradient. */
export function runFused(name: string, inputs: Readonly<Record<string, tf.Tensor>>, attrs: object = {}): tf.Tensor {
  return tf.engine().runKernel(name, inputs, attrs as tf.NamedAttrMap);
}

/** The same for a kernel of several outputs. */
export function runFusedAll(name: string, inputs: Readonly<Record<string, tf.Tensor>>, attrs: object = {}): tf.Tensor[] {
  return tf.engine().runKernel(name, inputs, attrs as tf.NamedAttrMap) as unknown as tf.Tensor[];
}

/** What an operation computes, and what its gradient will need. */
export interface Forward {
  readonly value: tf.Tensor;
  readonly saved: readonly tf.Tensor[];
}

/** An operation with a gradient of its own; `backward` gives one gradient an input, in order. */
export function withGradient(
  inputs: readonly tf.Tensor[],
  forward: () => Forward,
  backward: (dy: tf.Tensor, saved: readonly tf.Tensor[]) => tf.Tensor | tf.Tensor[],
): tf.Tensor {
  const op = tf.customGrad((...given) => {
    const { value, saved } = forward();
    (given.at(-1) as tf.GradSaveFunc)([...saved]);
    return { value, gradFunc: backward };
  });
  return op(...inputs);
}
