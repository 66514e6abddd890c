/** Every stored model's config against what transformers resolved when it loaded it. */
import { expect } from 'chai';
import { SafetensorsFile } from '../../../formats/safetensors/file.js';
import { join } from 'node:path';
import { attentionFactor, inverseFrequencies } from '../../../kernels/nn/rope.js';
import { namePrefix, requireModelConfig } from '../../../models/config/parse.js';
import { maxDifference, modelConfigOf, modelFolder, modelGolden, modelNames } from '../../support/goldens.js';

/** Longest sequence of the goldens. */
const TOKENS = 40;
const PREFIXES: Readonly<Record<string, string>> = {
  'gpt2-bare': '',
  'opt-bare': 'decoder.',
  'bert-sentence': '',
  'vit-bare': '',
  'gemma3-multimodal': 'language_model.model.',
};
const FAMILY_PREFIX = { llama: 'model.', gpt2: 'transformer.', opt: 'model.decoder.', bert: 'bert.', vit: 'vit.', whisper: 'model.' };

describe('models/config: as transformers resolves it', () => {
  for (const name of modelNames()) {
    it(name, () => {
      const config = requireModelConfig(modelConfigOf(name), `${name}/config.json`);
      const { resolved, class: cls } = modelGolden(name).document;
      expect(config.dtype).to.equal('float32');
      using file = SafetensorsFile.open(join(modelFolder(name), 'model.safetensors'));
      expect(namePrefix(config, (t) => file.entries.has(t))).to.equal(PREFIXES[name] ?? FAMILY_PREFIX[config.family]);
      expect(config.architecture, 'the class that was saved, or a bare one').to.be.oneOf([cls, cls.replace(/LMHeadModel|ForCausalLM$/, 'Model')]);
      if (config.family !== 'llama') {
        expect(resolved).to.deep.equal({});
        return;
      }
      expect(config.headDim).to.equal(resolved.headDim);
      expect(config.numKvHeads).to.equal(resolved.kvHeads);
      expect(config.layers.map((l) => l.window ?? null)).to.deep.equal(resolved.windows);
      expect(maxDifference(config.layers.map((l) => l.scale), resolved.scales!)).to.be.lessThan(1e-15); // prettier-ignore
      for (const layer of config.layers) {
        const rope = resolved[`rope.${layer.kind}`] ?? resolved['rope.full']!;
        const frequencies = inverseFrequencies(layer.rope!, TOKENS);
        const relative = frequencies.map((f, i) => f / rope.inverseFrequencies[i]!);
        expect(maxDifference(relative, rope.inverseFrequencies.map(() => 1))).to.be.lessThan(3e-7); // prettier-ignore
        expect(attentionFactor(layer.rope!)).to.be.closeTo(rope.attentionFactor, 1e-12);
      }
    });
  }

  it('the goldens are all there', () => expect(modelNames().length).to.equal(49));
});
