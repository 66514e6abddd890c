/** Config of whisper. Defaults are those of transformers' class; the LayerNorms' epsilon is torch's, no key has it. */
import * as z from 'zod';
import { activation, commonFields, commonKeys, evenHeads, readConfig, size, type ConfigSource } from './read.js';
import type { WhisperConfig } from './types.js';

const schema = z.looseObject({
  ...commonKeys,
  vocab_size: size,
  d_model: size,
  num_mel_bins: size.nullish(),
  encoder_layers: size,
  encoder_attention_heads: size,
  encoder_ffn_dim: size,
  decoder_layers: size,
  decoder_attention_heads: size,
  decoder_ffn_dim: size,
  max_source_positions: size.nullish(),
  max_target_positions: size.nullish(),
  activation_function: activation.nullish(),
});

export function parseWhisper(source: ConfigSource): WhisperConfig {
  const c = readConfig(source, schema);
  const maxPositions = c.max_target_positions ?? 448;
  return {
    family: 'whisper',
    modelType: 'whisper',
    ...commonFields(c),
    vocabSize: c.vocab_size,
    hiddenSize: c.d_model,
    numMelBins: c.num_mel_bins ?? 80,
    maxPositions,
    encoder: {
      numLayers: c.encoder_layers,
      numHeads: c.encoder_attention_heads,
      headDim: evenHeads(source, c.d_model, c.encoder_attention_heads, 'encoder_attention_heads'),
      intermediateSize: c.encoder_ffn_dim,
      maxPositions: c.max_source_positions ?? 1500,
    },
    decoder: {
      numLayers: c.decoder_layers,
      numHeads: c.decoder_attention_heads,
      headDim: evenHeads(source, c.d_model, c.decoder_attention_heads, 'decoder_attention_heads'),
      intermediateSize: c.decoder_ffn_dim,
      maxPositions,
    },
    activation: c.activation_function ?? 'gelu',
    norm: { kind: 'layer', eps: 1e-5 },
    tied: c.tie_word_embeddings ?? true,
    names: { prefixes: ['model.', ''], probe: 'encoder.conv1.weight', heads: ['proj_out.weight'] },
  };
}
