/** Configs of llama, mistral, qwen2, qwen3, gemma2, gemma3 (its text decoder) and phi3. Defaults are those of transformers' classes. */
import * as z from 'zod';
import type { ActivationKind } from '../../kernels/nn/activations.js';
import type { RopeParameters } from '../../kernels/nn/rope.js';
import {
  activation,
  commonFields,
  commonKeys,
  configError,
  count,
  dictionary,
  evenHeads,
  flag,
  positive,
  readConfig,
  refuse,
  size,
  text,
  type ConfigSource,
} from './read.js';
import { ropeKeys, ropeParameters, type LayerKind } from './rope.js';
import type { AttentionLayer, LlamaConfig, LlamaModelType } from './types.js';

interface Family {
  readonly gemma: boolean;
  readonly qkNorm: boolean;
  readonly tied: boolean;
  readonly eps: number;
  readonly activation: ActivationKind;
  readonly maxPositions: number;
  /** Absent: hiddenSize / heads. */
  readonly headDim?: number;
  /** The class's own number, where it divides the heads; absent: one for each head. */
  readonly kvHeads?: number;
  /** `sliding_window` where the key is absent; null: none. */
  readonly window: number | null;
  readonly layerKind: (i: number, c: Keys) => LayerKind;
}

const llama: Family = {
  gemma: false,
  qkNorm: false,
  tied: false,
  eps: 1e-6,
  activation: 'silu',
  maxPositions: 2048,
  window: null,
  layerKind: () => 'full',
};
const qwen2: Family = {
  ...llama,
  kvHeads: 32,
  maxPositions: 32768,
  window: 4096,
  layerKind: (i, c) => (c.use_sliding_window === true && i >= (c.max_window_layers ?? 28) ? 'sliding' : 'full'),
};
const gemma2: Family = {
  gemma: true,
  qkNorm: false,
  tied: true,
  eps: 1e-6,
  activation: 'gelu_tanh',
  headDim: 256,
  kvHeads: 4,
  maxPositions: 8192,
  window: 4096,
  layerKind: (i) => (i % 2 === 0 ? 'sliding' : 'full'),
};
const everywhere = (_: number, c: Keys): LayerKind => (c.sliding_window == null ? 'full' : 'sliding');

const FAMILIES: Readonly<Record<LlamaModelType, Family>> = {
  llama,
  mistral: { ...llama, kvHeads: 8, maxPositions: 131072, window: 4096, layerKind: everywhere },
  qwen2,
  qwen3: { ...qwen2, qkNorm: true, headDim: 128 },
  gemma2,
  gemma3_text: { ...gemma2, qkNorm: true, maxPositions: 131072, layerKind: (i, c) => ((i + 1) % (c.sliding_window_pattern ?? 6) === 0 ? 'full' : 'sliding') },
  phi3: { ...llama, eps: 1e-5, maxPositions: 4096, layerKind: everywhere },
};

/** Sizes that a `text_config` may leave out because they are its class's own. */
const GEMMA3_SIZES = { vocab_size: 262208, hidden_size: 2304, intermediate_size: 9216, num_hidden_layers: 26, num_attention_heads: 8 };

const schema = z.looseObject({
  ...commonKeys,
  ...ropeKeys,
  vocab_size: size,
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  max_position_embeddings: size.nullish(),
  rms_norm_eps: positive.nullish(),
  hidden_act: activation.nullish(),
  hidden_activation: activation.nullish(),
  attention_bias: flag.nullish(),
  mlp_bias: flag.nullish(),
  layer_types: z.array(text, 'a list of layer types').nullish(),
  sliding_window: size.nullish(),
  use_sliding_window: flag.nullish(),
  max_window_layers: count.nullish(),
  sliding_window_pattern: size.nullish(),
  query_pre_attn_scalar: positive.nullish(),
  attn_logit_softcapping: positive.nullish(),
  final_logit_softcapping: positive.nullish(),
});
type Keys = z.infer<typeof schema>;

/** A config whose `model_type` is one of the family. */
export function parseLlama(source: ConfigSource, type: LlamaModelType): LlamaConfig {
  const c = readConfig(source, schema);
  const family = FAMILIES[type];
  if (family.gemma) refuse(source, 'use_bidirectional_attention', 'false: only causal decoders are built', [false]);
  const heads = c.num_attention_heads;
  const headDim = c.head_dim ?? family.headDim ?? evenHeads(source, c.hidden_size, heads, 'num_attention_heads');
  return {
    family: 'llama',
    modelType: type,
    ...commonFields(c),
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    numLayers: c.num_hidden_layers,
    numHeads: heads,
    numKvHeads: kvHeads(source, c, family),
    headDim,
    maxPositions: c.max_position_embeddings ?? family.maxPositions,
    activation: (family.gemma ? c.hidden_activation : c.hidden_act) ?? family.activation,
    norm: { kind: family.gemma ? 'rms_plus_one' : 'rms', eps: c.rms_norm_eps ?? family.eps },
    embedScale: family.gemma ? Math.fround(Math.sqrt(c.hidden_size)) : 1,
    ...softcaps(source, c, type),
    qkNorm: family.qkNorm,
    postNorms: family.gemma,
    fusedProjections: type === 'phi3',
    bias: biases(c, type),
    layers: attentionLayers(source, c, type, headDim),
    tied: c.tie_word_embeddings ?? family.tied,
    names: {
      prefixes: type === 'gemma3_text' ? ['model.', 'language_model.model.', 'model.language_model.', 'language_model.', ''] : ['model.', ''],
      probe: 'layers.0.input_layernorm.weight',
      heads: type === 'gemma3_text' ? ['lm_head.weight', 'language_model.lm_head.weight'] : ['lm_head.weight'],
    },
  };
}

