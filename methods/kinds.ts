/** The interface of each kind of method. Sources and sinks are byte ranges, so that no method needs a whole tensor in memory. */
import type { TensorInfo } from '../core/tensor.js';
import type { DType } from '../core/dtype.js';
import type { RateCurve } from '../kernels/lowrank/water-fill.js';
import type { Sparsity } from '../kernels/sparse/sparsity.js';
import type { Ctx } from './define.js';

/** One stored tensor, read by byte range. Reading it once from front to back is cheapest: the caller hashes it on the way. */
export interface TensorSource extends TensorInfo {
  readonly byteLength: number;
  readInto(begin: number, target: Uint8Array): Promise<void>;
}

/** Where a decoded tensor goes. Ranges are written front to back without gaps. */
export interface TensorSink {
  write(position: number, bytes: Uint8Array): Promise<void>;
}

/** Where an encoder puts its parts, each an ordinary tensor of the container. Names are local to one tensor. */
export interface PartSink {
  /** Writes at a byte position of the part; a part is as long as its furthest byte. */
  write(part: string, position: number, bytes: Uint8Array): Promise<void>;
  /** Declares type and shape, once everything is written; the byte count must agree. */
  declare(part: string, dtype: DType, shape: readonly number[]): void;
}

export interface PartSource {
  info(part: string): TensorInfo;
  read(part: string, begin?: number, end?: number): Promise<Uint8Array>;
  /** Bytes [begin, begin + target.length). */
  readInto(part: string, begin: number, target: Uint8Array): Promise<void>;
}

/** What an encoder says about one tensor. */
export interface EncodeInfo {
  /** True when tuned equals base: no part was written, restore copies the base. */
  readonly identical: boolean;
  /** Nothing was written: the tensor is better stored losslessly (a rank that does not pay, values that are not finite). */
  readonly declined?: true;
  /** ||What - W1||_F / ||W1 - W0||_F; absent for a lossless codec. */
  readonly error?: number;
  /** Per-tensor facts for the report and the file's metadata (rank, changed share, ...). */
  readonly facts: Readonly<Record<string, number | string>>;
}

/** What of a tensor's description decides whether and how a codec takes it. */
export interface TensorPlan extends TensorInfo {
  readonly role: 'embedding' | 'head' | 'linear' | 'other';
  readonly hasBase: boolean;
}

/** Settings that the pipeline, not the user, gives for one tensor: a rank from an allocation, say. */
export type Assigned = Readonly<Record<string, number>>;

/** A codec whose size follows a budget: what each point of a tensor's own scale costs, and what settings reach it. */
export interface BudgetedCodec {
  /**
   * `share`: the part of the raw bytes that the model may take on average; a curve may end well above it. `rival`: the least squared
   * error that the codecs asked before leave with so many bytes; a curve may end where it has clearly lost.
   */
  rates(c: Ctx, base: TensorSource, tuned: TensorSource, share: number, rival?: (bytes: number) => number): Promise<RateCurve>;
  assign(point: number): Assigned;
}

/** What calibration knows of the inputs of a layer whose delta is coded. */
export interface CodecStats extends LayerStats {
  /** The tensor is stored (in, out): inputs run along its rows. */
  readonly transposed: boolean;
}

export interface DeltaCodec {
  readonly lossless: boolean;
  readonly version: number;
  /** For tensors without a base, and for none with one. */
  readonly standalone?: boolean;
  /** Statistics that `encode` makes use of where they are known. What is written does not say whether they were. */
  readonly uses?: readonly LayerStat[];
  /** Present when the codec can share a byte budget with the other tensors. */
  readonly budget?: BudgetedCodec;
  /** Whether this codec codes such a tensor; what it declines is coded losslessly. */
  accepts(plan: TensorPlan): boolean;
  /** Upper bound of the host memory one tensor needs, in bytes, statistics included. */
  memoryBytes(plan: TensorPlan, stats?: boolean): number;
  encode(c: Ctx, base: TensorSource | undefined, tuned: TensorSource, parts: PartSink, assigned: Assigned, stats?: CodecStats): Promise<EncodeInfo>;
  decode(c: Ctx, base: TensorSource | undefined, parts: PartSource, target: TensorInfo, out: TensorSink): Promise<void>;
}

