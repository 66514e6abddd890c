/** What crosses a thread: plain data only, references instead of tensors. */
import type { Device } from '../core/device.js';
import type { DType } from '../core/dtype.js';
import type { WireError } from '../core/errors.js';
import type { Quality } from '../formats/delta/schema.js';
import type { FisherStatistic, InputStatistic } from '../formats/stats/schema.js';
import type { OptimizerSettings } from '../kernels/optim/optimizers.js';
import type { EncodeInfo, Sparsity } from '../methods/kinds.js';
import type { Pooling } from '../models/sentence.js';

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

/** Codes one tensor; parts go to files `<spool>.<part>`. */
export interface EncodeTask {
  readonly type: 'encode';
  readonly settings: RunSettings;
  readonly method: MethodRef;
  readonly base?: TensorRef;
  readonly tuned: TensorRef;
  /** Only the first rows are common with the base; the others are coded standalone. */
  readonly commonRows?: number;
  /** A point of the codec's own rate curve, when a budget was shared. */
  readonly point?: number;
  readonly stats?: LayerStatsRef;
  readonly spool: string;
}

export interface SpooledPart {
  readonly part: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly sha256: string;
}

export interface EncodeResult {
  readonly info: EncodeInfo;
  readonly parts: readonly SpooledPart[];
  readonly baseSha256?: string;
  readonly tunedSha256: string;
  readonly restoredSha256: string;
  /** False when the method declined the tensor and it is stored losslessly. */
  readonly byMethod: boolean;
  /** ||What - W1||_F^2 and ||W1 - W0||_F^2 of a lossy result. */
  readonly squares?: readonly [error: number, delta: number];
}

/** What codecs with a budget would take and leave at each of their points. */
export interface RatesTask {
  readonly type: 'rates';
  readonly settings: RunSettings;
  /** Asked in this order, each told what those before it reach. */
  readonly methods: readonly MethodRef[];
  readonly base: TensorRef;
  readonly tuned: TensorRef;
  readonly commonRows?: number;
  readonly share: number;
}

export interface RatesResult {
  readonly bytes: readonly number[];
  readonly errorSq: readonly number[];
  /** ||W1 - W0||_F^2 */
  readonly deltaSq: number;
}

/** Codes what is left between a tensor and what its lossy delta restores to; the part goes to a file `<spool>.residual`. */
export interface RemainderTask {
  readonly type: 'remainder';
  readonly settings: RunSettings;
  /** A delta of one layer. */
  readonly delta: string;
  readonly base?: TensorRef;
  readonly tuned: TensorRef;
  readonly spool: string;
}

export interface RemainderResult {
  readonly bytes: number;
  readonly sha256: string;
}

/** Decodes one tensor; the bytes go to `position` in `file` (absent: hashed only). */
export interface DecodeTask {
  readonly type: 'decode';
  readonly settings: RunSettings;
  readonly delta: string;
  /** What errors call the delta, where it is not its path. */
  readonly deltaName?: string;
  readonly quality: Quality;
  readonly tensor: string;
  readonly base?: TensorRef;
  readonly target?: { readonly file: string; readonly position: number };
  /** Damaged data is reported in the result instead of thrown: what verify wants. */
  readonly lenient?: boolean;
}

export interface DecodeResult {
  readonly sha256: string;
  /** Of the base tensor as it was read; absent when there is none. */
  readonly baseSha256?: string;
  /** Why the tensor's own data could not be decoded (`lenient`), and in which layer. */
  readonly damaged?: string;
  readonly layer?: Quality;
}

export interface HashTask {
  readonly type: 'hash';
  readonly tensor: TensorRef;
}

export interface HashResult {
  readonly sha256: string;
}

/** Compares one tensor with its counterpart, element by element. */
export interface DiffTask {
  readonly type: 'diff';
  readonly settings: RunSettings;
  readonly base: TensorRef;
  readonly tuned: TensorRef;
}

export interface DiffResult {
  readonly changed: number;
  readonly elements: number;
  readonly deltaNorm: number;
  readonly baseNorm: number;
  readonly maxAbs: number;
}

/** Singular values of one matrix, or of its difference to the base's. */
export interface SpectrumTask {
  readonly type: 'spectrum';
  readonly settings: RunSettings;
  readonly tensor: TensorRef;
  readonly base?: TensorRef;
}

