/** How vectors of texts are made: what sentence-transformers' files say, and the pooling itself. */
import { expect } from 'chai';
import type { ConfigSource } from '../../models/config/read.js';
import { describePooling, embedTokens, parseSentence, POOLING_MODES, sentenceIds, type PoolingMode, type SentenceRecipe } from '../../models/sentence.js';
import { tokenizerOf } from '../../workers/load-tokenizer.js';
import { letterIds, MEAN, MODULES, module_, writeEncoder } from '../support/encoder.js';
import { expectCode } from '../support/expect-error.js';
import { tempDir } from '../support/files.js';

const parse = (files: Readonly<Record<string, unknown>>): SentenceRecipe | undefined =>
  parseSentence((path): ConfigSource | undefined => (path in files ? { file: `model/${path}`, at: '', document: files[path] as never } : undefined), 32);
const withPooling = (pooling: unknown, modules: unknown = MODULES): Record<string, unknown> => ({ 'modules.json': modules, '1_Pooling/config.json': pooling });

describe('models/sentence: files', () => {
  it('no modules.json, nothing said', () => expect(parse({ '1_Pooling/config.json': MEAN })).to.equal(undefined));

  it('mean of all tokens, to length 1', () => {
    const recipe = parse({ ...withPooling(MEAN), 'sentence_bert_config.json': { max_seq_length: 256, do_lower_case: true } });
    expect(recipe).to.deep.equal({ modes: ['mean'], normalize: true, maxTokens: 256, lowerCase: true });
    expect(describePooling(recipe!)).to.equal('mean, to length 1');
  });

  it('no Normalize, no length, other folders', () => {
    const modules = [module_(0, 'Transformer', '0_Transformer'), module_(1, 'Pooling', 'pool')];
    const recipe = parse({ 'modules.json': modules, 'pool/config.json': MEAN, '0_Transformer/sentence_bert_config.json': { max_seq_length: null } });
    expect(recipe).to.deep.equal({ modes: ['mean'], normalize: false, lowerCase: false });
  });

  const modes: Record<string, readonly [config: object, modes: readonly PoolingMode[]]> = {
    'the class token': [{ pooling_mode_cls_token: true, pooling_mode_mean_tokens: false }, ['cls']],
    'the largest': [{ pooling_mode_max_tokens: true, pooling_mode_mean_tokens: false }, ['max']],
    'the mean where nothing is said': [{}, ['mean']],
    "several, in sentence-transformers' order": [
      { pooling_mode_lasttoken: true, pooling_mode_mean_tokens: true, pooling_mode_max_tokens: true, pooling_mode_cls_token: true },
      ['cls', 'max', 'mean', 'lasttoken'],
    ],
    'the mean over the root, weighted': [
      { pooling_mode_mean_tokens: false, pooling_mode_mean_sqrt_len_tokens: true, pooling_mode_weightedmean_tokens: true },
      ['mean_sqrt_len_tokens', 'weightedmean'],
    ],
    'one by its name': [{ pooling_mode: 'CLS', pooling_mode_mean_tokens: true }, ['cls']],
  };
  for (const [title, [config, expected]] of Object.entries(modes)) {
    it(title, () => expect(parse(withPooling(config))!.modes).to.deep.equal(expected));
  }

  const bad: Record<string, readonly [files: Record<string, unknown>, file: string, key: string]> = {
    'no list': [{ 'modules.json': {} }, 'modules.json', ''],
    'a module without a type': [{ 'modules.json': [{ path: '' }] }, 'modules.json', '0.type'],
    'a Dense layer': [withPooling(MEAN, [...MODULES.slice(0, 2), module_(2, 'Dense', '2_Dense')]), 'modules.json', '2.type'],
    'no pooling': [withPooling(MEAN, MODULES.slice(0, 1)), 'modules.json', '1.type'],
    'pooling first': [withPooling(MEAN, [module_(0, 'Pooling', '1_Pooling')]), 'modules.json', '0.type'],
    'a folder elsewhere': [withPooling(MEAN, [MODULES[0], module_(1, 'Pooling', '../1_Pooling')]), 'modules.json', '1.path'],
    'no pooling config': [{ 'modules.json': MODULES }, 'modules.json', '1.path'],
    'another width': [withPooling({ ...MEAN, word_embedding_dimension: 384 }), '1_Pooling/config.json', 'word_embedding_dimension'],
    'no mode at all': [withPooling({ pooling_mode_mean_tokens: false }), '1_Pooling/config.json', 'pooling_mode_mean_tokens'],
    'a mode that is no flag': [withPooling({ pooling_mode_max_tokens: 1 }), '1_Pooling/config.json', 'pooling_mode_max_tokens'],
    'an unknown name': [withPooling({ pooling_mode: 'median' }), '1_Pooling/config.json', 'pooling_mode'],
    'no length': [{ ...withPooling(MEAN), 'sentence_bert_config.json': { max_seq_length: 0 } }, 'sentence_bert_config.json', 'max_seq_length'],
  };
  for (const [title, [files, file, key]] of Object.entries(bad)) {
    it(`refused: ${title}`, async () => {
      const { details } = await expectCode('MODEL_CONFIG', () => parse(files));
      expect(details).to.deep.include({ file: `model/${file}`, key });
    });
  }
});

describe('models/sentence: vectors', () => {
  // three tokens of two channels
  const states = Float32Array.of(1, -2, 4, -8, 1, 1);
  const expected: Record<PoolingMode, readonly number[]> = {
    cls: [1, -2],
    max: [4, 1],
    mean: [2, -3],
    mean_sqrt_len_tokens: [6 / Math.sqrt(3), -9 / Math.sqrt(3)],
    weightedmean: [(1 + 8 + 3) / 6, (-2 - 16 + 3) / 6],
    lasttoken: [1, 1],
  };
  for (const mode of POOLING_MODES) {
    it(mode, () => expect(embedTokens(states, 2, { modes: [mode], normalize: false })).to.deep.equal(Float32Array.from(expected[mode])));
  }

  it('side by side, and to length 1 together', () => {
    const both = embedTokens(states, 2, { modes: ['cls', 'mean'], normalize: false });
    expect([...both]).to.deep.equal([1, -2, 2, -3]);
    const unit = embedTokens(states, 2, { modes: ['cls', 'mean'], normalize: true });
    unit.forEach((v, i) => expect(v).to.be.closeTo(both[i]! / Math.sqrt(18), 1e-7));
    expect([...embedTokens(new Float32Array(4), 2, { modes: ['mean'], normalize: true })]).to.deep.equal([0, 0]);
  });

  it('ids: trimmed, special tokens around, the end cut off', () => {
    using dir = tempDir();
    const tokenizer = tokenizerOf(writeEncoder(dir.path));
    const recipe = { modes: ['mean'], normalize: true, lowerCase: true } as const;
    const ids = (text: string, most: number) => sentenceIds(tokenizer, text, recipe, most);
    expect(ids(' \n Abc.\t', 9)).to.deep.equal({ ids: Int32Array.from(letterIds('abc.')), cut: false });
    expect(ids('abcd', 6).cut).to.be.false;
    expect(ids('abcde', 6)).to.deep.equal({ ids: Int32Array.from(letterIds('abcd')), cut: true });
    expect(ids('', 6)).to.deep.equal({ ids: Int32Array.of(2, 3), cut: false });
    expect(ids('abc', 1)).to.deep.equal({ ids: Int32Array.of(2, 3), cut: true });
  });
});
