/** Every graph against checkpoints that do not fit it: a missing tensor, a wrong shape, a config of another model. */
import { expect } from 'chai';
import type { TensorInfo } from '../../core/tensor.js';
import { requireModelConfig } from '../../models/config/parse.js';
import type { AnyModelConfig } from '../../models/config/types.js';
import { stacksOf } from '../../models/index.js';
import { graphTensors } from '../../models/tensors.js';
import { expectCode } from '../support/expect-error.js';
import { modelConfigOf, modelNames } from '../support/goldens.js';
import { openGolden } from '../support/run-model.js';

type Infos = ReadonlyMap<string, TensorInfo>;

const configOf = (name: string, change: object = {}): AnyModelConfig => requireModelConfig({ ...(modelConfigOf(name) as object), ...change }, name);

async function infosOf(name: string): Promise<Infos> {
  const { reader } = await openGolden(name);
  await reader[Symbol.asyncDispose]();
  return reader.infos;
}

/** Names of the graph's tensors, each once. */
async function tensorNames(config: AnyModelConfig, file: string, infos: Infos): Promise<Set<string>> {
  return new Set((await stacksOf(config, { file, infos })).flatMap((s) => graphTensors(s).map((t) => t.name)));
}

const without = (infos: Infos, name: string): Infos => new Map([...infos].filter(([n]) => n !== name));

/** Tensors that a checkpoint may leave out: with them goes what they are for, or another tensor takes their place. */
const MAY_BE_ABSENT: Record<string, readonly string[]> = {
  'bert-sentence': ['pooler.dense.weight'],
  'vit-bare': ['pooler.dense.weight'],
  // either of two different weights would serve as both
  'llama-tied-other-head': ['model.embed_tokens.weight', 'lm_head.weight'],
};
/** What an error names for a missing tensor, where that is another name: without the tensor that tells the prefix, the usual prefix is asked for. */
function missedAs(name: string, { names: { prefixes, probe } }: AnyModelConfig, tensor: string): string {
  if (name === 'llama-head-only' && tensor === 'lm_head.weight') return 'model.embed_tokens.weight';
  return prefixes.some((p) => tensor === p + probe) ? prefixes[0]! + probe : tensor;
}