export interface SpectrumResult {
  /** ||W||_F */
  readonly norm: number;
  /** min(m, n) */
  readonly side: number;
  readonly finite: boolean;
  /** Every singular value was computed, not only the leading ones. */
  readonly complete: boolean;
  /** The leading singular values, falling. */
  readonly values: readonly number[];
  /** Least rank that keeps the share of ||W||_F^2; absent when more values than were computed are needed. */
  readonly rank90?: number;
  readonly rank95?: number;
  readonly rank99?: number;
  /** exp of the entropy of s / sum s (Roy and Vetterli, 2007). */
  readonly effectiveRank?: number;
  /** Values above the Gavish-Donoho threshold (arXiv 1305.5870). */
  readonly noiseRank?: number;
}

/** Leading left singular vectors of a fine-tuned matrix against all of its base's (arXiv 2410.21228). */
export interface IntrudersTask {
  readonly type: 'intruders';
  readonly settings: RunSettings;
  readonly base: TensorRef;
  readonly tuned: TensorRef;
  /** k: how many leading vectors are looked at. */
  readonly top: number;
  /** epsilon: a largest cosine below it makes an intruder. */
  readonly cosine: number;
}

export interface LeadingVector {
  /** From 0. */
  readonly index: number;
  /** The singular value. */
  readonly value: number;
  /** The largest cosine with a left singular vector of the base. */
  readonly cosine: number;
}

export interface IntrudersResult {
  /** Why the matrix was not looked at. */
  readonly left?: 'too large' | 'not finite';
  readonly leading: readonly LeadingVector[];
  readonly intruders: readonly LeadingVector[];
  /** Of the matrix in the base and in the fine-tune. */
  readonly effectiveRank?: { readonly base: number; readonly tuned: number };
}

/** How many components of a difference an adapter keeps. */
export interface RankRule {
  readonly maxRank: number;
  /** The least rank with this share of ||D||_F^2, at most maxRank. */
  readonly energy?: number;
  /** Singular values at or below it are dropped. */
  readonly svEpsilon?: number;
}

/** Factors of W1 - W0 for an adapter; A and B go to `spool`, one after the other. */
export interface ExtractTask {
  readonly type: 'extract';
  readonly settings: RunSettings;
  readonly base: TensorRef;
  readonly tuned: TensorRef;
  readonly rule: RankRule;
  readonly dtype: 'BF16' | 'F16' | 'F32';
  /** Weights that lie as (in, out): embeddings and Conv1D. Their factors are those of the transpose. */
  readonly transposed: boolean;
  /** sqrt(s) in both factors instead of s in A. */
  readonly distributeScale: boolean;
  /** absent: only the curve of errors is wanted. */
  readonly spool?: string;
}

export interface ExtractResult {
  /** 0: nothing to keep, no factors were written. */
  readonly rank: number;
  /** ||D - B A||_F / ||D||_F before the factors are rounded. */
  readonly residual: number;
  /** ||D||_F^2 */
  readonly deltaSq: number;
  /** Squared error that r + 1 components leave, without a spool. */
  readonly errorSq?: readonly number[];
}

/** W' of one tensor of a merged model, in its output type, at `position` of `file`. */
export interface FuseTask {
  readonly type: 'fuse';
  readonly settings: RunSettings;
  readonly base: TensorRef;
  readonly dtype: DType;
  /** The adapter's folder; absent: only the type changes. */
  readonly adapter?: string;
  /** Module whose factors are added. */
  readonly module?: string;
  /** Key of a full copy that replaces the tensor. */
  readonly saved?: string;
  /** The weight lies as (in, out). */
  readonly transposed?: boolean;
  /** The tensor is the module's bias. */
  readonly bias?: boolean;
  readonly target: { readonly file: string; readonly position: number };
}

export interface FuseResult {
  /** max |stored - W'|, from the rounding to the output type. */
  readonly maxError: number;
  /** max |W'| */
  readonly maxAbs: number;
}

/** Best approximation of one module's B A by fewer components; A and B go to `spool`, one after the other. */
export interface ResizeTask {
  readonly type: 'resize';
  readonly settings: RunSettings;
  readonly adapter: string;
  readonly module: string;
  readonly rule: RankRule;
  /** Zero components up to this rank. */
  readonly padTo?: number;
  /** B is multiplied by it. */
  readonly scaling: number;
  readonly dtype: 'BF16' | 'F16' | 'F32';
  /** (in, r) and (r, out), as mlx has them, instead of (r, in) and (out, r). */
  readonly transposed?: boolean;
  readonly spool: string;
}

