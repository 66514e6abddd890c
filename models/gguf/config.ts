/**
 * A GGUF's metadata -> config.json as transformers and models/ read it. What the file does not say is what llama.cpp takes for granted for
 * the architecture (`llama-model.cpp`): activations, gemma's layer pattern and query scale.
 */
import { headCounts, layerCount, requiredNumber, shortest, type GgufMetadata } from './metadata.js';
import { ropeScaling, type RopeFactors } from './rope.js';

export interface ConfigInput {
  readonly meta: GgufMetadata;
  /** Shape of a stored tensor, by its GGUF name. */
  readonly shape: (name: string) => readonly number[] | undefined;
  readonly factors: RopeFactors;
}

export interface ConfigResult {
  /** undefined for an architecture that is not known. */
  readonly config: Readonly<Record<string, unknown>> | undefined;
  readonly warnings: readonly string[];
}

type Keys = Record<string, unknown>;

export function modelConfigOf(input: ConfigInput): ConfigResult {
  const architecture = input.meta.string('general.architecture') ?? '';
  const warnings: string[] = [];
  const build = Object.hasOwn(BUILDERS, architecture) ? BUILDERS[architecture] : undefined;
  if (build === undefined) return { config: undefined, warnings };
  const own = build({ ...input, architecture, warnings });
  return { config: { ...own, ...common(input) }, warnings };
}

interface Context extends ConfigInput {
  readonly architecture: string;
  readonly warnings: string[];
}

/** What most matrices are read as: `general.file_type` 1 is F16, 32 BF16, quantized ones become f32. */
function torchDtype(meta: GgufMetadata): string {
  const type = meta.number('general.file_type');
  return type === 1 ? 'float16' : type === 32 ? 'bfloat16' : 'float32';
}

function common({ meta, shape }: ConfigInput): Keys {
  const token = (name: string): Keys => {
    const id = meta.number(`tokenizer.ggml.${name}`);
    return id === undefined ? {} : { [name === 'padding_token_id' ? 'pad_token_id' : name]: id };
  };
  const tokens = shape('token_embd.weight')?.[0];
  return {
    ...token('bos_token_id'),
    ...token('eos_token_id'),
    ...token('padding_token_id'),
    tie_word_embeddings: shape('output.weight') === undefined,
    torch_dtype: torchDtype(meta),
    ...(tokens === undefined ? {} : { vocab_size: tokens }),
  };
}

const f32 = (meta: GgufMetadata, key: string): number => shortest(requiredNumber(meta, key));

/** Keys of every decoder with rotary attention and RMS norms. */
function decoder(c: Context, modelType: string, name: string): Keys {
  const { meta, architecture: a, shape } = c;
  const { heads, kvHeads } = headCounts(meta, a);
  const hidden = requiredNumber(meta, `${a}.embedding_length`);
  const headDim = meta.number(`${a}.attention.key_length`) ?? meta.number(`${a}.rope.dimension_count`);
  const theta = shortest(meta.number(`${a}.rope.freq_base`) ?? 10000);
  const rotated = meta.number(`${a}.rope.dimension_count`) ?? headDim ?? hidden / heads;
  const rope = ropeScaling(meta, a, theta, rotated, c.factors);
  if (rope.warning !== undefined) c.warnings.push(rope.warning);
  return {
    architectures: [name],
    model_type: modelType,
    hidden_size: hidden,
    intermediate_size: requiredNumber(meta, `${a}.feed_forward_length`),
    num_hidden_layers: layerCount(meta, a),
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    ...(headDim === undefined ? {} : { head_dim: headDim }),
    max_position_embeddings: requiredNumber(meta, `${a}.context_length`),
    rms_norm_eps: f32(meta, `${a}.attention.layer_norm_rms_epsilon`),
    hidden_act: 'silu',
    attention_bias: shape('blk.0.attn_q.bias') !== undefined,
    attention_dropout: 0,
    rope_theta: theta,
    ...(rope.scaling === undefined ? {} : { rope_scaling: rope.scaling }),
    ...(rope.originalLength === undefined ? {} : { original_max_position_embeddings: rope.originalLength }),
    use_cache: true,
  };
}

