/** Config of bert (and the MiniLM sentence encoders). Defaults are those of transformers' class. */
import * as z from 'zod';
import { activation, commonFields, commonKeys, count, evenHeads, positive, readConfig, refuse, size, type ConfigSource } from './read.js';
import type { BertConfig } from './types.js';

const schema = z.looseObject({
  ...commonKeys,
  vocab_size: size,
  hidden_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  intermediate_size: size,
  max_position_embeddings: size.nullish(),
  type_vocab_size: size.nullish(),
  hidden_act: activation.nullish(),
  layer_norm_eps: positive.nullish(),
  pad_token_id: count.nullish(),
});

export function parseBert(source: ConfigSource): BertConfig {
  const c = readConfig(source, schema);
  refuse(source, 'is_decoder', 'false: only encoders are built', [false]);
  refuse(source, 'position_embedding_type', '"absolute"', ['absolute']);
  const padToken = c.pad_token_id === undefined ? 0 : c.pad_token_id;
  return {
    family: 'bert',
    modelType: 'bert',
    ...commonFields(c),
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    numLayers: c.num_hidden_layers,
    numHeads: c.num_attention_heads,
    headDim: evenHeads(source, c.hidden_size, c.num_attention_heads, 'num_attention_heads'),
    maxPositions: c.max_position_embeddings ?? 512,
    typeVocabSize: c.type_vocab_size ?? 2,
    activation: c.hidden_act ?? 'gelu',
    norm: { kind: 'layer', eps: c.layer_norm_eps ?? 1e-12 },
    ...(padToken === null ? {} : { padToken }),
    tied: c.tie_word_embeddings ?? true,
    names: { prefixes: ['bert.', ''], probe: 'embeddings.word_embeddings.weight', heads: ['cls.predictions.decoder.weight'] },
  };
}
