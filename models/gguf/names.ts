/**
 * Tensor names of GGUF files <-> those of transformers, for each `general.architecture`, and what llama.cpp's converter did to the values
 * (`convert_hf_to_gguf.py`, `gguf-py/gguf/tensor_mapping.py`). Blocks and dtypes are no concern of this file.
 */
import { PithError } from '../../core/errors.js';
import { headCounts, type GgufMetadata } from './metadata.js';

/**
 * Done to the stored rows to have the model's:
 * `heads`: rows of each head lie as pairs (i, i + hd/2), because ggml rotates neighbours; they move whole;
 * `transpose`: (out, in) is stored, transformers' Conv1D holds (in, out);
 * `minus-one`: w + 1 is stored.
 */
export type Transform = { readonly kind: 'none' } | { readonly kind: 'heads'; readonly heads: number } | { readonly kind: 'transpose' | 'minus-one' };

export interface MappedTensor {
  readonly stored: string;
  readonly name: string;
  readonly transform: Transform;
}

interface Architecture {
  /** Modules outside of the layers, by their GGUF name. */
  readonly top: Readonly<Record<string, string>>;
  /** Prefix of layer N's modules, with N as `*`. */
  readonly prefix: string;
  readonly layer: Readonly<Record<string, string>>;
  /** Rows of attn_q and attn_k are permuted. */
  readonly permuted?: true;
  /** Modules of a layer whose weight is a Conv1D's. */
  readonly conv1d?: readonly string[];
  /** Norm weights are stored plus one. */
  readonly plusOne?: true;
}

const decoderTop = { token_embd: 'model.embed_tokens', output_norm: 'model.norm', output: 'lm_head' };
const decoderLayer = {
  attn_norm: 'input_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  ffn_norm: 'post_attention_layernorm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
};
const qkNorm = { attn_q_norm: 'self_attn.q_norm', attn_k_norm: 'self_attn.k_norm' };
const decoder: Architecture = { top: decoderTop, prefix: 'model.layers.*.', layer: decoderLayer };
const gemma2: Architecture = {
  ...decoder,
  layer: {
    ...decoderLayer,
    ffn_norm: 'pre_feedforward_layernorm',
    post_attention_norm: 'post_attention_layernorm',
    post_ffw_norm: 'post_feedforward_layernorm',
  },
  plusOne: true,
};

const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  llama: { ...decoder, permuted: true },
  // its converter is llama's too
  smollm3: { ...decoder, permuted: true },
  qwen2: decoder,
  qwen3: { ...decoder, layer: { ...decoderLayer, ...qkNorm } },
  gemma: { ...decoder, plusOne: true },
  gemma2,
  gemma3: { ...gemma2, layer: { ...gemma2.layer, ...qkNorm } },
  phi3: { ...decoder, layer: { ...decoderLayer, attn_qkv: 'self_attn.qkv_proj', ffn_up: 'mlp.gate_up_proj' } },
  gpt2: {
    top: { token_embd: 'transformer.wte', position_embd: 'transformer.wpe', output_norm: 'transformer.ln_f', output: 'lm_head' },
    prefix: 'transformer.h.*.',
    layer: { attn_norm: 'ln_1', attn_qkv: 'attn.c_attn', attn_output: 'attn.c_proj', ffn_norm: 'ln_2', ffn_up: 'mlp.c_fc', ffn_down: 'mlp.c_proj' },
    conv1d: ['attn_qkv', 'attn_output', 'ffn_up', 'ffn_down'],
  },
  bert: {
    top: {
      token_embd: 'embeddings.word_embeddings',
      position_embd: 'embeddings.position_embeddings',
      token_types: 'embeddings.token_type_embeddings',
      token_embd_norm: 'embeddings.LayerNorm',
    },
    prefix: 'encoder.layer.*.',
    layer: {
      attn_q: 'attention.self.query',
      attn_k: 'attention.self.key',
      attn_v: 'attention.self.value',
      attn_output: 'attention.output.dense',
      attn_output_norm: 'attention.output.LayerNorm',
      ffn_up: 'intermediate.dense',
      ffn_down: 'output.dense',
      layer_output_norm: 'output.LayerNorm',
    },
  },
};

