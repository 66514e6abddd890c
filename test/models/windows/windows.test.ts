/** Token windows of every protocol, against lm-evaluation-harness and by hand. */
import { expect } from 'chai';
import fc from 'fast-check';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Rng } from '../../../core/rng.js';
import { calibrationWindows } from '../../../models/windows/calibration.js';
import { choiceWindows, pairWindow } from '../../../models/windows/choices.js';
import { gptqWindows } from '../../../models/windows/gptq.js';
import { addedBos, llamaCppIds, llamaCppWindows } from '../../../models/windows/llama-cpp.js';
import { countBytes, countWords, documentIds, prefixToken, rollingWindows } from '../../../models/windows/rolling.js';
import { wikitextDetokenize, wikitextPages } from '../../../models/windows/wikitext.js';
import { IGNORE, scoredSequence, scoredTokens, type TokenWindow } from '../../../models/windows/window.js';
import { expectCode } from '../../support/expect-error.js';
import { ROOT } from '../../support/files.js';
import { goldenTokenizer, tinyTokenizer } from '../../support/tokenizers.js';

interface Golden {
  readonly rolling: readonly { tokens: number; maxSeqLen: number; contextLen: number; windows: readonly (readonly [number[], number[]])[] }[];
  readonly pairs: readonly { tokenizer: string; context: string; continuation: string; ids: readonly [number[], number[]] }[];
  readonly pages: readonly { page: string; text: string; words: number; bytes: number }[];
}
const golden = JSON.parse(readFileSync(join(ROOT, 'test', 'golden', 'windows.json'), 'utf8')) as Golden;

/** Recorded: a saved calibration must mean the same text in every version. */
const PLACES = [74140, 49181, 13630, 79132, 68124, 14179];

const range = (n: number, from = 0): Int32Array => Int32Array.from({ length: n }, (_, i) => from + i);
const scored = (w: TokenWindow): number[] => [...w.targets].filter((t) => t !== IGNORE);

