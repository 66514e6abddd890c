/** What holds for every text, long ones among them, and what is said of files that are no tokenizers. */
import { expect } from 'chai';
import fc from 'fast-check';
import { WordCutter } from '../../../models/tokenizer/long-words.js';
import { Tokenizer } from '../../../models/tokenizer/tokenizer.js';
import { createWordModel } from '../../../models/tokenizer/word-model.js';
import { expectCode } from '../../support/expect-error.js';
import { goldenTokenizer, readGolden, tinyTokenizer } from '../../support/tokenizers.js';

const anyText = fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' }), fc.stringMatching(/^[\sA-Za-z0-9.,'<>|_]*$/));

describe('models/tokenizer', () => {
  it('byte-level BPE: decode(encode(x)) = x for any text', () => {
    for (const tokenizer of [tinyTokenizer(), ...['smollm2', 'o200k', 'split-behaviours'].map(goldenTokenizer)]) {
      // one of them leaves the bar out
      const kept = (t: string): string => (tokenizer.source === 'split-behaviours' ? t.replaceAll('|', '') : t);
      fc.assert(fc.property(anyText, (text) => tokenizer.decode(tokenizer.encode(text, { addSpecial: false })) === kept(text)));
    }
  });

  it('ids are those of the vocabulary, and special tokens in text are text when asked', () => {
    const tokenizer = goldenTokenizer('llama3');
    fc.assert(
      fc.property(anyText, fc.constantFrom('<s>', '</s>', '<s></s>'), (text, special) => {
        const ids = tokenizer.encode(text + special, { addSpecial: false, parseSpecial: false });
        expect(ids.every((id) => id >= 0 && id <= tokenizer.maxId && !tokenizer.isSpecial(id))).to.equal(true);
        expect(tokenizer.isSpecial(tokenizer.encode(text + special).at(-1)!)).to.equal(true);
      }),
    );
  });

  it('half a surrogate pair is U+FFFD', () => {
    const tokenizer = tinyTokenizer();
    for (const text of ['\ud800', 'a\udc00b', '\ude00\ud83d']) expect([...tokenizer.encode(text)]).to.deep.equal([...tokenizer.encode(text.toWellFormed())]);
    expect(tokenizer.decode(tokenizer.encode('a\ud800b'))).to.equal('a\ufffdb');
  });

  it('a long word in parts has the ids of the whole', () => {
    // Llama 2 and Unigram with a whole text for one word
    for (const name of ['llama2', 'gemma', 'unigram', 'unigram-bytes', 'bpe-unk']) {
      const { model } = readGolden(name).tokenizer as { model: { vocab: Record<string, number> | [string, number][] } };
      const ids = new Map(Array.isArray(model.vocab) ? model.vocab.map(([t], i) => [t, i] as const) : Object.entries(model.vocab));
      const words = createWordModel(model, name);
      const letters = [...ids.keys()].filter((t) => Array.from(t).length === 1);
      const text = fc.array(fc.constantFrom(...letters, ...letters, '\u2581', 'the', '\u4e00', '\u{1f600}'), { minLength: 20, maxLength: 200 });
      let parts = 0;
      fc.assert(
        fc.property(text, (array) => {
          const word = array.join('');
          const cut = new WordCutter(ids, 8).cut(word);
          parts += cut.length - 1;
          expect(cut.join('')).to.equal(word);
          expect(cut.flatMap((p) => words.encode(p))).to.deep.equal(words.encode(word));
        }),
        { numRuns: 50 },
      );
      expect(parts, name).to.be.greaterThan(50);
    }
  });

  it('time grows with the text, not with its square', () => {
    const long = 'The farmer has 12 cows, and he buys 7 more of them. '.repeat(4000);
    for (const name of ['llama2', 'unigram', 'unigram-bytes', 'smollm2', 'bert-uncased']) {
      const tokenizer = goldenTokenizer(name);
      const begin = performance.now();
      const ids = tokenizer.encode(long, { addSpecial: false });
      expect(ids.length, name).to.be.greaterThan(50_000);
      // a square would take minutes
      expect(performance.now() - begin, name).to.be.lessThan(20_000);
    }
  });

  it('what ends a generation: generation_config.json, then the tokenizer', () => {
    const { tokenizer, config } = readGolden('llama3');
    const eos = (generationConfig?: unknown): readonly number[] => new Tokenizer({ source: 'x', tokenizer, config, generationConfig }).eosIds;
    expect(eos()).to.deep.equal([1]);
    expect(eos({ eos_token_id: 7 })).to.deep.equal([7]);
    expect(eos({ eos_token_id: [7, 9] })).to.deep.equal([7, 9]);
    expect(eos({ eos_token_id: null })).to.deep.equal([1]);
  });

  it('a token that the model lacks is named', async () => {
    const tokenizer = goldenTokenizer('bpe-unk');
    const error = await expectCode('TOKENIZER_TOKEN', () => tokenizer.required('eos'));
    expect(error.message).to.equal('bpe-unk: the tokenizer has no eos_token');
    expect(tokenizer.required('unk')).to.equal(0);
  });

  describe('files that are no tokenizers', () => {
    const good = readGolden('llama3').tokenizer as Record<string, unknown>;
    const make = (change: object) => (): Tokenizer => new Tokenizer({ source: 'm/tokenizer.json', tokenizer: { ...good, ...change } });
    const cases: [code: 'TOKENIZER_MALFORMED' | 'TOKENIZER_UNSUPPORTED', part: string, change: object][] = [
      ['TOKENIZER_MALFORMED', 'model', { model: null }],
      ['TOKENIZER_MALFORMED', 'model.vocab', { model: { type: 'BPE', merges: [] } }],
      ['TOKENIZER_MALFORMED', 'model.vocab: "a" has the id 0.5', { model: { type: 'BPE', vocab: { a: 0.5 }, merges: [] } }],
      ['TOKENIZER_MALFORMED', 'model.vocab: entry 1', { model: { type: 'Unigram', vocab: [['a', 0], 'b'], unk_id: 0 } }],
      ['TOKENIZER_MALFORMED', 'model.merges', { model: { type: 'BPE', vocab: { a: 0 } } }],
      ['TOKENIZER_MALFORMED', 'model.unk_token: "<unk>"', { model: { type: 'WordPiece', vocab: { a: 0 }, unk_token: '<unk>' } }],
      ['TOKENIZER_MALFORMED', 'model.unk_id', { model: { type: 'Unigram', vocab: [['a', 0]], unk_id: 3 } }],
      ['TOKENIZER_MALFORMED', 'model.unk_token is missing', { model: { type: 'WordPiece', vocab: { a: 0 } } }],
      ['TOKENIZER_UNSUPPORTED', 'normalizer.normalizers.0.type', { normalizer: { type: 'Sequence', normalizers: [{ type: 'Nothing' }] } }],
      ['TOKENIZER_MALFORMED', 'pre_tokenizer.pretokenizers.0.behavior', { pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Split', pattern: { String: ' ' }, behavior: 'Lost' }] } }], // prettier-ignore
      ['TOKENIZER_MALFORMED', 'post_processor', { post_processor: { type: 'TemplateProcessing', single: [{ SpecialToken: { id: '<s>' } }, { Sequence: { id: 'A' } }], special_tokens: {} } }], // prettier-ignore
      ['TOKENIZER_MALFORMED', 'added_tokens.0.content', { added_tokens: [{ id: 0, content: '' }] }],
      ['TOKENIZER_MALFORMED', 'precompiled_charsmap', { normalizer: { type: 'Precompiled', precompiled_charsmap: 'AAAA' } }],
      ['TOKENIZER_UNSUPPORTED', 'continuing_subword_prefix', { model: { type: 'BPE', vocab: { a: 0 }, merges: [], continuing_subword_prefix: '##' } }],
      ['TOKENIZER_UNSUPPORTED', 'unk_id', { model: { type: 'Unigram', vocab: [['a', 0]] } }],
      ['TOKENIZER_UNSUPPORTED', 'pattern [[:bad:]]', { pre_tokenizer: { type: 'Split', pattern: { Regex: '[[:bad:]]' }, behavior: 'Isolated' } }],
      ['TOKENIZER_UNSUPPORTED', 'the text once', { post_processor: { type: 'TemplateProcessing', single: [], special_tokens: {} } }],
    ];
    for (const [code, part, change] of cases) {
      it(part, async () => {
        const error = await expectCode(code, make(change));
        expect(error.message).to.contain('m/tokenizer.json: ').and.to.contain(part);
        expect(error.exitCode).to.equal(65);
      });
    }
  });
});
