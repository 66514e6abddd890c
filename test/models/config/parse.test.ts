/** Both spellings, defaults, layer types, and every way a config is refused. */
import { expect } from 'chai';
import type { RopeParameters } from '../../../kernels/nn/rope.js';
import { namePrefix, parseModelConfig, requireCausalConfig, requireModelConfig } from '../../../models/config/parse.js';
import type { LlamaConfig } from '../../../models/config/types.js';
import { expectCode } from '../../support/expect-error.js';

const SIZES = { vocab_size: 96, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 6, num_attention_heads: 4 };
const llama = (extra: object = {}, type = 'llama'): LlamaConfig => parseModelConfig({ model_type: type, ...SIZES, ...extra }, 'config.json') as LlamaConfig;
const rope = (extra: object, type?: string): RopeParameters => llama(extra, type).layers[0]!.rope!;

describe('models/config: llama family', () => {
  it('a llama with nothing said', () => {
    const c = llama();
    expect(c).to.deep.include({
      family: 'llama',
      modelType: 'llama',
      vocabSize: 96,
      hiddenSize: 32,
      intermediateSize: 48,
      numLayers: 6,
      numHeads: 4,
      numKvHeads: 4,
      headDim: 8,
    });
    expect(c).to.deep.include({ maxPositions: 2048, activation: 'silu', norm: { kind: 'rms', eps: 1e-6 }, embedScale: 1, tied: false });
    expect(c).to.deep.include({ qkNorm: false, postNorms: false, fusedProjections: false, bias: { qkv: false, o: false, mlp: false } });
    expect(c.layers).to.have.length(6);
    expect(c.layers[5]).to.deep.equal({ kind: 'full', scale: 8 ** -0.5, rope: { type: 'default', theta: 10000, rotaryDim: 8 } });
    expect(c.layers[0]!.rope).to.equal(c.layers[5]!.rope);
    for (const key of ['architecture', 'dtype', 'scoreSoftcap', 'logitSoftcap']) expect(c).not.to.have.property(key);
  });

  it('what the file says wins over defaults; null is absent', () => {
    const c = llama({
      head_dim: 12,
      num_key_value_heads: 2,
      rms_norm_eps: 1e-5,
      tie_word_embeddings: true,
      attention_bias: true,
      mlp_bias: true,
      hidden_act: 'gelu',
    });
    expect(c).to.deep.include({
      headDim: 12,
      numKvHeads: 2,
      norm: { kind: 'rms', eps: 1e-5 },
      tied: true,
      activation: 'gelu',
      bias: { qkv: true, o: true, mlp: true },
    });
    expect(c.layers[0]!.scale).to.equal(12 ** -0.5);
    expect(llama({ head_dim: null, num_key_value_heads: null, rope_scaling: null, rope_parameters: null })).to.deep.equal(llama());
  });

  it('both spellings of dtype and of rope', () => {
    expect(llama({ torch_dtype: 'bfloat16', architectures: ['LlamaForCausalLM'] })).to.include({ dtype: 'bfloat16', architecture: 'LlamaForCausalLM' });
    expect(llama({ dtype: 'float16', torch_dtype: 'float32' }).dtype).to.equal('float16');
    const scaled = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 16 };
    const old = rope({ rope_theta: 5e5, rope_scaling: { type: 'llama3', ...scaled } });
    expect(old).to.deep.equal({ type: 'llama3', theta: 5e5, rotaryDim: 8, factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 16 });
    expect(rope({ rope_parameters: { rope_type: 'llama3', rope_theta: 5e5, ...scaled } })).to.deep.equal(old);
    expect(
      rope({ rope_theta: 5e5, rope_scaling: { rope_type: 'llama3', ...scaled }, rope_parameters: { rope_type: 'llama3', rope_theta: 5e5 } }),
    ).to.deep.equal(old);
  });

  it('rope types and their defaults', () => {
    expect(rope({ rope_scaling: { type: 'linear', factor: 2 } })).to.deep.include({ type: 'linear', factor: 2 });
    expect(rope({ max_position_embeddings: 20, rope_scaling: { type: 'dynamic', factor: 2 } })).to.deep.include({ type: 'dynamic', maxPositions: 20 });
    expect(rope({ max_position_embeddings: 64, rope_scaling: { type: 'yarn', original_max_position_embeddings: 16 } })).to.deep.equal({
      type: 'yarn', theta: 10000, rotaryDim: 8, factor: 4, originalMaxPositions: 16, betaFast: 32, betaSlow: 1, truncate: true,
    }); // prettier-ignore
    expect(rope({ rope_scaling: { type: 'yarn', factor: 2, mscale: 0.7, mscale_all_dim: 1, truncate: false, attention_factor: 1.5, beta_fast: 16, beta_slow: 2 } })).to.deep.equal({
      type: 'yarn', theta: 10000, rotaryDim: 8, factor: 2, originalMaxPositions: 2048, betaFast: 16, betaSlow: 2, truncate: false, attentionFactor: 1.5, mscale: 0.7, mscaleAllDim: 1,
    }); // prettier-ignore
  });

  it('mistral: a window on every layer, none where it is null', () => {
    const at = (extra: object): unknown[] => llama(extra, 'mistral').layers.map((l) => l.window);
    expect(at({})).to.deep.equal(Array(6).fill(4096));
    expect(at({ sliding_window: 16 })).to.deep.equal(Array(6).fill(16));
    expect(at({ sliding_window: null })).to.deep.equal(Array(6).fill(undefined));
    expect(llama({ num_attention_heads: 32, hidden_size: 128 }, 'mistral').numKvHeads).to.equal(8);
    expect(llama({ num_attention_heads: 32, hidden_size: 128, num_key_value_heads: null }, 'mistral').numKvHeads).to.equal(32);
    expect(llama({ attention_bias: true }, 'mistral').bias.qkv).to.equal(false);
  });

  it('qwen2 and qwen3: windows from max_window_layers on, only when used', () => {
    const kinds = (extra: object): string =>
      llama(extra, 'qwen2')
        .layers.map((l) => l.kind[0])
        .join('');
    expect(kinds({ sliding_window: 16, max_window_layers: 4 })).to.equal('ffffff');
    expect(kinds({ sliding_window: 16, max_window_layers: 4, use_sliding_window: true })).to.equal('ffffss');
    expect(kinds({ sliding_window: null, max_window_layers: 4, use_sliding_window: true })).to.equal('ffffff');
    const types = ['sliding_attention', 'full_attention', 'full_attention', 'full_attention', 'full_attention', 'sliding_attention'];
    expect(kinds({ sliding_window: 16, use_sliding_window: true, layer_types: types })).to.equal('sffffs');
    expect(llama({}, 'qwen2')).to.deep.include({ headDim: 8, numKvHeads: 4, maxPositions: 32768, qkNorm: false, bias: { qkv: true, o: false, mlp: false } });
    expect(llama({ attention_bias: true }, 'qwen3')).to.deep.include({ headDim: 128, qkNorm: true, bias: { qkv: true, o: true, mlp: false } });
  });

  it('gemma2: alternating windows, soft caps, scales', () => {
    const c = llama({ query_pre_attn_scalar: 64, sliding_window: 16, hidden_activation: 'gelu' }, 'gemma2');
    expect(c).to.deep.include({ headDim: 256, numKvHeads: 4, norm: { kind: 'rms_plus_one', eps: 1e-6 }, tied: true, postNorms: true, qkNorm: false });
    expect(c).to.include({ embedScale: Math.fround(Math.sqrt(32)), scoreSoftcap: 50, logitSoftcap: 30, activation: 'gelu' });
    expect(c.layers.map((l) => l.window)).to.deep.equal([16, undefined, 16, undefined, 16, undefined]);
    expect(c.layers[0]!.scale).to.equal(0.125);
    const bare = llama({ attn_logit_softcapping: null, final_logit_softcapping: null, hidden_act: 'silu' }, 'gemma2');
    expect(bare).not.to.have.any.keys('scoreSoftcap', 'logitSoftcap');
    expect(bare.activation).to.equal('gelu_tanh');
  });

  it('gemma3: two rotations in both spellings, one full layer in six, text_config with its class sizes', () => {
    const old = { rope_theta: 5e5, rope_local_base_freq: 2e4, rope_scaling: { rope_type: 'linear', factor: 8 }, sliding_window: 16 };
    const c = llama(old, 'gemma3_text');
    expect(c.layers.map((l) => l.kind[0]).join('')).to.equal('sssssf');
    expect(c.layers[5]!.rope).to.deep.equal({ type: 'linear', theta: 5e5, rotaryDim: 256, factor: 8 });
    expect(c.layers[0]!.rope).to.deep.equal({ type: 'default', theta: 2e4, rotaryDim: 256 });
    expect(c).not.to.have.any.keys('scoreSoftcap', 'logitSoftcap');
    const now = {
      sliding_window: 16,
      rope_parameters: { full_attention: { rope_type: 'linear', factor: 8, rope_theta: 5e5 }, sliding_attention: { rope_theta: 2e4 } },
    };
    expect(llama(now, 'gemma3_text')).to.deep.equal(c);
    const thetas = llama({ sliding_window_pattern: 2 }, 'gemma3_text').layers.map((l) => l.rope!.theta);
    expect(thetas).to.deep.equal([1e4, 1e6, 1e4, 1e6, 1e4, 1e6]);
    const whole = {
      model_type: 'gemma3',
      architectures: ['Gemma3ForConditionalGeneration'],
      text_config: { model_type: 'gemma3_text', hidden_size: 2560, num_hidden_layers: 34 },
    };
    const inner = parseModelConfig(whole, 'config.json') as LlamaConfig;
    expect(inner).to.include({
      modelType: 'gemma3_text',
      architecture: 'Gemma3ForConditionalGeneration',
      numHeads: 8,
      numKvHeads: 4,
      headDim: 256,
      vocabSize: 262208,
      tied: true,
    });
    expect(namePrefix(inner, (t) => t === 'language_model.model.layers.0.input_layernorm.weight')).to.equal('language_model.model.');
    expect(namePrefix(inner, (t) => t === 'model.layers.0.input_layernorm.weight')).to.equal('model.');
    expect(namePrefix(inner, () => false)).to.equal(undefined);
  });

  it('phi3: fused projections, early names of longrope, the length outside of the dict, partial rotation', () => {
    const long = { short_factor: [1, 1.1, 1.2], long_factor: [2, 3, 4] };
    for (const type of ['longrope', 'su', 'yarn']) {
      const extra = { rope_scaling: { type, ...long }, partial_rotary_factor: 0.75, max_position_embeddings: 64, original_max_position_embeddings: 16 };
      expect(rope(extra, 'phi3')).to.deep.equal({
        type: 'longrope', theta: 10000, rotaryDim: 6, factor: 4, originalMaxPositions: 16, shortFactor: [1, 1.1, 1.2], longFactor: [2, 3, 4],
      }); // prettier-ignore
    }
    expect(llama({}, 'phi3')).to.deep.include({ fusedProjections: true, norm: { kind: 'rms', eps: 1e-5 }, numKvHeads: 4, tied: false });
    expect(llama({ sliding_window: 16 }, 'phi3').layers[3]!.window).to.equal(16);
  });
});

