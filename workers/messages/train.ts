/** Training, on the model that the thread holds open. */
import type { OptimizerSettings } from '../../kernels/optim/optimizers.js';
import type { FilePlace, MethodRef, ModelRef, RunSettings } from './refs.js';

/** Opens a model to be trained; it stays open in the thread until another one is, or `train-close`. */
export interface TrainOpenTask {
  readonly type: 'train-open';
  readonly settings: RunSettings;
  readonly model: ModelRef;
  readonly method: MethodRef;
  readonly recipe: MethodRef;
  /** Linear layers that get an adapter. */
  readonly targets: readonly string[];
  readonly optimizer: OptimizerSettings;
  readonly steps: number;
  /** State of an earlier run. */
  readonly start?: string;
}

export interface TrainOpenResult {
  readonly trainable: number;
  /** Layers that the method adapts. */
  readonly modules: readonly string[];
}

/** A batch of windows of one length; every array is (rows * columns). */
export interface TrainBatch {
  readonly rows: number;
  readonly columns: number;
  readonly inputs: Int32Array;
  /** The next token where it is learnt; below 0 elsewhere. */
  readonly targets: Int32Array;
  readonly segments: Int32Array;
  readonly positions: Int32Array;
  /** How much each target counts, 1 as a rule. */
  readonly weights: Float32Array;
}

/** One step of the optimizer over all batches together. */
export interface TrainStepTask {
  readonly type: 'train-step';
  readonly batches: readonly TrainBatch[];
  readonly step: number;
  readonly rate: number;
  /** Largest norm of the gradients; 0: any. */
  readonly clip: number;
}

export interface TrainStepResult {
  /** Mean over the learnt tokens, nats. */
  readonly loss: number;
  readonly gradNorm: number;
  readonly tokens: number;
  /** A batch whose loss is not finite, or -1 when only the gradients are not: nothing was changed. */
  readonly badBatch?: number;
}

export interface TrainEvalTask {
  readonly type: 'train-eval';
  readonly batches: readonly TrainBatch[];
}

export interface TrainEvalResult {
  /** Mean, nats. */
  readonly loss: number;
  readonly tokens: number;
}

/** Writes, or with `load` reads, everything that a run goes on from. */
export interface TrainStateTask {
  readonly type: 'train-state';
  readonly file: string;
  readonly load?: true;
}

export interface TrainSampleTask {
  readonly type: 'train-sample';
  readonly ids: Int32Array;
  readonly tokens: number;
  readonly stop: readonly number[];
}

/** Writes the adapter: peft's folder where the method has such a form, else pith's own files. */
export interface TrainAdapterTask {
  readonly type: 'train-adapter';
  readonly folder: string;
  readonly base: string;
  readonly taskType: string | null;
  /** Path in memory of every module, as peft names it. */
  readonly paths: Readonly<Record<string, string>>;
  readonly targetModules: readonly string[];
}

/** Merged tensors to their places, in their types. */
export interface TrainMergeTask {
  readonly type: 'train-merge';
  readonly tensors: readonly { readonly module: string; readonly part: 'weight' | 'bias'; readonly dtype: 'BF16' | 'F16' | 'F32'; readonly place: FilePlace }[];
}

/** Tasks on the model that the thread holds open to be trained. */
export type TrainTask = TrainOpenTask | TrainStepTask | TrainEvalTask | TrainStateTask | TrainSampleTask | TrainAdapterTask | TrainMergeTask;