/** The decoder of a multimodal gemma3: its `text_config`, under the head and dtype of the whole. */
export function parseGemma3(source: ConfigSource): LlamaConfig {
  const outer = readConfig(source, z.looseObject({ ...commonKeys, text_config: dictionary }));
  const document = { ...GEMMA3_SIZES, ...outer.text_config };
  const inner = parseLlama({ file: source.file, at: `${source.at}text_config.`, document }, 'gemma3_text');
  return { ...inner, ...commonFields(outer), tied: outer.tie_word_embeddings ?? inner.tied };
}

function kvHeads(source: ConfigSource, c: Keys, family: Family): number {
  const heads = c.num_attention_heads;
  const own = c.num_key_value_heads === undefined ? family.kvHeads : undefined;
  const kv = c.num_key_value_heads ?? (own !== undefined && heads % own === 0 ? own : heads);
  if (heads % kv !== 0) throw configError(source, 'num_key_value_heads', `a divisor of num_attention_heads ${heads}`);
  return kv;
}

/** qwen2 has biases on q, k and v and on nothing else; mistral and phi3 have none. */
function biases(c: Keys, type: LlamaModelType): LlamaConfig['bias'] {
  if (type === 'qwen2') return { qkv: true, o: false, mlp: false };
  const attention = type !== 'mistral' && type !== 'phi3' && c.attention_bias === true;
  return { qkv: attention, o: attention, mlp: type === 'llama' && c.mlp_bias === true };
}

function softcaps(source: ConfigSource, c: Keys, type: LlamaModelType): { scoreSoftcap?: number; logitSoftcap?: number } {
  if (type !== 'gemma2' && type !== 'gemma3_text') {
    for (const key of ['attn_logit_softcapping', 'final_logit_softcapping']) refuse(source, key, 'null for this model_type', []);
    return {};
  }
  // an absent key is the class's default, a null one none
  const [score, logit] = type === 'gemma2' ? [50, 30] : [null, null];
  const scoreSoftcap = c.attn_logit_softcapping === undefined ? score : c.attn_logit_softcapping;
  const logitSoftcap = c.final_logit_softcapping === undefined ? logit : c.final_logit_softcapping;
  return { ...(scoreSoftcap === null ? {} : { scoreSoftcap }), ...(logitSoftcap === null ? {} : { logitSoftcap }) };
}

function attentionLayers(source: ConfigSource, c: Keys, type: LlamaModelType, headDim: number): AttentionLayer[] {
  const family = FAMILIES[type];
  const maxPositions = c.max_position_embeddings ?? family.maxPositions;
  const gemma3 = type === 'gemma3_text';
  const ropes = ropeParameters(source, c, {
    headDim,
    maxPositions,
    theta: { full: gemma3 ? 1e6 : 1e4, sliding: 1e4 },
    phi3: type === 'phi3',
    localRope: gemma3,
    originalMaxPositions: type === 'phi3' ? 4096 : maxPositions,
  });
  const off = family === FAMILIES.qwen2 || family === FAMILIES.qwen3 ? c.use_sliding_window !== true : false;
  const window = off ? null : c.sliding_window === undefined ? family.window : c.sliding_window;
  const scale = (family.gemma ? (c.query_pre_attn_scalar ?? 256) : headDim) ** -0.5;
  const build = (kind: LayerKind): AttentionLayer => ({
    kind,
    ...(kind === 'sliding' ? { window: window! } : {}),
    scale,
    rope: ropes[kind] satisfies RopeParameters,
  });
  const layers = { full: build('full'), sliding: build('sliding') };
  return layerKinds(source, c, family, window).map((kind) => layers[kind]);
}

/** `layer_types` where the file has it, else the class's rule. */
function layerKinds(source: ConfigSource, c: Keys, family: Family, window: number | null): LayerKind[] {
  const rule = { ...c, sliding_window: window };
  if (c.layer_types == null) {
    const kinds = Array.from({ length: c.num_hidden_layers }, (_, i) => family.layerKind(i, rule));
    // gemma's rule alternates whether there is a window or not
    return window === null ? kinds.map(() => 'full') : kinds;
  }
  if (c.layer_types.length !== c.num_hidden_layers) {
    throw configError(source, 'layer_types', `${c.num_hidden_layers} entries, one for each layer`, `${c.layer_types.length} entries`);
  }
  return c.layer_types.map((name, i) => {
    if (name === 'full_attention') return 'full';
    if (name !== 'sliding_attention') throw configError(source, `layer_types.${i}`, '"full_attention" or "sliding_attention"');
    if (window === null) throw configError(source, `layer_types.${i}`, '"full_attention": the config has no window (sliding_window, use_sliding_window)');
    return 'sliding';
  });
}