describe('models/config: other graphs', () => {
  it('gpt2', () => {
    const c = requireCausalConfig({ model_type: 'gpt2', vocab_size: 96, n_embd: 32, n_layer: 3, n_head: 4 }, 'c');
    expect(c).to.deep.include({
      family: 'gpt2',
      intermediateSize: 128,
      headDim: 8,
      maxPositions: 1024,
      activation: 'gelu_tanh',
      norm: { kind: 'layer', eps: 1e-5 },
      tied: true,
    });
    const scales = (extra: object): number[] =>
      requireCausalConfig({ model_type: 'gpt2', vocab_size: 96, n_embd: 32, n_layer: 3, n_head: 4, ...extra }, 'c').layers.map((l) => l.scale);
    expect(scales({})).to.deep.equal(Array(3).fill(8 ** -0.5));
    expect(scales({ scale_attn_by_inverse_layer_idx: true })).to.deep.equal([8 ** -0.5, 8 ** -0.5 / 2, 8 ** -0.5 / 3]);
    expect(scales({ scale_attn_weights: false })).to.deep.equal([1, 1, 1]);
  });

  it('opt', () => {
    const base = { model_type: 'opt', vocab_size: 96, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, ffn_dim: 64 };
    const c = parseModelConfig(base, 'c');
    expect(c).to.deep.include({
      family: 'opt',
      embedSize: 32,
      positionOffset: 2,
      preNorm: true,
      finalNorm: true,
      bias: true,
      normAffine: true,
      activation: 'relu',
      tied: true,
    });
    expect(parseModelConfig({ ...base, _remove_final_layer_norm: true }, 'c')).to.include({ preNorm: true, finalNorm: false });
    expect(parseModelConfig({ ...base, do_layer_norm_before: false, word_embed_proj_dim: 16 }, 'c')).to.include({
      preNorm: false,
      finalNorm: false,
      embedSize: 16,
    });
  });

  it('bert, vit, whisper', () => {
    const bert = {
      model_type: 'bert',
      vocab_size: 96,
      hidden_size: 32,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      intermediate_size: 64,
      architectures: ['BertModel'],
    };
    expect(parseModelConfig(bert, 'c')).to.deep.include({
      family: 'bert', headDim: 8, maxPositions: 512, typeVocabSize: 2, activation: 'gelu', norm: { kind: 'layer', eps: 1e-12 }, padToken: 0, tied: true, architecture: 'BertModel',
    }); // prettier-ignore
    const vit = {
      model_type: 'vit',
      hidden_size: 32,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      intermediate_size: 64,
      image_size: 32,
      patch_size: [16, 8],
      id2label: { 0: 'a', 1: 'b', 2: 'c' },
    };
    expect(parseModelConfig(vit, 'c')).to.deep.include({
      family: 'vit', imageSize: [32, 32], patchSize: [16, 8], numTokens: 9, numChannels: 3, qkvBias: true, numLabels: 3, pooler: { size: 32, activation: 'tanh' },
    }); // prettier-ignore
    const side = { encoder_layers: 1, encoder_attention_heads: 2, encoder_ffn_dim: 48, decoder_layers: 2, decoder_attention_heads: 4, decoder_ffn_dim: 64 };
    const whisper = parseModelConfig({ model_type: 'whisper', vocab_size: 96, d_model: 32, ...side }, 'c');
    expect(whisper).to.deep.include({
      family: 'whisper', numMelBins: 80, hiddenSize: 32, maxPositions: 448, norm: { kind: 'layer', eps: 1e-5 },
      encoder: { numLayers: 1, numHeads: 2, headDim: 16, intermediateSize: 48, maxPositions: 1500 },
      decoder: { numLayers: 2, numHeads: 4, headDim: 8, intermediateSize: 64, maxPositions: 448 },
    }); // prettier-ignore
  });

  it('an unknown model_type is undefined, and an error only for what must run', async () => {
    for (const document of [{ model_type: 'mamba', hidden_size: 'x' }, {}, { model_type: 7 }]) {
      expect(parseModelConfig(document, 'c')).to.equal(undefined);
      const error = await expectCode('MODEL_CONFIG', () => requireModelConfig(document, 'dir/config.json'));
      expect(error.exitCode).to.equal(65);
      expect(error.message).to.match(/^dir\/config\.json: key "model_type": expected one of llama, .*whisper, got ("mamba"|nothing|7)$/);
    }
    const bert = { model_type: 'bert', vocab_size: 96, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 64 };
    await expectCode('MODEL_CONFIG', () => requireCausalConfig(bert, 'c'));
  });
});

