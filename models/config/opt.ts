/** Config of opt. Defaults are those of transformers' class; the LayerNorms' epsilon is torch's, no key has it. */
import * as z from 'zod';
import { activation, commonFields, commonKeys, evenHeads, flag, readConfig, size, type ConfigSource } from './read.js';
import type { OptConfig } from './types.js';

const schema = z.looseObject({
  ...commonKeys,
  vocab_size: size,
  hidden_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  ffn_dim: size,
  max_position_embeddings: size.nullish(),
  word_embed_proj_dim: size.nullish(),
  activation_function: activation.nullish(),
  do_layer_norm_before: flag.nullish(),
  _remove_final_layer_norm: flag.nullish(),
  enable_bias: flag.nullish(),
  layer_norm_elementwise_affine: flag.nullish(),
});

export function parseOpt(source: ConfigSource): OptConfig {
  const c = readConfig(source, schema);
  const headDim = evenHeads(source, c.hidden_size, c.num_attention_heads, 'num_attention_heads');
  const preNorm = c.do_layer_norm_before ?? true;
  const layer = { kind: 'full' as const, scale: headDim ** -0.5 };
  return {
    family: 'opt',
    modelType: 'opt',
    ...commonFields(c),
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    intermediateSize: c.ffn_dim,
    numLayers: c.num_hidden_layers,
    numHeads: c.num_attention_heads,
    headDim,
    maxPositions: c.max_position_embeddings ?? 2048,
    positionOffset: 2,
    embedSize: c.word_embed_proj_dim ?? c.hidden_size,
    activation: c.activation_function ?? 'relu',
    norm: { kind: 'layer', eps: 1e-5 },
    preNorm,
    finalNorm: preNorm && c._remove_final_layer_norm !== true,
    bias: c.enable_bias ?? true,
    normAffine: c.layer_norm_elementwise_affine ?? true,
    layers: Array.from({ length: c.num_hidden_layers }, () => layer),
    tied: c.tie_word_embeddings ?? true,
    names: { prefixes: ['model.decoder.', 'decoder.', ''], probe: 'layers.0.fc1.weight', heads: ['lm_head.weight'] },
  };
}
