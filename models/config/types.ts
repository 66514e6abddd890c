/** Configs of the supported graphs as plain data: both spellings read, every default resolved. Sizes in elements, windows in tokens. */
import type { ActivationKind } from '../../kernels/nn/activations.js';
import type { RopeParameters } from '../../kernels/nn/rope.js';

export interface BaseConfig {
  /** `model_type` as the file says it; of a multimodal model that of its decoder. */
  readonly modelType: string;
  /** `architectures[0]`: which head was saved. */
  readonly architecture?: string;
  /** `dtype`, or `torch_dtype` in older files: `bfloat16`, `float16`, `float32`. */
  readonly dtype?: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly maxPositions: number;
  readonly activation: ActivationKind;
  readonly norm: NormConfig;
  /**
   * The head has no weight of its own. Stored weights decide over the flag: a stored head that differs from the embedding is used
   * (transformers 5), and where only the head is stored the embedding is taken from it.
   */
  readonly tied: boolean;
  readonly names: TensorNames;
}

export interface NormConfig {
  /** `rms`: gain w; `rms_plus_one`: gain 1 + w, as Gemma stores it; `layer`: LayerNorm with gain and bias. */
  readonly kind: 'rms' | 'rms_plus_one' | 'layer';
  readonly eps: number;
}

export interface TensorNames {
  /** What the graph's tensors may begin with, the usual first: a save of the bare model drops the outer part. */
  readonly prefixes: readonly string[];
  /** A tensor that every checkpoint of the graph has, without its prefix. */
  readonly probe: string;
  /** Full names that the output head's weight may have. */
  readonly heads: readonly string[];
}

/** One decoder layer's attention. */
export interface AttentionLayer {
  readonly kind: 'full' | 'sliding';
  /** Keys that a query sees, itself included; absent: all up to itself. */
  readonly window?: number;
  /** What q k^T is multiplied by. */
  readonly scale: number;
  /** The same object in all layers that share one: tables can be kept by it. Absent: positions are learned. */
  readonly rope?: RopeParameters;
}

interface DecoderConfig extends BaseConfig {
  readonly numLayers: number;
  readonly numHeads: number;
  /** Channels of a head; heads * headDim need not be hiddenSize. */
  readonly headDim: number;
  readonly intermediateSize: number;
  /** One for each layer. */
  readonly layers: readonly AttentionLayer[];
}

export const LLAMA_TYPES = ['llama', 'mistral', 'qwen2', 'qwen3', 'gemma2', 'gemma3_text', 'phi3'] as const;
export type LlamaModelType = (typeof LLAMA_TYPES)[number];

/** Llama and its family: RMS norms before both sublayers, rotary positions, a gated feed-forward. */
export interface LlamaConfig extends DecoderConfig {
  readonly family: 'llama';
  readonly modelType: LlamaModelType;
  readonly numKvHeads: number;
  /** What embeddings are multiplied by, in f32. */
  readonly embedScale: number;
  /** Scores and logits become c tanh(s / c). */
  readonly scoreSoftcap?: number;
  readonly logitSoftcap?: number;
  /** q and k are RMS-normed over a head's channels, before the rotation. */
  readonly qkNorm: boolean;
  /** Norms after both sublayers too, before the sums: Gemma. */
  readonly postNorms: boolean;
  /** qkv_proj (rows q, k, v) and gate_up_proj (rows gate, up) instead of five projections. */
  readonly fusedProjections: boolean;
  readonly bias: { readonly qkv: boolean; readonly o: boolean; readonly mlp: boolean };
}

/** Learned positions, LayerNorm before both sublayers, weights of the layers (in, out). */
export interface Gpt2Config extends DecoderConfig {
  readonly family: 'gpt2';
}

/** Learned positions (row = position + `positionOffset`), LayerNorm before or after the sublayers. */
export interface OptConfig extends DecoderConfig {
  readonly family: 'opt';
  readonly positionOffset: number;
  /** Width of the embedding; where it is not hiddenSize there are project_in and project_out. */
  readonly embedSize: number;
  readonly preNorm: boolean;
  /** A LayerNorm after the last layer. */
  readonly finalNorm: boolean;
  readonly bias: boolean;
  /** LayerNorms have gains and biases. */
  readonly normAffine: boolean;
}

export interface BertConfig extends BaseConfig {
  readonly family: 'bert';
  readonly numLayers: number;
  readonly numHeads: number;
  readonly headDim: number;
  readonly intermediateSize: number;
  readonly typeVocabSize: number;
  readonly padToken?: number;
}

export interface VitConfig extends Omit<BaseConfig, 'vocabSize' | 'maxPositions' | 'tied'> {
  readonly family: 'vit';
  readonly numLayers: number;
  readonly numHeads: number;
  readonly headDim: number;
  readonly intermediateSize: number;
  /** (height, width), pixels. */
  readonly imageSize: readonly [number, number];
  readonly patchSize: readonly [number, number];
  readonly numChannels: number;
  /** Patches and the class token. */
  readonly numTokens: number;
  readonly qkvBias: boolean;
  readonly pooler: { readonly size: number; readonly activation: ActivationKind };
  /** Of a classifier. */
  readonly numLabels: number;
}

export interface WhisperSide {
  readonly numLayers: number;
  readonly numHeads: number;
  readonly headDim: number;
  readonly intermediateSize: number;
  readonly maxPositions: number;
}

/** `maxPositions` is the decoder's. `scale_embedding` changes nothing: transformers 5 reads it and scales no embedding. */
export interface WhisperConfig extends BaseConfig {
  readonly family: 'whisper';
  readonly numMelBins: number;
  readonly encoder: WhisperSide;
  readonly decoder: WhisperSide;
}

export type CausalConfig = LlamaConfig | Gpt2Config | OptConfig;
export type AnyModelConfig = CausalConfig | BertConfig | VitConfig | WhisperConfig;
