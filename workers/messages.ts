/** What crosses a thread: plain data only, references instead of tensors. One file for each kind of work in messages/. */
import type { WireError } from '../core/errors.js';
import type { Device } from '../core/device.js';
import type { ExtractResult, ExtractTask, FuseResult, FuseTask, ResizeResult, ResizeTask } from './messages/adapters.js';
import type {
  DecodeResult,
  DecodeTask,
  EncodeResult,
  EncodeTask,
  HashResult,
  HashTask,
  RatesResult,
  RatesTask,
  RemainderResult,
  RemainderTask,
} from './messages/delta.js';
import type { FactorizeResult, FactorizeTask, PruneResult, PruneScoresResult, PruneScoresTask, PruneTask } from './messages/layers.js';
import type { DiffResult, DiffTask, IntrudersResult, IntrudersTask, SpectrumResult, SpectrumTask } from './messages/matrices.js';
import type { GenerateResult, GenerateTask, ScoreResult, ScoreTask, SentencesResult, SentencesTask } from './messages/model.js';
import type { BlockResult, EmbedResult, HeadGradientResult, ModelShapeResult, PassTask } from './messages/passes.js';
import type { Written } from './messages/refs.js';
import type { StoreGetResult, StorePutResult, StoreScanResult, StoreTask } from './messages/store.js';
import type { TrainEvalResult, TrainOpenResult, TrainStepResult, TrainTask } from './messages/train.js';

/** Sets up a backend and measures it: what doctor asks. */
export interface ProbeTask {
  readonly type: 'probe';
  readonly device: Device;
  readonly blas: boolean;
  /** BLAS threads. */
  readonly threads: number;
}

export interface ProbeResult {
  readonly found: boolean;
  readonly software: boolean;
  readonly description: string;
  /** Why it was not found. */
  readonly message?: string;
  readonly gflops?: number;
  readonly gbPerSecond?: number;
  readonly maxError?: number;
}

export interface TaskResults {
  'train-open': TrainOpenResult;
  'train-step': TrainStepResult;
  'train-eval': TrainEvalResult;
  'train-state': Written;
  'train-sample': Int32Array;
  'train-adapter': { readonly peft: boolean };
  'train-merge': null;
  encode: EncodeResult;
  rates: readonly RatesResult[];
  remainder: RemainderResult;
  decode: DecodeResult;
  hash: HashResult;
  diff: DiffResult;
  probe: ProbeResult;
  spectrum: SpectrumResult;
  intruders: IntrudersResult;
  extract: ExtractResult;
  fuse: FuseResult;
  resize: ResizeResult;
  factorize: FactorizeResult;
  prune: PruneResult;
  'prune-scores': PruneScoresResult;
  score: ScoreResult;
  sentences: SentencesResult;
  generate: GenerateResult;
  'model-shape': ModelShapeResult;
  embed: EmbedResult;
  block: BlockResult;
  'head-gradient': HeadGradientResult;
  'block-gradient': BlockResult;
  'store-scan': StoreScanResult;
  'store-put': StorePutResult;
  'store-get': StoreGetResult;
}

export type Task =
  | EncodeTask
  | RatesTask
  | RemainderTask
  | DecodeTask
  | HashTask
  | DiffTask
  | ProbeTask
  | SpectrumTask
  | IntrudersTask
  | ExtractTask
  | FuseTask
  | ResizeTask
  | FactorizeTask
  | PruneTask
  | PruneScoresTask
  | ScoreTask
  | SentencesTask
  | GenerateTask
  | PassTask
  | TrainTask
  | StoreTask;

export type ResultOf<T extends Task> = TaskResults[T['type']];

export interface Envelope {
  readonly task: Task;
  /** Shared with the main thread: [0] cancel flag. */
  readonly cancel: Int32Array;
  /** Shared with the main thread: [0] bytes done by all threads. */
  readonly progress: BigInt64Array;
}

export type Reply = { readonly ok: unknown } | { readonly error: WireError };
