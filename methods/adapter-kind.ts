/**
 * What an adapter states of itself. Everything follows from `weight`: forward, merging, saving, counts and tests; `forward` is the same, cheaper.
 * Trainable and frozen tensors live on the host in f32 between steps; the training loop lends them to these functions as tensors of the device.
 */
import type * as tf from '#tf';
import type { FrozenMatrix } from '../kernels/nn/frozen-matrix.js';
import type { Ctx } from './define.js';

/** A linear layer that an adapter may sit on: y = x W^T + b, W (out, in). */
export interface AdaptedLayer {
  /** Path in the model, without `.weight`. */
  readonly module: string;
  readonly out: number;
  readonly in: number;
  readonly bias: boolean;
}

/** Its frozen weights: W outside the device's heap in its storage type, stored as (in, out) when `transposed`; b (out) on the device. */
export interface FrozenLinear {
  readonly matrix: FrozenMatrix;
  readonly transposed: boolean;
  readonly bias: tf.Tensor1D | undefined;
}

/** Trainable and frozen tensors of one layer, by local names that differ. */
export type ParamTree = Readonly<Record<string, tf.Tensor>>;
/** The same on the host. */
export type HostTree = Readonly<Record<string, Float32Array>>;

export interface ParamSpec {
  readonly shape: readonly number[];
  /** Its learning rate is that many times the run's; 1 by default. */
  readonly rate?: number;
  /** Weight decay applies; true by default, false suits gains and biases. */
  readonly decay?: boolean;
}

export interface LayerPlan {
  readonly trainable: Readonly<Record<string, ParamSpec>>;
  readonly frozen?: Readonly<Record<string, { readonly shape: readonly number[] }>>;
}

/** What of a pass through the model `forward` may use. */
export interface Pass {
  /** Zeros a share of x and scales the rest up while training; the same values when the block is computed again; x itself otherwise. */
  dropout(x: tf.Tensor2D, rate: number): tf.Tensor2D;
}

/** dW = b a with a: (rank, in), b: (out, rank), the scale in b. */
export interface LoraFactors {
  readonly a: Float32Array;
  readonly b: Float32Array;
  readonly rank: number;
}

/** A layer as allocators, masks and freezing rules see it: the arrays are the run's own, changed in place. */
export interface RuleLayer {
  readonly layer: AdaptedLayer;
  readonly values: HostTree;
  readonly grads: HostTree;
  readonly frozen: HostTree;
}

/** A rule over all layers together, alive for one run. Steps count from 1. */
export interface TrainingRule {
  /** After the backward pass, before clipping and the optimizer. */
  onGrad?(step: number): void;
  /** After the optimizer. */
  onStep?(step: number): void;
  /** What it needs to go on after a stop: saved with the optimizer's state, and filled again before the first step. */
  readonly state: HostTree;
}

export interface PeftForm {
  /** `peft_type`. */
  readonly type: string;
  /** Trainable or frozen tensor -> what its key ends with behind the module's path. */
  readonly keys: Readonly<Record<string, string>>;
  /** Fields of adapter_config.json beside the common ones. `transposed`: layers are Conv1D; `targets`: target_modules as they are written. */
  config(layers: readonly AdaptedLayer[], transposed: boolean, targets: readonly string[]): Readonly<Record<string, unknown>>;
}

export interface WeightAdapter {
  /** Target modules where the user names none: `all-linear`, or endings of paths. */
  readonly targets: 'all-linear' | readonly string[];
  /** Tensors of a layer, from its shape alone; a text says why it can take none: the layer is left out. */
  plan(layer: AdaptedLayer): LayerPlan | string;
  /** Values of every tensor of the plan at the start: W' = W then. `c.rng` is the layer's own stream. */
  init(c: Ctx, layer: AdaptedLayer, base: FrozenLinear): Promise<{ readonly trainable: HostTree; readonly frozen: HostTree }>;
  /** W' (out, in) from W (out, in). */
  weight(w: tf.Tensor2D, p: ParamTree, layer: AdaptedLayer): tf.Tensor2D;
  /** b' where it is not b; undefined: none. */
  bias?(b: tf.Tensor1D | undefined, p: ParamTree, layer: AdaptedLayer): tf.Tensor1D | undefined;
  /** x W'^T + b', cheaper than through `weight`. x: (T, in). Gives (T, out). */
  forward?(x: tf.Tensor2D, base: FrozenLinear, p: ParamTree, layer: AdaptedLayer, pass: Pass): tf.Tensor2D;
  /** Exact factors of dW, where its rank is bounded by construction. */
  toLora?(p: HostTree, layer: AdaptedLayer): LoraFactors;
  /** A scalar of the layer's tensors that is added to the loss. */
  extraLoss?(p: ParamTree, layer: AdaptedLayer): tf.Scalar;
  rule?(layers: readonly RuleLayer[], steps: number): TrainingRule;
  /** How peft names and shapes the same; absent: saved in pith's own form. */
  readonly peft?: PeftForm;
}

/** Trainable scalars of a layer. */
export function countParams(plan: LayerPlan): number {
  return Object.values(plan.trainable).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
}