describe('models/windows', () => {
  it('as sequences: ids and the first scored of them', () => {
    const tk = tinyTokenizer();
    const windows = [
      ...gptqWindows(range(11), { seqlen: 4, source: 'x' }),
      ...llamaCppWindows(range(17), { nCtx: 8, bos: 90, source: 'x' }),
      ...rollingWindows(range(11), { prefixToken: 99, maxSeqLen: 4 }),
      pairWindow(tk, 'How many', ' cows', 64),
    ];
    for (const w of windows) {
      const { ids, from } = scoredSequence(w);
      expect([...ids.subarray(from)]).to.deep.equal(scored(w));
      for (const [i, t] of w.targets.entries()) if (t !== IGNORE) expect([...ids.subarray(0, i + 1)]).to.deep.equal([...w.inputs.subarray(0, i + 1)]);
    }
    const nothing = { inputs: range(3), targets: Int32Array.of(IGNORE, IGNORE, IGNORE) };
    expect(scoredSequence(nothing).from).to.equal(3);
  });

  it('GPTQ: whole windows without overlap, each token but the first predicted from the one before', async () => {
    const windows = gptqWindows(range(11), { seqlen: 4, source: 'x' });
    expect(windows.map((w) => [...w.inputs])).to.deep.equal([[0, 1, 2, 3], [4, 5, 6, 7]]); // prettier-ignore
    expect(windows.map((w) => [...w.targets])).to.deep.equal([[1, 2, 3, IGNORE], [5, 6, 7, IGNORE]]); // prettier-ignore
    expect(gptqWindows(range(11), { seqlen: 4, maxTokens: 7, source: 'x' })).to.have.length(1);
    const error = await expectCode('DATASET_SHORT', () => gptqWindows(range(11), { seqlen: 12, source: 'wiki.txt' }));
    expect(error.message).to.equal('wiki.txt: too little data: expected at least 12 tokens, got 11');
  });

  it('calibration: the seed decides, more samples begin with the fewer, places cover the text', async () => {
    const draw = (nsamples: number, seed: number): number[] =>
      calibrationWindows(range(100), { nsamples, seqlen: 90, rng: new Rng(seed), source: 'x' }).map((w) => w[0]!);
    expect(draw(8, 0)).to.deep.equal(draw(8, 0));
    expect(draw(8, 0)).to.deep.equal(draw(20, 0).slice(0, 8));
    expect(draw(8, 0)).to.not.deep.equal(draw(8, 1));
    // as GPTQ's randint(0, tokens - seqlen - 1): the last place is never drawn
    expect([...new Set(draw(500, 3))].sort((a, b) => a - b)).to.deep.equal([...range(10)]);
    const [only] = calibrationWindows(range(90), { nsamples: 1, seqlen: 90, rng: new Rng(0), source: 'x' });
    expect([...only!]).to.deep.equal([...range(90)]);
    await expectCode('DATASET_SHORT', () => calibrationWindows(range(9), { nsamples: 1, seqlen: 10, rng: new Rng(0), source: 'x' }));
  });

  it('calibration: these places for ever', () => {
    const places = calibrationWindows(range(100_000), { nsamples: 6, seqlen: 2048, rng: new Rng(42), source: 'x' }).map((w) => w[0]);
    expect(places).to.deep.equal(PLACES);
  });

  it('llama.cpp: BOS in place of the first token, second half scored, nCtx - nCtx / 2 - 1 a window', async () => {
    const [first, second] = llamaCppWindows(range(17, 50), { nCtx: 8, bos: 1, source: 'x' });
    expect([...first!.inputs]).to.deep.equal([1, 51, 52, 53, 54, 55, 56, 57]);
    expect([...first!.targets]).to.deep.equal([IGNORE, IGNORE, IGNORE, IGNORE, 55, 56, 57, IGNORE]);
    expect(scored(second!)).to.deep.equal([63, 64, 65]);
    const [odd] = llamaCppWindows(range(14), { nCtx: 7, source: 'x' });
    expect(odd!.inputs[0]).to.equal(0);
    expect(scored(odd!)).to.deep.equal([4, 5, 6]);
    expect(llamaCppWindows(range(40), { nCtx: 8, maxWindows: 3, source: 'x' })).to.have.length(3);
    await expectCode('DATASET_SHORT', () => llamaCppWindows(range(15), { nCtx: 8, source: 'x' }));
  });

  it('llama.cpp: the text as it is read there', () => {
    const llama2 = goldenTokenizer('llama2');
    expect(addedBos(llama2)).to.equal(llama2.special.bos);
    expect(addedBos(tinyTokenizer())).to.equal(undefined);
    // one line end is dropped, `</s>` is text
    expect(llama2.decode(llamaCppIds(llama2, 'a</s>\n\n'), { skipSpecial: true })).to.equal('a</s>\n');
    expect([...llamaCppIds(llama2, 'a</s>')].filter((id) => llama2.isSpecial(id))).to.deep.equal([llama2.special.bos]);
  });

  it("rolling windows are lm-evaluation-harness'", () => {
    for (const { tokens, maxSeqLen, contextLen, windows } of golden.rolling) {
      const ours = rollingWindows(range(tokens, 100), { prefixToken: 7, maxSeqLen, contextLen });
      const shown = `${tokens} tokens, ${maxSeqLen}, ${contextLen}`;
      expect(
        ours.map((w) => [[...w.inputs], scored(w)]),
        shown,
      ).to.deep.equal(windows);
      // the targets are at the end, as there
      for (const w of ours) expect(w.targets.indexOf(scored(w)[0]!), shown).to.equal(w.targets.length - scoredTokens(w));
    }
  });

  it('rolling windows predict every token once', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 12 }), (n, length, context) => {
        const windows = rollingWindows(range(n), { prefixToken: 99, maxSeqLen: length, contextLen: Math.min(context, length) });
        expect(windows.flatMap(scored)).to.deep.equal([...range(n)]);
        for (const w of windows) for (const [i, t] of w.targets.entries()) if (t !== IGNORE) expect(w.inputs[i]).to.equal(t === 0 ? 99 : t - 1);
      }),
    );
  });

  it('a document is encoded with special tokens unless it brings its own', async () => {
    const llama2 = goldenTokenizer('llama2');
    expect(documentIds(llama2, 'a')[0]).to.equal(llama2.special.bos);
    expect([...documentIds(llama2, '<s>a')].filter((id) => id === llama2.special.bos)).to.have.length(1);
    expect(prefixToken(goldenTokenizer('unigram'))).to.equal(goldenTokenizer('unigram').special.eos);
    await expectCode('TOKENIZER_TOKEN', () => prefixToken(goldenTokenizer('bpe-unk')));
  });

  it('words and bytes, and pages of WikiText', () => {
    for (const { page, text, words, bytes } of golden.pages) {
      expect(countWords(page), JSON.stringify(page)).to.equal(words);
      expect(countBytes(page), JSON.stringify(page)).to.equal(bytes);
      expect(wikitextDetokenize(page)).to.equal(text);
    }
    const text = ' \n = A = \n one \n = = B = = \n two \n = C = \n three \n';
    expect(wikitextPages(text)).to.deep.equal([' = A = \n one \n = = B = = \n two ', ' = C = \n three \n']);
    expect(wikitextPages('= A =')).to.deep.equal(['= A =']);
  });

  it("context and continuation are parted as lm-evaluation-harness' _encode_pair does", () => {
    for (const { tokenizer, context, continuation, ids } of golden.pairs) {
      const tk = tokenizer === 'tiny' ? tinyTokenizer() : goldenTokenizer(tokenizer);
      const w = pairWindow(tk, context, continuation, 512);
      const [before, after] = ids;
      expect([...w.inputs], `${tokenizer} ${context}`).to.deep.equal([...before, ...after].slice(0, -1));
      expect(scored(w)).to.deep.equal(after);
    }
  });

  it('choices: one window each, lengths to divide by, a beginning cut where the model is too short', () => {
    const tk = tinyTokenizer();
    const body = { kind: 'choices', query: 'Question: How many cows?\nAnswer:', choices: ['twelve', 'caf\u00e9 \u{1f600}'], gold: 1 } as const;
    const { windows, characters, bytes, gold } = choiceWindows(body, tk, { maxSeqLen: 64 });
    expect(windows.map((w) => tk.decode(scored(w)))).to.deep.equal([' twelve', ' caf\u00e9 \u{1f600}']);
    expect([characters, bytes, gold]).to.deep.equal([[6, 6], [6, 10], 1]); // prettier-ignore
    const short = choiceWindows(body, tk, { maxSeqLen: 4 }).windows[0]!;
    expect(short.inputs).to.have.length(4);
    expect(scored(short)).to.deep.equal(scored(windows[0]!).slice(-4));
    // nothing before it: the prefix token is
    const alone = pairWindow(tk, '', 'twelve', 64);
    expect(alone.inputs[0]).to.equal(tk.special.bos);
    expect(tk.decode(scored(alone))).to.equal('twelve');
    expect(scored(pairWindow(tk, '', '<|endoftext|>twelve', 64))).to.deep.equal(scored(alone));
  });
});
