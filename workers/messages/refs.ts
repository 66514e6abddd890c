/** What tasks refer to instead of carrying it: checkpoints, tensors, methods, places in files, a layer. */
import type { DType } from '../../core/dtype.js';
import type { Device } from '../../core/device.js';

/** A checkpoint as the plan saw it. A worker refuses one whose files have changed since (FILE_CHANGED). */
export interface CheckpointRef {
  readonly path: string;
  readonly stamp: string;
  /** Tensors that another checkpoint gives instead. */
  readonly replaced?: { readonly by: CheckpointRef; readonly names: readonly string[] };
}

/** A model to run: its tensors, and the config.json that says what they are. */
export interface ModelRef {
  readonly checkpoint: CheckpointRef;
  /** Parsed. */
  readonly config: unknown;
  /** What errors in it name. */
  readonly configFile: string;
}

export interface TensorRef {
  readonly checkpoint: CheckpointRef;
  readonly name: string;
}

export interface MethodRef {
  readonly name: string;
  readonly params: unknown;
}

/** Settings of the run, the same for all its tasks. */
export interface RunSettings {
  readonly seed: number;
  readonly device: Device;
  readonly blasThreads: number;
  readonly memoryBytes: number;
}

/** What a statistics file has of the layer that a tensor is the weight of. */
export interface LayerStatsRef {
  readonly file: string;
  readonly module: string;
  /** The weight is stored (in, out). */
  readonly transposed: boolean;
}

export interface SpooledPart {
  readonly part: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly sha256: string;
}

/** One layer as a pruner sees it. */
export interface LayerRef {
  readonly tensor: TensorRef;
  readonly module: string;
  /** Where the weight is as it was before fine-tuning. */
  readonly base?: CheckpointRef;
  /** Stored as (in, out). */
  readonly transposed: boolean;
  /** A statistics file. */
  readonly stats?: string;
}

/** Token sequences in a file: int32, little-endian, one after the other. */
export interface TokenFile {
  readonly file: string;
  readonly lengths: readonly number[];
}

/** Bytes that a task wrote, and their CRC-32: a run that goes on reads them again. */
export interface Written {
  readonly bytes: number;
  readonly crc32: number;
}

export interface FilePlace {
  readonly file: string;
  readonly position: number;
}