/** A linear layer's weight as y = x W^T sees it: (m, n) = (out, in), f32, row-major, in host memory. A pruner may overwrite it. */
export interface LayerWeight {
  readonly name: string;
  readonly m: number;
  readonly n: number;
  readonly w: Float32Array;
  /** The weight before fine-tuning, (m, n): for methods that say `base`. */
  readonly base?: Float32Array;
}

/** What calibration knows of a layer's inputs x (tokens, n); only what a method says it needs is filled in. */
export interface LayerStats {
  readonly tokens: number;
  /** sum over tokens of x_j^2, (n) */
  readonly inputSqNorm?: Float32Array;
  /** sum over tokens of |x_j| / tokens, (n) */
  readonly inputAbsMean?: Float32Array;
  /** sum over tokens of x x^T, (n, n) f32. A method may overwrite it. */
  readonly inputGram?: Float32Array;
}
export type LayerStat = 'inputSqNorm' | 'inputAbsMean' | 'inputGram';

export type { Sparsity };

/** A mask over (m, n), one byte a weight: 1 keeps, 0 removes. */
export type KeepMask = Uint8Array;

export interface Pruned {
  /** (m, n), zeros are +0 where the mask is 0; a method without a weight update leaves every kept bit as it was. */
  readonly w: Float32Array;
  readonly mask: KeepMask;
  /** For the report: dampings that were raised, iterations, dead inputs, ... */
  readonly facts: Readonly<Record<string, number | string>>;
}

export interface Pruner {
  /** Statistics of the inputs that it reads; none: a method of the weights alone. */
  readonly needs: readonly LayerStat[];
  /** Whether it reads the weight before fine-tuning. */
  readonly base?: true;
  /** Whether the kept weights change, so that masks of several layers cannot be chosen by their scores alone. */
  readonly updates: boolean;
  /** Where the paper compares weights when only a ratio is asked for. */
  readonly group: 'layer' | 'row';
  /** Upper bound of the host memory for a layer, in bytes, its weight and statistics apart. */
  memoryBytes(m: number, n: number): number;
  /** Scores of a method without an update, (m, n), larger is kept: what a threshold over all layers, or an allocation, compares. */
  scores?(c: Ctx, layer: LayerWeight, stats: LayerStats): Float32Array;
  prune(c: Ctx, layer: LayerWeight, stats: LayerStats, target: Sparsity): Promise<Pruned>;
  /** Only the weight update, for a mask of any other method: `layer` holds the dense weight, which may be overwritten; the mask stays. */
  update?(c: Ctx, layer: LayerWeight, stats: LayerStats, mask: KeepMask): Promise<Pruned>;
}

/** What calibration knows of a layer's inputs and of the gradients G (m, n) of the loss to its weight. */
export interface FactorStats extends LayerStats {
  /** sum over gradients and columns of G_ij^2, (m) */
  readonly fisherRow?: Float32Array;
  /** The closest Kronecker product B x A to the Fisher matrix: A (n, n) of the inputs, B (m, m) of the outputs. */
  readonly fisherA?: Float32Array;
  readonly fisherB?: Float32Array;
}
export type FactorStat = LayerStat | 'fisherRow' | 'fisherA' | 'fisherB';

/** W ~ A B */
export interface Factors {
  /** (m, rank) */
  readonly a: Float32Array;
  /** (rank, n) */
  readonly b: Float32Array;
}

