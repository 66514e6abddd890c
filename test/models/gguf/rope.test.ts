/** llama3's scaling back from its divisors; what cannot be said in config.json is said in a warning. */
import { expect } from 'chai';
import type { GgufMetadata } from '../../../models/gguf/metadata.js';
import { ropeScaling, type RopeResult } from '../../../models/gguf/rope.js';

const none: GgufMetadata = {
  path: 'x',
  has: () => false,
  string: () => undefined,
  number: () => undefined,
  boolean: () => undefined,
  strings: () => undefined,
  numbers: () => undefined,
};

/** llama.cpp, LlamaModel.generate_extra_tensors. */
function divisors(theta: number, dim: number, factor: number, low: number, high: number, length: number): Float32Array {
  return Float32Array.from({ length: dim / 2 }, (_, i) => {
    const wave = 2 * Math.PI * theta ** ((2 * i) / dim);
    if (wave < length / high) return 1;
    if (wave > length / low) return factor;
    const smooth = (length / wave - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}

const scalingOf = (values: Float32Array, theta: number, dim: number): RopeResult =>
  ropeScaling(none, 'llama', theta, dim, (name) => (name === 'rope_freqs.weight' ? values : undefined));

describe('models/gguf/rope', () => {
  for (const [theta, dim, factor, low, high, length] of [
    [500000, 128, 8, 1, 4, 8192],
    [500000, 64, 32, 1, 4, 8192],
    [500000, 16, 8, 1, 4, 8192],
    [10000, 128, 16, 1, 8, 4096],
    [1000000, 128, 2.5, 1, 3, 32768],
  ] as const) {
    it(`theta ${theta}, ${dim} channels, factor ${factor}, high ${high}, length ${length}`, () => {
      const { scaling } = scalingOf(divisors(theta, dim, factor, low, high, length), theta, dim);
      expect(scaling).to.deep.equal({ rope_type: 'llama3', factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: length });
    });
  }

  it('low 2, high 8: the same rotation in other words, with low 1', () => {
    const { scaling } = scalingOf(divisors(500000, 128, 8, 2, 8, 8192), 500000, 128);
    expect(scaling).to.deep.include({ low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 4096 });
  });

  it('all ones: no scaling; anything else: a warning', () => {
    expect(scalingOf(new Float32Array(32).fill(1), 10000, 64)).to.deep.equal({});
    const odd = divisors(500000, 64, 8, 1, 4, 8192);
    odd[3] = 1.5;
    for (const values of [odd, new Float32Array(32), new Float32Array(32).fill(NaN), new Float32Array(32).fill(3)]) {
      const { scaling, warning } = scalingOf(values, 500000, 64);
      expect(scaling).to.equal(undefined);
      expect(warning).to.include('rope_freqs.weight');
    }
  });

  it('keys: linear and yarn, none, and what is not known', () => {
    const keys = (type: string, more: Readonly<Record<string, number>>): RopeResult => {
      const meta = { ...none, string: () => type, number: (key: string) => more[key.replace('qwen2.rope.scaling.', '')] };
      return ropeScaling(meta, 'qwen2', 1e6, 64, () => undefined);
    };
    expect(keys('linear', { factor: 4 }).scaling).to.deep.equal({ type: 'linear', rope_type: 'linear', factor: 4 });
    expect(keys('yarn', { factor: 4, original_context_length: 32768, yarn_beta_fast: 32, yarn_beta_slow: 1 }).scaling).to.deep.include({
      rope_type: 'yarn',
      factor: 4,
      original_max_position_embeddings: 32768,
      beta_fast: 32,
      beta_slow: 1,
    });
    expect(keys('none', {})).to.deep.equal({});
    expect(keys('longrope', { factor: 4 }).warning).to.include('"longrope"');
  });
});
