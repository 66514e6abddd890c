/** Running a model block by block over spooled hidden states, with statistics and gradients. */
import type { FisherStatistic, InputStatistic } from '../../formats/stats/schema.js';
import type { FilePlace, ModelRef, RunSettings, TokenFile, Written } from './refs.js';

/** A safetensors file whose tensors take the place of the checkpoint's that have their names; its others are its own. */
export interface OverlayRef {
  readonly file: string;
}

/** What all tasks of a pass over a model share whose sequences and hidden states lie in files. */
export interface SpooledPass {
  readonly settings: RunSettings;
  readonly model: ModelRef;
  readonly tokens: TokenFile;
  readonly batchTokens: number;
}

/** Modules of a block that are fed the same tensor; the first one stands for all. */
export interface InputGroup {
  readonly modules: readonly string[];
  /** Channels. */
  readonly in: number;
}

/** What a model's blocks are made of, from its headers. */
export interface ModelShapeTask {
  readonly type: 'model-shape';
  readonly settings: RunSettings;
  readonly model: ModelRef;
}

export interface BlockShape {
  readonly linears: readonly LinearShape[];
  /** In the order in which their inputs are made. */
  readonly groups: readonly InputGroup[];
  readonly weightBytes: number;
}

export interface LinearShape {
  readonly module: string;
  readonly in: number;
  readonly out: number;
  /** Stored as (in, out). */
  readonly transposed: boolean;
}

export interface ModelShapeResult {
  readonly width: number;
  readonly maxPositions: number;
  /** Of the output layer. */
  readonly head: { readonly vocabulary: number; readonly columns: number; readonly bytes: number };
  readonly blocks: readonly BlockShape[];
  /** What a token of a batch takes in a block at most, in bytes: fixed, and for each token of its sequence. */
  readonly tokenBytes: { readonly fixed: number; readonly perToken: number };
}

/** Embeddings of all sequences into a file of hidden states. */
export interface EmbedTask extends SpooledPass {
  readonly type: 'embed';
  readonly output: string;
}

export interface EmbedResult {
  readonly output: Written;
}

/** All sequences through one block; statistics of its layers' inputs go to their places. */
export interface BlockTask extends SpooledPass {
  readonly type: 'block';
  readonly block: number;
  readonly overlay: readonly OverlayRef[];
  /** Hidden states before the block. */
  readonly input: string;
  /** And after it; absent: only the statistics are wanted, and the block ends at the last of the groups. */
  readonly output?: string;
  readonly groups: readonly InputGroup[];
  readonly statistics: readonly InputStatistic[];
  /** Of every statistic, by its name. */
  readonly places: Readonly<Record<string, FilePlace>>;
}

export interface BlockResult {
  readonly output?: Written;
  readonly statistics: Readonly<Record<string, Written>>;
}

/** Gradient, to what comes out of the last block, of the sum over sequences of the mean next-token loss. */
export interface HeadGradientTask extends SpooledPass {
  readonly type: 'head-gradient';
  readonly input: string;
  readonly output: string;
}

export interface HeadGradientResult {
  readonly output: Written;
  /** Mean over sequences, nats. */
  readonly loss: number;
}

/** The same gradient one block further back; Fisher statistics of the block's weights go to their places. */
export interface BlockGradientTask extends SpooledPass {
  readonly type: 'block-gradient';
  readonly block: number;
  readonly input: string;
  /** Gradients to what comes out of the block. */
  readonly gradients: string;
  /** Gradients to its inputs; absent where nothing before it is asked for. */
  readonly output?: string;
  readonly modules: readonly LinearShape[];
  readonly statistics: readonly FisherStatistic[];
  readonly places: Readonly<Record<string, FilePlace>>;
  /** Gradients of all sequences go to files whose names begin so; they are gone when the task ends. */
  readonly spool: string;
  /** What the Kronecker pairs count for in the progress, and the sweeps that it is spread over. */
  readonly pairBytes: number;
  readonly pairSweeps: number;
}

/** The tasks of a pass over a model block by block. */
export type PassTask = ModelShapeTask | EmbedTask | BlockTask | HeadGradientTask | BlockGradientTask;
