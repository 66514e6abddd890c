/** Config of gpt2. Defaults are those of transformers' class. */
import * as z from 'zod';
import { activation, commonFields, commonKeys, evenHeads, flag, positive, readConfig, refuse, size, type ConfigSource } from './read.js';
import type { AttentionLayer, Gpt2Config } from './types.js';

const schema = z.looseObject({
  ...commonKeys,
  vocab_size: size,
  n_embd: size,
  n_layer: size,
  n_head: size,
  n_positions: size.nullish(),
  n_inner: size.nullish(),
  activation_function: activation.nullish(),
  layer_norm_epsilon: positive.nullish(),
  scale_attn_weights: flag.nullish(),
  scale_attn_by_inverse_layer_idx: flag.nullish(),
});

export function parseGpt2(source: ConfigSource): Gpt2Config {
  const c = readConfig(source, schema);
  refuse(source, 'add_cross_attention', 'false: only decoders without an encoder are built', [false]);
  const headDim = evenHeads(source, c.n_embd, c.n_head, 'n_head');
  const scale = c.scale_attn_weights === false ? 1 : headDim ** -0.5;
  const inverse = c.scale_attn_by_inverse_layer_idx === true;
  const layers = Array.from({ length: c.n_layer }, (_, i): AttentionLayer => ({ kind: 'full', scale: inverse ? scale / (i + 1) : scale }));
  return {
    family: 'gpt2',
    modelType: 'gpt2',
    ...commonFields(c),
    vocabSize: c.vocab_size,
    hiddenSize: c.n_embd,
    intermediateSize: c.n_inner ?? 4 * c.n_embd,
    numLayers: c.n_layer,
    numHeads: c.n_head,
    headDim,
    maxPositions: c.n_positions ?? 1024,
    activation: c.activation_function ?? 'gelu_tanh',
    norm: { kind: 'layer', eps: c.layer_norm_epsilon ?? 1e-5 },
    layers,
    tied: c.tie_word_embeddings ?? true,
    names: { prefixes: ['transformer.', ''], probe: 'h.0.ln_1.weight', heads: ['lm_head.weight'] },
  };
}
