/** Config of vit. Defaults are those of transformers' class. */
import * as z from 'zod';
import { activation, commonFields, commonKeys, configError, dictionary, evenHeads, flag, positive, readConfig, size, type ConfigSource } from './read.js';
import type { VitConfig } from './types.js';

const pixels = z
  .union([size, z.tuple([size, size])], 'a positive integer or two of them')
  .transform((p): [number, number] => (typeof p === 'number' ? [p, p] : p));

const schema = z.looseObject({
  ...commonKeys,
  hidden_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  intermediate_size: size,
  hidden_act: activation.nullish(),
  layer_norm_eps: positive.nullish(),
  image_size: pixels.nullish(),
  patch_size: pixels.nullish(),
  num_channels: size.nullish(),
  qkv_bias: flag.nullish(),
  pooler_output_size: size.nullish(),
  pooler_act: activation.nullish(),
  id2label: dictionary.nullish(),
  num_labels: size.nullish(),
});

export function parseVit(source: ConfigSource): VitConfig {
  const c = readConfig(source, schema);
  const image = c.image_size ?? [224, 224];
  const patch = c.patch_size ?? [16, 16];
  if (image.some((side, i) => side < patch[i]!)) throw configError(source, 'patch_size', `at most the image's ${image.join('x')} pixels`);
  return {
    family: 'vit',
    modelType: 'vit',
    ...commonFields(c),
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    numLayers: c.num_hidden_layers,
    numHeads: c.num_attention_heads,
    headDim: evenHeads(source, c.hidden_size, c.num_attention_heads, 'num_attention_heads'),
    imageSize: image,
    patchSize: patch,
    numChannels: c.num_channels ?? 3,
    numTokens: 1 + Math.floor(image[0] / patch[0]) * Math.floor(image[1] / patch[1]),
    qkvBias: c.qkv_bias ?? true,
    activation: c.hidden_act ?? 'gelu',
    norm: { kind: 'layer', eps: c.layer_norm_eps ?? 1e-12 },
    pooler: { size: c.pooler_output_size ?? c.hidden_size, activation: c.pooler_act ?? 'tanh' },
    // transformers counts two labels where a file names none
    numLabels: c.id2label == null ? (c.num_labels ?? 2) : Object.keys(c.id2label).length,
    names: { prefixes: ['vit.', ''], probe: 'embeddings.cls_token', heads: ['classifier.weight'] },
  };
}