const without = (keys: Keys, ...names: string[]): Keys => Object.fromEntries(Object.entries(keys).filter(([name]) => !names.includes(name)));

function llama(c: Context): Keys {
  const { meta, architecture: a, shape } = c;
  const window = meta.number(`${a}.attention.sliding_window`) ?? 0;
  if (window > 0) return { ...without(decoder(c, 'mistral', 'MistralForCausalLM'), 'attention_bias'), sliding_window: window };
  return { ...decoder(c, 'llama', 'LlamaForCausalLM'), mlp_bias: shape('blk.0.ffn_up.bias') !== undefined };
}

function qwen2(c: Context): Keys {
  const keys = decoder(c, 'qwen2', 'Qwen2ForCausalLM');
  const { heads } = headCounts(c.meta, c.architecture);
  // its class has no head_dim of its own
  const usual = keys['head_dim'] === (keys['hidden_size'] as number) / heads;
  return { ...without(keys, 'attention_bias', ...(usual ? ['head_dim'] : [])), use_sliding_window: false };
}

const qwen3 = (c: Context): Keys => ({ ...decoder(c, 'qwen3', 'Qwen3ForCausalLM'), use_sliding_window: false });

/** Layers of the largest gemma2 and gemma3: their query scale is that of hidden size / heads, not of the head. */
const GEMMA_27B = { gemma2: 46, gemma3: 62 };

function gemma(c: Context, modelType: string, name: string): Keys {
  // `hidden_act` is what early versions read
  return { ...decoder(c, modelType, name), hidden_activation: 'gelu_pytorch_tanh', hidden_act: 'gelu_pytorch_tanh' };
}

function gemmaLater(c: Context, modelType: string, name: string, fullEvery: number): Keys {
  const { meta, architecture: a } = c;
  const keys = gemma(c, modelType, name);
  const [layers, hidden, heads] = ['num_hidden_layers', 'hidden_size', 'num_attention_heads'].map((k) => keys[k] as number) as [number, number, number];
  const window = meta.number(`${a}.attention.sliding_window`);
  const large = layers === GEMMA_27B[a as keyof typeof GEMMA_27B];
  return {
    ...keys,
    query_pre_attn_scalar: large ? hidden / heads : (keys['head_dim'] ?? hidden / heads),
    ...(window === undefined ? {} : { sliding_window: window }),
    layer_types: Array.from({ length: layers }, (_, i) => ((i + 1) % fullEvery === 0 ? 'full_attention' : 'sliding_attention')),
  };
}

function gemma2(c: Context): Keys {
  const { meta } = c;
  const cap = (key: string, otherwise: number): number => shortest(meta.number(`gemma2.${key}`) ?? otherwise);
  return {
    ...gemmaLater(c, 'gemma2', 'Gemma2ForCausalLM', 2),
    attn_logit_softcapping: cap('attn_logit_softcapping', 50),
    final_logit_softcapping: cap('final_logit_softcapping', 30),
  };
}

function gemma3(c: Context): Keys {
  return { ...gemmaLater(c, 'gemma3_text', 'Gemma3ForCausalLM', 6), rope_local_base_freq: shortest(c.meta.number('gemma3.rope.freq_base_swa') ?? 10000) };
}

