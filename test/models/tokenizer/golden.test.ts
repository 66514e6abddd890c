/** Ids and text of transformers' tokenizers, for small tokenizers of every published kind and text out of the ordinary. */
import { expect } from 'chai';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { TINY } from '../../support/files.js';
import { GOLDEN_TOKENIZERS, goldenTokenizer, readGolden, tinyTokenizer } from '../../support/tokenizers.js';

describe('models/tokenizer goldens', () => {
  const names = readdirSync(GOLDEN_TOKENIZERS).map((f) => basename(f, '.json'));

  for (const name of names) {
    describe(name, () => {
      const golden = readGolden(name);
      const tokenizer = goldenTokenizer(name);

      it('special ids and size of the vocabulary', () => {
        expect(tokenizer.special).to.deep.equal(golden.special);
        expect(tokenizer.vocabSize).to.equal(golden.vocabSize);
      });

      it(`ids of ${golden.cases.length} texts`, () => {
        for (const { text, ids, plain = ids, asText = plain } of golden.cases) {
          const shown = JSON.stringify(text);
          expect([...tokenizer.encode(text)], shown).to.deep.equal(ids);
          expect([...tokenizer.encode(text, { addSpecial: false })], `${shown} alone`).to.deep.equal(plain);
          expect([...tokenizer.encode(text, { addSpecial: false, parseSpecial: false })], `${shown} as text`).to.deep.equal(asText);
        }
      });

      it('their text again', () => {
        for (const { text, ids, decoded = text, skipped = decoded } of golden.cases) {
          expect(tokenizer.decode(ids), JSON.stringify(text)).to.equal(decoded);
          expect(tokenizer.decode(ids, { skipSpecial: true }), JSON.stringify(text)).to.equal(skipped);
        }
      });
    });
  }

  it("the shipped model's own golden", () => {
    const { prompt, input_ids } = JSON.parse(readFileSync(join(TINY, 'golden.json'), 'utf8')) as { prompt: string; input_ids: number[] };
    expect([...tinyTokenizer().encode(prompt)]).to.deep.equal(input_ids);
  });

  it('every tokenizer of the script is here', () => {
    expect(names.length).to.be.at.least(20);
  });
});