/** A layer taken apart once, for as many ranks as are asked for. */
export interface Decomposition {
  /** Singular values in the method's own metric, falling, min(m, n) of them: rank r leaves the squared error sum_{i >= r} s_i^2. */
  readonly s: Float64Array;
  /** For the report: the damping that a singular matrix took, ... */
  readonly facts: Readonly<Record<string, number | string>>;
  /** The best factors in that metric; components beyond the matrix's own rank are zero. */
  factors(rank: number): Factors;
}

/** Two factors in place of one layer's weight. */
export interface Factorizer {
  readonly needs: readonly FactorStat[];
  /** Upper bound of the host memory for a layer, in bytes, its weight and statistics apart. */
  memoryBytes(m: number, n: number): number;
  /** The layer's weight and statistics stay as they are. NOT_FINITE (65). */
  decompose(c: Ctx, layer: LayerWeight, stats: FactorStats): Promise<Decomposition>;
}

/** int: s (q - z); fp8: s times an E4M3 value; nf4: s times a value of a table of 16. */
export type QuantGrid = 'int' | 'fp8' | 'nf4';

/** What weights are stored as (methods/quant-scheme.ts has the names). */
export interface QuantScheme {
  readonly grid: QuantGrid;
  readonly bits: number;
  readonly symmetric: boolean;
  /** Consecutive inputs of a row that share a scale; 0: the whole row. */
  readonly groupSize: number;
}

/** What a quantizer may be told of a layer beside its inputs. */
export interface QuantStats extends LayerStats {
  /** Mean gradient of the loss between the weight and its quantized values, (m, n): at t = (k + 0.5) / N of the way. */
  readonly pathGradient?: Float32Array;
}
export type QuantStat = LayerStat | 'pathGradient';

/** Weights that are stored beside the codes, in place of what these decode to. */
export interface KeptWeights {
  /** Flat places, ascending. */
  readonly index: Int32Array;
  readonly values: Float32Array;
}

export interface Quantized {
  readonly scheme: QuantScheme;
  /** (m, n): integers from 0 of an int grid, bytes of E4M3, places in the table of nf4. */
  readonly codes: Uint8Array;
  /** (m, groups), exact values of their storage type; of nf4 one for 64 values as they lie, row after row. */
  readonly scales: Float32Array;
  /** (m, groups) of an int grid; whole numbers but for hqq. */
  readonly zeros?: Float32Array;
  /** Group of each column, where they are not neighbours. */
  readonly groupIndex?: Int32Array;
  /** (m, n): what the layer computes with: decoded, kept weights in place, input scales undone. */
  readonly w: Float32Array;
  /** (n): the codes are of W diag(s); the op before is to divide by s. */
  readonly inputScales?: Float32Array;
  /** Columns in full precision, ascending: values (m, count). */
  readonly keptColumns?: { readonly index: Int32Array; readonly values: Float32Array };
  readonly kept?: KeptWeights;
  /** Scales that are themselves in 8 bits, blocks of 256: kernels/quant/nf4.ts. */
  readonly nested?: { readonly codes: Uint8Array; readonly absmax: Float32Array; readonly offset: number };
  /** Bits of a weight, scales and what is kept included. */
  readonly bitsPerWeight: number;
  readonly facts: Readonly<Record<string, number | string>>;
}

/**
 * A quantizer of one layer at a time. Layers that share an input may be given as one, their rows stacked: what is chosen by input (the scales of
 * awq) is then common to them. A method that learns through a block will be another scope of this kind.
 */
export interface LayerQuantizer {
  readonly scope: 'layer';
  readonly needs: readonly QuantStat[];
  readonly grids: readonly QuantGrid[];
  /** Upper bound of the host memory for a layer, in bytes, its weight and statistics apart. */
  memoryBytes(m: number, n: number): number;
  /** The layer's weight and statistics stay as they are. BAD_PARAMS for a scheme that it has no grid for, NOT_FINITE (65). */
  quantize(c: Ctx, layer: LayerWeight, stats: QuantStats, scheme: QuantScheme): Promise<Quantized>;
}

export type Quantizer = LayerQuantizer;