describe('models against checkpoints that do not fit', () => {
  for (const name of modelNames()) {
    it(`${name}: every tensor is missed, and its shape is checked`, async () => {
      const [config, infos] = [configOf(name), await infosOf(name)];
      const names = await tensorNames(config, name, infos);
      expect(names.size).to.be.greaterThan(7);
      const absent: string[] = [];
      for (const tensor of names) {
        const info = infos.get(tensor)!;
        const wrong = new Map(infos).set(tensor, { ...info, shape: [...info.shape.slice(0, -1), info.shape.at(-1)! + 1] });
        const { details } = await expectCode('SHAPE_MISMATCH', () => stacksOf(config, { file: name, infos: wrong }));
        expect(details).to.deep.include({
          file: name,
          tensor,
          got: `[${wrong.get(tensor)!.shape.join(', ')}]`,
          expected: `[${info.shape.join(', ')}] by config.json`,
        });
        if (MAY_BE_ABSENT[name]?.includes(tensor) === true) {
          absent.push(tensor);
          expect(await tensorNames(config, name, without(infos, tensor))).not.to.include(tensor);
          continue;
        }
        const missing = await expectCode('TENSOR_MISSING', () => stacksOf(config, { file: name, infos: without(infos, tensor) }));
        expect(missing.details).to.deep.include({ file: name, tensor: missedAs(name, config, tensor) });
      }
      expect(absent).to.have.members(MAY_BE_ABSENT[name] ?? []);
    });
  }

  const size = (name: string): 'n_layer' | 'num_hidden_layers' | 'decoder_layers' =>
    name === 'gpt2' ? 'n_layer' : name === 'whisper' ? 'decoder_layers' : 'num_hidden_layers';
  for (const [name, layer] of Object.entries({
    llama: 'model.layers.{}.self_attn.q_proj.weight',
    phi3: 'model.layers.{}.self_attn.qkv_proj.weight',
    gemma2: 'model.layers.{}.self_attn.q_proj.weight',
    gpt2: 'transformer.h.{}.attn.c_attn.weight',
    opt: 'model.decoder.layers.{}.self_attn.q_proj.weight',
    'bert-mlm': 'bert.encoder.layer.{}.attention.self.query.weight',
    vit: 'vit.encoder.layer.{}.attention.attention.query.weight',
    whisper: 'model.decoder.layers.{}.self_attn.q_proj.weight',
  })) {
    it(`${name}: a config of more layers`, async () => {
      const key = size(name);
      const layers = (modelConfigOf(name) as Record<string, number>)[key]!;
      const config = configOf(name, { [key]: layers + 1, layer_types: null });
      const table = { file: name, infos: await infosOf(name) };
      const { details } = await expectCode('TENSOR_MISSING', () => stacksOf(config, table));
      expect(details['tensor']).to.equal(layer.replace('{}', String(layers)));
    });
  }

  for (const [name, change, tensor] of [
    ['llama', { vocab_size: 49 }, 'model.embed_tokens.weight'],
    ['llama', { intermediate_size: 41 }, 'model.layers.0.mlp.gate_proj.weight'],
    ['llama', { num_key_value_heads: 1 }, 'model.layers.0.self_attn.k_proj.weight'],
    ['qwen3', { head_dim: 32 }, 'model.layers.0.self_attn.q_proj.weight'],
    ['gpt2', { n_positions: 4096 }, 'transformer.wpe.weight'],
    ['opt', { ffn_dim: 41 }, 'model.decoder.layers.0.fc1.weight'],
    ['bert-mlm', { type_vocab_size: 3 }, 'bert.embeddings.token_type_embeddings.weight'],
    ['vit', { image_size: 20 }, 'vit.embeddings.position_embeddings'],
    ['vit', { patch_size: 8 }, 'vit.embeddings.patch_embeddings.projection.weight'],
    ['vit', { id2label: { 0: 'a' } }, 'classifier.weight'],
    ['whisper', { num_mel_bins: 80 }, 'model.encoder.conv1.weight'],
    ['whisper', { max_source_positions: 1500 }, 'model.encoder.embed_positions.weight'],
    ['whisper', { decoder_ffn_dim: 25 }, 'model.decoder.layers.0.fc1.weight'],
  ] as const) {
    it(`${name} with ${JSON.stringify(change)}: ${tensor}`, async () => {
      const table = { file: name, infos: await infosOf(name) };
      const { details } = await expectCode('SHAPE_MISMATCH', () => stacksOf(configOf(name, change), table));
      expect(details['tensor']).to.equal(tensor);
    });
  }

  it('a head that a config promises', async () => {
    for (const [name, architecture, tensor] of [
      ['bert-sentence', 'BertForMaskedLM', 'cls.predictions.transform.dense.weight'],
      ['vit-bare', 'ViTForImageClassification', 'classifier.weight'],
    ] as const) {
      const config = configOf(name, { architectures: [architecture] });
      const table = { file: name, infos: await infosOf(name) };
      const { details } = await expectCode('TENSOR_MISSING', () => stacksOf(config, table));
      expect(details['tensor']).to.equal(tensor);
    }
  });

  it('a checkpoint of another graph', async () => {
    for (const [config, infos, tensor] of [
      ['llama', 'gpt2', 'model.layers.0.input_layernorm.weight'],
      ['bert-mlm', 'vit', 'bert.embeddings.word_embeddings.weight'],
      ['vit', 'bert-mlm', 'vit.embeddings.cls_token'],
      ['whisper', 'opt', 'model.encoder.conv1.weight'],
    ] as const) {
      const table = { file: infos, infos: await infosOf(infos) };
      const { details } = await expectCode('TENSOR_MISSING', () => stacksOf(configOf(config), table));
      expect(details).to.deep.include({ file: infos, tensor });
    }
  });
});