export interface ResizeResult {
  readonly rank: number;
  /** ||B A - B' A'||_F / ||B A||_F before rounding. */
  readonly error: number;
  /** ||B A||_F^2 with the scaling. */
  readonly normSq: number;
}

/** Two factors in place of one layer's weight, written in the weight's own type. */
export interface FactorizeTask {
  readonly type: 'factorize';
  readonly settings: RunSettings;
  readonly method: MethodRef;
  readonly layer: LayerRef;
  /** Absent: only the singular values are wanted. */
  readonly rank?: number;
  /** Where ALinear (out, rank) and BLinear (rank, in) go; or their product, in the weight's own orientation. */
  readonly target?: { readonly a: FilePlace; readonly b: FilePlace } | { readonly dense: FilePlace };
}

export interface FactorizeResult {
  /** Singular values in the method's metric, falling; without a target. */
  readonly s?: Float64Array;
  /** What the rank leaves in the method's metric, as a share: sqrt(sum_{i >= r} s_i^2 / sum s_i^2). */
  readonly error: number;
  /** ||What - W||_F / ||W||_F of what was stored. */
  readonly weightError: number;
  /** sqrt(tr(D G D^T) / tr(W G W^T)), D = What - W, G = X^T X, where the statistics have it. */
  readonly outputError?: number;
  readonly facts: Readonly<Record<string, number | string>>;
  /** In the order of the target's places. */
  readonly written: readonly Written[];
}