function phi3(c: Context): Keys {
  const { meta } = c;
  const keys = without(decoder(c, 'phi3', 'Phi3ForCausalLM'), 'attention_bias', 'head_dim');
  const headDim = (keys['hidden_size'] as number) / (keys['num_attention_heads'] as number);
  const share = (meta.number('phi3.rope.dimension_count') ?? headDim) / headDim;
  const original = meta.number('phi3.rope.scaling.original_context_length');
  const window = meta.number('phi3.attention.sliding_window') ?? 0;
  return {
    ...keys,
    original_max_position_embeddings: original ?? keys['max_position_embeddings'],
    ...(share === 1 ? {} : { partial_rotary_factor: share }),
    sliding_window: window > 0 ? window : null,
    // the class's own default lies outside of small vocabularies
    pad_token_id: null,
  };
}

function gpt2({ meta, architecture: a }: Context): Keys {
  const length = requiredNumber(meta, `${a}.context_length`);
  const [hidden, inner] = [requiredNumber(meta, `${a}.embedding_length`), requiredNumber(meta, `${a}.feed_forward_length`)];
  return {
    architectures: ['GPT2LMHeadModel'],
    model_type: 'gpt2',
    n_embd: hidden,
    n_layer: layerCount(meta, a),
    n_head: headCounts(meta, a).heads,
    n_positions: length,
    n_ctx: length,
    n_inner: inner === 4 * hidden ? null : inner,
    activation_function: 'gelu_new',
    layer_norm_epsilon: f32(meta, `${a}.attention.layer_norm_epsilon`),
  };
}

function bert({ meta, architecture: a, shape }: Context): Keys {
  return {
    architectures: ['BertModel'],
    model_type: 'bert',
    hidden_size: requiredNumber(meta, `${a}.embedding_length`),
    intermediate_size: requiredNumber(meta, `${a}.feed_forward_length`),
    num_hidden_layers: layerCount(meta, a),
    num_attention_heads: headCounts(meta, a).heads,
    max_position_embeddings: shape('position_embd.weight')?.[0] ?? requiredNumber(meta, `${a}.context_length`),
    type_vocab_size: shape('token_types.weight')?.[0] ?? 1,
    layer_norm_eps: f32(meta, `${a}.attention.layer_norm_epsilon`),
    hidden_act: 'gelu',
    position_embedding_type: 'absolute',
    pad_token_id: 0,
  };
}

const BUILDERS: Readonly<Record<string, (c: Context) => Keys>> = {
  llama,
  smollm3: (c) => decoder(c, 'smollm3', 'SmolLM3ForCausalLM'),
  qwen2,
  qwen3,
  gemma: (c) => gemma(c, 'gemma', 'GemmaForCausalLM'),
  gemma2,
  gemma3,
  phi3,
  gpt2,
  bert,
};

const FLOATS = [
  'attention_dropout',
  'attn_logit_softcapping',
  'beta_fast',
  'beta_slow',
  'factor',
  'final_logit_softcapping',
  'high_freq_factor',
  'low_freq_factor',
  'partial_rotary_factor',
  'rope_local_base_freq',
  'rope_theta',
];
const WHOLE_FLOAT = new RegExp(`^(\\s*"(?:${FLOATS.join('|')})": -?\\d+)(,?)$`, 'gm');

/** config.json as text. transformers tells 30 from 30.0 and refuses the one where it wants the other. */
export function configText(config: Readonly<Record<string, unknown>>): string {
  return `${JSON.stringify(config, null, 2).replace(WHOLE_FLOAT, '$1.0$2')}\n`;
}

/** generation_config.json: tokens that begin and end a text; a turn's end ends it as well. */
export function generationConfigOf(meta: GgufMetadata): Readonly<Record<string, unknown>> {
  const id = (name: string): number | undefined => meta.number(`tokenizer.ggml.${name}_token_id`);
  const ends = [...new Set([id('eos'), id('eot')].filter((n) => n !== undefined))];
  return {
    _from_model_config: true,
    ...(id('bos') === undefined ? {} : { bos_token_id: id('bos') }),
    ...(ends.length === 0 ? {} : { eos_token_id: ends.length === 1 ? ends[0] : ends }),
    ...(id('padding') === undefined ? {} : { pad_token_id: id('padding') }),
  };
}
