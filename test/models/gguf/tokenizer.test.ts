/**
 * Vocabularies of GGUF files as tokenizer.json. References: what llama.cpp makes of the texts under every pre-tokenizer id
 * (scripts/golden/gguf-tokens.mjs), SentencePiece and the tokenizers library for the vocabularies they trained (scripts/golden/gguf.py).
 */
import { expect } from 'chai';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { GgufFile } from '../../../formats/gguf/file.js';
import type { GgufMetadata } from '../../../models/gguf/metadata.js';
import { PRE_TOKENIZER_IDS } from '../../../models/gguf/pre-tokenizers.js';
import { tokenizerConfigOf, tokenizerOf, tokenizerProblem } from '../../../models/gguf/tokenizer.js';
import { Tokenizer } from '../../../models/tokenizer/tokenizer.js';
import { expectCode } from '../../support/expect-error.js';
import { tempDir } from '../../support/files.js';
import { GGUF_GOLDEN, ggufBytes, metadataOf, type TestKey } from '../../support/gguf.js';

const golden = (name: string): unknown => JSON.parse(readFileSync(join(GGUF_GOLDEN, name), 'utf8'));
interface Reference {
  readonly text: string;
  readonly ids: number[];
}
const { texts, spm, wpm } = golden('tokens.json') as { texts: string[]; spm: Reference[]; wpm: Reference[] };
const llamaCpp = golden('llama-cpp.json') as { pre: Record<string, number[][]>; spm: number[][] };

const load = (meta: GgufMetadata): Tokenizer => new Tokenizer({ source: meta.path, tokenizer: tokenizerOf(meta), config: tokenizerConfigOf(meta) });
const idsOf = (t: Tokenizer, text: string, special: boolean): number[] => Array.from(t.encode(text, { addSpecial: special }));
const tokensOf = (t: Tokenizer, text: string): (string | undefined)[] => idsOf(t, text, false).map((id) => t.tokenOf(id));