/** Where the scores of all layers together are cut: a weight goes when its key (kernels/sparse/score-keys.ts) is below `key`, and the first `ties` of those that have it. */
export interface ScoreCut {
  readonly group: 'cut';
  readonly key: number;
  readonly ties: number;
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

/** Removes weights of one layer: by a method, or by masks that are there; then the kept ones may be set anew. */
export interface PruneTask {
  readonly type: 'prune';
  readonly settings: RunSettings;
  readonly layer: LayerRef;
  readonly choose:
    { readonly method: MethodRef; readonly target: Sparsity | ScoreCut } | { readonly masks: readonly CheckpointRef[]; readonly combine: MaskRule };
  /** Sets the kept weights. */
  readonly update?: MethodRef;
  /** Where the weight goes, in its own type and orientation; the same bytes to each. */
  readonly places: readonly FilePlace[];
  /** Where the mask goes: a byte a weight, as the weight lies. */
  readonly mask?: FilePlace;
}

export type MaskRule = 'and' | 'or';

export interface PruneResult {
  /** Of m n weights. */
  readonly zeros: number;
  readonly values: number;
  /** What the layer's output loses, as a share: of all inputs' products, of their squares alone, or of the weight itself. */
  readonly error: number;
  readonly errorOf: 'output' | 'diagonal' | 'weight';
  readonly ms: number;
  readonly facts: Readonly<Record<string, number | string>>;
  /** In the order of the places. */
  readonly written: readonly Written[];
  readonly maskWritten?: Written;
}

/** How often each key occurs among a layer's scores: its upper 16 bits; or the lower ones of the keys that begin with `high`. */
export interface PruneScoresTask {
  readonly type: 'prune-scores';
  readonly settings: RunSettings;
  readonly layer: LayerRef;
  readonly method: MethodRef;
  readonly high?: number;
}

export interface PruneScoresResult {
  readonly counts: Uint32Array;
}

/** Log probabilities of tokens, each given those before it in its sequence. `settings.memoryBytes` is what the task may hold. */
export interface ScoreTask {
  readonly type: 'score';
  readonly settings: RunSettings;
  readonly model: ModelRef;
  /** Its distributions are what the model's are compared with. */
  readonly reference?: ModelRef;
  readonly sequences: readonly Int32Array[];
  /** Index of the first token that is scored, by sequence; 1 where absent, as the first token has nothing before it. */
  readonly from?: readonly number[];
  /** Tokens of a batch; chosen by the memory where absent. */
  readonly batchTokens?: number;
  /** Hidden states that memory has no room for go to files whose names begin so; they are gone when the task ends. */
  readonly spool: string;
}

/** Of every scored token, the sequences one after the other. */
export interface TokenScores {
  /** -log p, nats. */
  readonly nll: Float32Array;
  /** The likeliest token in its place. */
  readonly top: Int32Array;
}

export interface ScoreResult extends TokenScores {
  readonly reference?: TokenScores;
  /** D(reference || model) of the distributions that each scored token was drawn from, nats. */
  readonly kld?: Float32Array;
}

/** One vector a token sequence, by a text encoder. */
export interface SentencesTask {
  readonly type: 'sentences';
  readonly settings: RunSettings;
  readonly model: ModelRef;
  /** Special tokens among them; one token at least each. */
  readonly sequences: readonly Int32Array[];
  readonly pooling: Pooling;
  /** Tokens of a batch; chosen by the memory where absent. */
  readonly batchTokens?: number;
  /** As in ScoreTask. */
  readonly spool: string;
}

export interface SentencesResult {
  /** Channels of a vector. */
  readonly width: number;
  /** (sequences, width) */
  readonly embeddings: Float32Array;
}

/** Continues a sequence token by token. */
export interface GenerateTask {
  readonly type: 'generate';
  readonly settings: RunSettings;
  readonly model: ModelRef;
  /** One at least. */
  readonly ids: Int32Array;
  /** How many to add at most. */
  readonly tokens: number;
  /** 0: always the likeliest; else p^(1/T) is drawn from, by the run's seed. */
  readonly temperature: number;
  /** Tokens that end it; they are not added. */
  readonly stop: readonly number[];
}

export interface GenerateResult {
  /** The added tokens. */
  readonly ids: Int32Array;
  /** What of the weights stayed in memory between tokens. */
  readonly kept: 'decoded' | 'stored' | 'nothing';
}

/** Token sequences in a file: int32, little-endian, one after the other. */
export interface TokenFile {
  readonly file: string;
  readonly lengths: readonly number[];
}

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

/** Bytes that a task wrote, and their CRC-32: a run that goes on reads them again. */
export interface Written {
  readonly bytes: number;
  readonly crc32: number;
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

export interface FilePlace {
  readonly file: string;
  readonly position: number;
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

/** Learns an object's name and takes its sketch. */
export interface StoreScanTask {
  readonly type: 'store-scan';
  readonly tensor: TensorRef;
}

export interface StoreScanResult {
  readonly object: string;
  readonly sketch: Uint8Array;
  /** Estimated bytes of the tensor coded alone. */
  readonly aloneBytes: number;
}

/** Codes one tensor as an object of a store and puts it in its place. */
export interface StorePutTask {
  readonly type: 'store-put';
  readonly settings: RunSettings;
  readonly store: string;
  readonly tensor: TensorRef;
  /** Its name, from the scan: FILE_CHANGED when it is another one now. */
  readonly object: string;
  readonly base?: { readonly object: string; readonly rows?: number };
  /** An object of this name is there and cannot be decoded. */
  readonly replace: boolean;
  /** Temporary files start with it. */
  readonly spool: string;
}

export interface StorePutResult {
  /** Of the object's file; 0 when another process put it there meanwhile. */
  readonly bytes: number;
  readonly base?: string;
  readonly depth: number;
}

/** Decodes one object and writes it to each target; without targets it is only proven. */
export interface StoreGetTask {
  readonly type: 'store-get';
  readonly store: string;
  readonly object: string;
  readonly targets: readonly { readonly file: string; readonly position: number }[];
  /** Type and shape that the model has it for, as in its hash (formats/store/schema.ts, contentPrefix). */
  readonly expected?: string;
  /** `stored`: the stored bytes are hashed, nothing is decoded. */
  readonly check: 'content' | 'stored';
  /** Damage is reported in the result instead of thrown. */
  readonly lenient: boolean;
}

export interface StoreGetResult {
  readonly damaged?: { readonly file: string; readonly message: string };
}

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
/** Tasks on the model that the thread holds open to be trained. */
export type TrainTask = TrainOpenTask | TrainStepTask | TrainEvalTask | TrainStateTask | TrainSampleTask | TrainAdapterTask | TrainMergeTask;
/** The tasks of a pass over a model block by block. */
export type PassTask = ModelShapeTask | EmbedTask | BlockTask | HeadGradientTask | BlockGradientTask;
export type StoreTask = StoreScanTask | StorePutTask | StoreGetTask;
export type ResultOf<T extends Task> = TaskResults[T['type']];

export interface Envelope {
  readonly task: Task;
  /** Shared with the main thread: [0] cancel flag. */
  readonly cancel: Int32Array;
  /** Shared with the main thread: [0] bytes done by all threads. */
  readonly progress: BigInt64Array;
}

export type Reply = { readonly ok: unknown } | { readonly error: WireError };