describe('models/config: refused', () => {
  const refused = (name: string, document: unknown, key: string, message: RegExp): void => {
    it(name, async () => {
      const error = await expectCode('MODEL_CONFIG', () => parseModelConfig(document, 'c.json'));
      expect(error.details['file']).to.equal('c.json');
      expect(error.details['key']).to.equal(key);
      expect(error.message).to.match(message);
    });
  };
  const of = (extra: object, type = 'llama'): object => ({ model_type: type, ...SIZES, ...extra });
  const gpt2 = { model_type: 'gpt2', vocab_size: 96, n_embd: 32, n_layer: 3, n_head: 4 };

  refused('no object', [1], '', /expected an object, got \[1\]/);
  refused('a missing size', of({ hidden_size: undefined }), 'hidden_size', /expected a positive integer, got nothing/);
  refused('a size that is text', of({ vocab_size: '96' }), 'vocab_size', /expected a positive integer, got "96"/);
  refused('a fraction', of({ num_hidden_layers: 1.5 }), 'num_hidden_layers', /got 1\.5/);
  refused('zero heads', of({ num_attention_heads: 0 }), 'num_attention_heads', /expected a positive integer, got 0/);
  refused('heads that do not divide the width', of({ num_attention_heads: 5 }), 'num_attention_heads', /a divisor of the width 32, got 5/);
  refused('key heads that do not divide heads', of({ num_key_value_heads: 3 }), 'num_key_value_heads', /a divisor of num_attention_heads 4, got 3/);
  refused('an unknown activation', of({ hidden_act: 'selu' }), 'hidden_act', /expected an activation: silu.*got "selu"/);
  refused('an inherited name is no activation', of({ hidden_act: 'toString' }), 'hidden_act', /got "toString"/);
  refused('an epsilon of 0', of({ rms_norm_eps: 0 }), 'rms_norm_eps', /a positive number, got 0/);
  refused('a flag that is a number', of({ tie_word_embeddings: 1 }), 'tie_word_embeddings', /true or false, got 1/);
  refused('too few layer types', of({ layer_types: ['full_attention'] }), 'layer_types', /6 entries, one for each layer, got "1 entries"/);
  refused('an unknown layer type', of({ layer_types: Array(6).fill('chunked_attention') }), 'layer_types.0', /got "chunked_attention"/);
  refused('a sliding layer and no window', of({ layer_types: Array(6).fill('sliding_attention') }), 'layer_types.0', /has no window/);
  refused('windows that are switched off', of({ layer_types: Array(6).fill('sliding_attention') }, 'qwen2'), 'layer_types.0', /use_sliding_window/);
  refused('soft caps of a graph that has none', of({ attn_logit_softcapping: 50 }), 'attn_logit_softcapping', /null for this model_type, got 50/);
  refused('attention to both sides', of({ use_bidirectional_attention: true }, 'gemma2'), 'use_bidirectional_attention', /got true/);
  refused('an unknown rope', of({ rope_scaling: { type: 'mrope' } }), 'rope_scaling.rope_type', /one of default, .*got "mrope"/);
  refused('su outside of phi3', of({ rope_scaling: { type: 'su', factor: 2 } }), 'rope_scaling.rope_type', /got "su"/);
  refused('a scaling without its factor', of({ rope_scaling: { type: 'linear' } }), 'rope_scaling.factor', /for rope_type "linear", got nothing/);
  refused('a negative factor', of({ rope_parameters: { rope_type: 'linear', factor: -1 } }), 'rope_parameters.factor', /a positive number, got -1/);
  const llama3 = { rope_type: 'llama3', factor: 8, low_freq_factor: 4, high_freq_factor: 4 };
  refused('llama3 bounds in the wrong order', of({ rope_parameters: llama3 }), 'rope_parameters.high_freq_factor', /more than low_freq_factor 4, got 4/);
  refused(
    'lists of the wrong length',
    of({ rope_scaling: { type: 'longrope', short_factor: [1], long_factor: [1] } }, 'phi3'),
    'rope_scaling.short_factor',
    /4 positive numbers/,
  );
  refused(
    'spellings that contradict',
    of({ rope_theta: 1e4, rope_parameters: { rope_theta: 5e5 } }),
    'rope_parameters.rope_theta',
    /expected 10000 .*got 500000/,
  );
  const two = { rope_scaling: { type: 'linear', factor: 2 }, rope_parameters: { rope_type: 'dynamic', factor: 2 } };
  refused('types that contradict', of(two), 'rope_parameters.rope_type', /expected "linear" .*got "dynamic"/);
  const lengths = { original_max_position_embeddings: 32, rope_scaling: { type: 'yarn', factor: 2, original_max_position_embeddings: 16 } };
  refused('lengths that contradict', of(lengths), 'rope_scaling.original_max_position_embeddings', /expected 32 .*got 16/);
  refused('partial rotation of a llama', of({ partial_rotary_factor: 0.5 }), 'rope_scaling.partial_rotary_factor', /got 0\.5/);
  refused('an odd number of rotated channels', of({ partial_rotary_factor: 0.4 }, 'phi3'), 'rope_scaling.partial_rotary_factor', /even number of channels/);
  refused(
    'a scaling of a layer type',
    of({ rope_parameters: { full_attention: { rope_type: 'x' } } }, 'gemma3_text'),
    'rope_parameters.full_attention.rope_type',
    /got "x"/,
  );
  refused('a dict that is a list', of({ rope_parameters: [] }), 'rope_parameters', /an object, got \[\]/);
  refused('a fault inside text_config', { model_type: 'gemma3', text_config: { hidden_size: -1 } }, 'text_config.hidden_size', /got -1/);
  refused('no text_config', { model_type: 'gemma3' }, 'text_config', /an object, got nothing/);
  refused('gpt2 heads', { ...gpt2, n_head: 5 }, 'n_head', /a divisor of the width 32, got 5/);
  refused('gpt2 with an encoder', { ...gpt2, add_cross_attention: true }, 'add_cross_attention', /got true/);
  const bert = { model_type: 'bert', vocab_size: 9, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 8 };
  refused('a bert decoder', { ...bert, is_decoder: true }, 'is_decoder', /got true/);
  refused('relative positions', { ...bert, position_embedding_type: 'relative_key' }, 'position_embedding_type', /expected "absolute", got "relative_key"/);
  const vit = { model_type: 'vit', hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 8 };
  refused('patches larger than the image', { ...vit, image_size: 8 }, 'patch_size', /at most the image's 8x8 pixels, got nothing/);
  refused('an image of three sides', { ...vit, image_size: [8, 8, 8] }, 'image_size', /a positive integer or two of them, got \[8,8,8\]/);
});