export const isKnownArchitecture = (name: string): boolean => Object.hasOwn(ARCHITECTURES, name);

/** Tensors that are no weights of the model: what they say stands in its config. */
export const CONFIG_TENSORS: ReadonlySet<string> = new Set(['rope_freqs.weight', 'rope_factors_long.weight', 'rope_factors_short.weight']);

/** Each layer has one spelling, so that no two tensors have one name. */
const LAYER = /^blk\.(0|[1-9]\d*)\.(.+)\.(weight|bias)$/;
const TOP = /^(.+)\.(weight|bias)$/;

/** The model's name of one tensor, or undefined when the architecture has no such tensor. */
export function modelName(architecture: string, stored: string): string | undefined {
  const a = Object.hasOwn(ARCHITECTURES, architecture) ? ARCHITECTURES[architecture]! : undefined;
  if (a === undefined) return undefined;
  const [, index, inLayer, layerSuffix] = LAYER.exec(stored) ?? [];
  if (index !== undefined) {
    const module = own(a.layer, inLayer!);
    return module === undefined ? undefined : `${a.prefix.replace('*', index)}${module}.${layerSuffix!}`;
  }
  const [, outside, suffix] = TOP.exec(stored) ?? [];
  const module = outside === undefined ? undefined : own(a.top, outside);
  return module === undefined ? undefined : `${module}.${suffix!}`;
}

const own = (from: Readonly<Record<string, string>>, key: string): string | undefined => (Object.hasOwn(from, key) ? from[key] : undefined);

function transformOf(architecture: string, stored: string, meta: GgufMetadata): Transform {
  const a = ARCHITECTURES[architecture]!;
  const [, , module = '', suffix] = LAYER.exec(stored) ?? [];
  if (a.permuted === true && (module === 'attn_q' || module === 'attn_k')) {
    const { heads, kvHeads } = headCounts(meta, architecture);
    return { kind: 'heads', heads: module === 'attn_q' ? heads : kvHeads };
  }
  if (a.conv1d?.includes(module) === true && suffix === 'weight') return { kind: 'transpose' };
  if (a.plusOne === true && stored.endsWith('norm.weight')) return { kind: 'minus-one' };
  return { kind: 'none' };
}

export interface TensorMap {
  readonly tensors: readonly MappedTensor[];
  /** Names that the architecture does not have; they stay as they are. */
  readonly unknown: readonly string[];
}

/** Every tensor of a file in the file's order, those of the config left out. SHAPE_MISMATCH (65) when rows do not divide into heads. */
export function mapTensors(meta: GgufMetadata, stored: Iterable<{ readonly name: string; readonly shape: readonly number[] }>): TensorMap {
  const architecture = meta.string('general.architecture') ?? '';
  const all = [...stored].filter((t) => !CONFIG_TENSORS.has(t.name));
  const names = new Set(all.map((t) => t.name));
  const unknown: string[] = [];
  const tensors = all.map((t): MappedTensor => {
    const name = modelName(architecture, t.name);
    // a file may hold anything: another tensor's own name is not taken from it
    if (name === undefined || names.has(name)) {
      unknown.push(t.name);
      return { stored: t.name, name: t.name, transform: { kind: 'none' } };
    }
    const transform = transformOf(architecture, t.name, meta);
    const rows = t.shape[0] ?? 1;
    if (transform.kind === 'heads' && rows % (2 * transform.heads) !== 0) {
      throw new PithError('SHAPE_MISMATCH', {
        file: meta.path,
        tensor: t.name,
        expected: `rows of ${transform.heads} heads of even size`,
        got: `${rows} rows`,
      });
    }
    if (transform.kind === 'transpose' && t.shape.length !== 2) {
      throw new PithError('SHAPE_MISMATCH', { file: meta.path, tensor: t.name, expected: 'a matrix', got: `[${t.shape.join(', ')}]` });
    }
    return { stored: t.name, name, transform };
  });
  return { tensors, unknown };
}