describe('models/gguf/tokenizer', () => {
  const bpe = GgufFile.open(join(GGUF_GOLDEN, 'tokens-bpe.gguf'));
  const sentences = GgufFile.open(join(GGUF_GOLDEN, 'tokens-spm.gguf'));
  const words = GgufFile.open(join(GGUF_GOLDEN, 'tokens-wpm.gguf'));
  after(() => {
    for (const f of [bpe, sentences, words]) f.close();
  });

  it('llama.cpp was asked for every pre-tokenizer id', () => {
    expect(Object.keys(llamaCpp.pre)).to.have.members([...PRE_TOKENIZER_IDS]);
    // the texts tell the rules apart
    expect(new Set(Object.values(llamaCpp.pre).map((ids) => JSON.stringify(ids))).size).to.be.greaterThan(11);
  });

  /** Of these ids' expressions llama.cpp has a shorter form that forgets marks; the models' own tokenizers have them. */
  const MARKS = /\p{M}/u;
  const marksDiffer = new Set(['tekken', 'gpt-4o', 'llama4', 'kanana2', 'talkie', 'minimax-m2']);
  for (const id of PRE_TOKENIZER_IDS) {
    it(`byte-level BPE, ${id}: the ids of llama.cpp`, () => {
      const tokenizer = load(metadataOf(bpe, { 'tokenizer.ggml.pre': id }));
      texts.forEach((text, i) => {
        if (marksDiffer.has(id) && MARKS.test(text)) return;
        expect(idsOf(tokenizer, text, false), text).to.deep.equal(llamaCpp.pre[id]![i]);
      });
    });
  }

  it('SentencePiece: the ids of the model that it was trained as, and of llama.cpp; text comes back', () => {
    const tokenizer = load(metadataOf(sentences));
    for (const { text, ids } of spm) {
      expect(idsOf(tokenizer, text, true), text).to.deep.equal(ids);
      expect(tokenizer.decode(ids, { skipSpecial: true }), text).to.equal(text);
    }
    texts.forEach((text, i) => expect(idsOf(tokenizer, text, false), text).to.deep.equal(llamaCpp.spm[i]));
    const bare = load(metadataOf(sentences, { 'tokenizer.ggml.add_space_prefix': false, 'tokenizer.ggml.add_bos_token': false }));
    expect(tokensOf(bare, 'two').join('')).to.equal('two');
  });

  it('WordPiece: the ids of the tokenizer that it was trained as', () => {
    const tokenizer = load(metadataOf(words));
    for (const { text, ids } of wpm) expect(idsOf(tokenizer, text, true), text).to.deep.equal(ids);
  });

  it('special tokens are whole, and stand where the file says', () => {
    const meta = metadataOf(bpe, { 'tokenizer.ggml.pre': 'llama-bpe' });
    // a file says nothing: llama-bpe begins with BOS
    const silent = load({ ...meta, boolean: () => undefined });
    expect(idsOf(silent, 'x', true)).to.deep.equal([1, ...idsOf(silent, 'x', false)]);
    const both = load({ ...meta, boolean: () => true });
    expect(idsOf(both, 'x', true)).to.deep.equal([1, ...idsOf(both, 'x', false), 2]);
    const file = load(meta);
    expect(idsOf(file, 'x', true)).to.deep.equal(idsOf(file, 'x', false));
    expect(tokensOf(file, 'a<|im_end|><think>b')).to.deep.equal(['a', '<|im_end|>', '<think>', 'b']);
    expect(file.decode([...idsOf(file, 'a', false), 2], { skipSpecial: true })).to.equal('a');
  });

  it('tokenizer_config.json: special tokens, chat template, length', () => {
    expect(tokenizerConfigOf(metadataOf(bpe))).to.deep.equal({
      tokenizer_class: 'PreTrainedTokenizerFast',
      bos_token: '<|im_start|>',
      eos_token: '<|im_end|>',
      unk_token: '<|endoftext|>',
      pad_token: '<|im_end|>',
      add_bos_token: false,
      clean_up_tokenization_spaces: false,
      model_max_length: 256,
      chat_template: '{% for m in messages %}{{ m.content }}{% endfor %}',
    });
    expect(tokenizerConfigOf(metadataOf(words))).to.include({ tokenizer_class: 'BertTokenizer', cls_token: '[CLS]', sep_token: '[SEP]', mask_token: '[MASK]' });
  });

  it('says why there is none', () => {
    expect(tokenizerProblem(metadataOf(bpe, { 'tokenizer.ggml.pre': 'unheard-of' }))).to.include('"unheard-of"');
    expect(tokenizerProblem(metadataOf(bpe, { 'tokenizer.ggml.model': 'rwkv' }))).to.include('"rwkv"');
    expect(tokenizerOf(metadataOf(bpe, { 'tokenizer.ggml.model': 'rwkv' }))).to.equal(undefined);
  });

  describe('odd vocabularies', () => {
    const open = (keys: readonly TestKey[]): GgufFile => {
      using dir = tempDir();
      const path = join(dir.path, 'm.gguf');
      writeFileSync(
        path,
        ggufBytes({
          keys: [{ key: 'tokenizer.ggml.model', type: 'string', value: 'gpt2' }, { key: 'tokenizer.ggml.pre', type: 'string', value: 'gpt-2' }, ...keys],
        }),
      );
      return GgufFile.open(path);
    };
    const strings = (key: string, value: readonly string[]): TestKey => ({ key: `tokenizer.ggml.${key}`, type: 'array', of: 'string', value });

    it('names that objects treat in their own way, empty tokens, merges of tokens that are not there', () => {
      using file = open([strings('tokens', ['__proto__', 'a', 'b', 'ab', '', '7']), strings('merges', ['a b', 'a c', ' a', 'b a'])]);
      const { model } = tokenizerOf(file) as { model: { vocab: Record<string, number>; merges: unknown[] } };
      expect(JSON.parse(JSON.stringify(model.vocab))).to.have.property('[EMPTY_4]', 4);
      expect(JSON.stringify(model.vocab)).to.include('"__proto__":0');
      expect(Object.keys(model.vocab)).to.have.length(6);
      expect(model.merges).to.deep.equal([['a', 'b']]);
    });

    it('a token twice, too few types, no tokens, no merges: GGUF_FIELD', async () => {
      const cases: readonly (readonly TestKey[])[] = [
        [strings('tokens', ['a', 'a']), strings('merges', [])],
        [strings('tokens', ['a', 'b']), strings('merges', []), { key: 'tokenizer.ggml.token_type', type: 'array', of: 'i32', value: [1] }],
        [strings('merges', [])],
        [strings('tokens', ['a'])],
        [{ key: 'tokenizer.ggml.tokens', type: 'array', of: 'i32', value: [1] }],
      ];
      for (const keys of cases) {
        using file = open(keys);
        await expectCode('GGUF_FIELD', () => tokenizerOf(file));
      }
    });
  });
});
