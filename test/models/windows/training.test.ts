/** Rows as targets, alone and packed: what is learnt is what the row says, and a packed row is the row. */
import { expect } from 'chai';
import fc from 'fast-check';
import type { RowBody, TextRow } from '../../../core/text-row.js';
import type { Tokenizer } from '../../../models/tokenizer/tokenizer.js';
import { packRows, stackWindows, type PackedWindow } from '../../../models/windows/packing.js';
import { encodeTrainingRow, joinRows, rowText, type TrainingRow } from '../../../models/windows/training.js';
import { IGNORE } from '../../../models/windows/window.js';
import { expectCode } from '../../support/expect-error.js';
import { goldenTokenizer, tinyTokenizer } from '../../support/tokenizers.js';

const CHATML =
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
const row = (body: RowBody, fields: Record<string, unknown> = {}, separator = ''): TextRow => ({ file: 'd.jsonl', place: 'line 3', body, separator, fields });
const learnt = (tk: Tokenizer, { ids, train }: TrainingRow): string => tk.decode(ids.filter((_, i) => train[i] === 1));
const GSM8K = { kind: 'completion', prompt: 'Question: How many cows?\nAnswer:', completion: ' 12 + 7 = 19\n' } as const;

describe('models/windows/training', () => {
  it('a completion is learnt, its prompt is not; EOS follows', () => {
    const tk = tinyTokenizer();
    const out = encodeTrainingRow(row(GSM8K), tk);
    expect(tk.decode(out.ids)).to.equal(`${GSM8K.prompt}${GSM8K.completion}<|endoftext|>`);
    expect(learnt(tk, out)).to.equal(`${GSM8K.completion}<|endoftext|>`);
    expect(learnt(tk, encodeTrainingRow(row(GSM8K), tk, { appendEos: false }))).to.equal(GSM8K.completion);
    expect(encodeTrainingRow(row(GSM8K), tk, { trainOn: 'all' }).train.includes(0)).to.equal(false);
  });

  it('a text is learnt whole, a right choice after its query', () => {
    const tk = tinyTokenizer();
    expect(learnt(tk, encodeTrainingRow(row({ kind: 'text', text: 'one two' }), tk))).to.equal('one two<|endoftext|>');
    const choices = { kind: 'choices', query: 'Q:', choices: ['a', 'b'], gold: 1 } as const;
    expect(learnt(tk, encodeTrainingRow(row(choices), tk))).to.equal(' b<|endoftext|>');
  });

  it('special tokens that a tokenizer adds are before the prompt, and EOS is there once', () => {
    const tk = goldenTokenizer('deepseek');
    const out = encodeTrainingRow(row(GSM8K), tk);
    expect(out.ids[0]).to.equal(tk.special.bos);
    expect([...out.ids].filter((id) => id === tk.special.eos)).to.have.length(1);
    expect(learnt(tk, out)).to.equal(`${GSM8K.completion}</s>`);
  });

  it('a token that joins prompt and completion is learnt', () => {
    const tk = tinyTokenizer();
    const body = { kind: 'completion', prompt: 'Answer: ', completion: 'cows' } as const;
    const out = encodeTrainingRow(row(body), tk, { appendEos: false });
    expect(tk.decode(out.ids)).to.equal('Answer: cows');
    expect(learnt(tk, out).trim()).to.equal('cows');
  });

  it('a conversation by its template, with tools; a row that cannot be rendered is named', async () => {
    const messages = [{ role: 'user', content: 'Hi' }, { role: 'assistant', content: 'Hello' }]; // prettier-ignore
    const tk = tinyTokenizer(CHATML);
    expect(learnt(tk, encodeTrainingRow(row({ kind: 'chat', messages }), tk))).to.equal('Hello<|im_end|>\n');
    const tools = tinyTokenizer('{{ tools[0].name }}{% generation %}x{% endgeneration %}');
    expect(tools.decode(encodeTrainingRow(row({ kind: 'chat', messages }, { tools: [{ name: 'f' }] }), tools).ids)).to.equal('fx');
    const error = await expectCode('CHAT_TEMPLATE', () => encodeTrainingRow(row({ kind: 'chat', messages }), tinyTokenizer()));
    expect(error.message).to.equal('tiny: chat template: d.jsonl, line 3: the tokenizer has none');
  });

  it('rows as text, joined by their own separators or one for all', () => {
    const tk = tinyTokenizer(CHATML);
    const text = (t: string): TextRow => row({ kind: 'text', text: t }, {}, '\n\n');
    expect(joinRows([text('a'), text('b'), text('c')], tk)).to.equal('a\n\nb\n\nc');
    expect(joinRows([text('a'), text('b')], tk, '')).to.equal('ab');
    expect(joinRows([row(GSM8K), row(GSM8K)], tk)).to.equal(`${GSM8K.prompt}${GSM8K.completion}`.repeat(2));
    expect(rowText(row({ kind: 'chat', messages: [{ role: 'user', content: 'x' }] }), tk)).to.equal('<|im_start|>user\nx<|im_end|>\n');
    expect(rowText(row({ kind: 'choices', query: 'Q:', choices: ['a', 'b'], gold: 0 }), tk)).to.equal('Q: a');
  });
});

/** A row of made-up ids; `prompt` of them are no targets. */
const made = (ids: readonly number[], prompt = 0): TrainingRow => ({
  ids: Int32Array.from(ids),
  train: Uint8Array.from(ids, (_, i) => (i < prompt ? 0 : 1)),
  row: row({ kind: 'text', text: '' }),
});
const options = { seqlen: 8, mode: 'pack', padId: 0, source: 'd.jsonl' } as const;

/** What a window predicts for each of its rows: [input, place, target]. */
function predictions({ inputs, targets, segments, positions, rows }: PackedWindow): Map<number, number[][]> {
  const out = new Map<number, number[][]>(rows.map((r) => [r, []]));
  for (const [i, segment] of segments.entries()) {
    if (segment < 0) expect([inputs[i], targets[i], positions[i]]).to.deep.equal([0, IGNORE, 0]);
    else out.get(rows[segment]!)!.push([inputs[i]!, positions[i]!, targets[i]!]);
  }
  return out;
}

describe('models/windows/packing', () => {
  it('[a b c] with the prompt [a] is trained on b and c', () => {
    const { windows } = packRows([made([5, 6, 7], 1)], { ...options, mode: 'single' });
    expect(windows).to.have.length(1);
    expect([...windows[0]!.inputs]).to.deep.equal([5, 6, 7]);
    expect([...windows[0]!.targets]).to.deep.equal([6, 7, IGNORE]);
  });

  it('a packed row predicts what it predicts alone', () => {
    const rows = fc.array(
      fc.tuple(fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 12 }), fc.nat(4)).map(([ids, prompt]) => made(ids, prompt)),
      { minLength: 1, maxLength: 30 },
    );
    fc.assert(
      fc.property(fc.tuple(fc.constant(made([1, 2])), rows), ([first, rest]) => {
        const all = [first, ...rest];
        const packed = packRows(all, options);
        const single = packRows(all, { ...options, mode: 'single' });
        const byRow = (windows: readonly PackedWindow[]): [number, number[][]][] => windows.flatMap((w) => [...predictions(w)]).sort(([a], [b]) => a - b);
        expect(byRow(packed.windows)).to.deep.equal(byRow(single.windows));
        expect([packed.cut, packed.dropped]).to.deep.equal([single.cut, single.dropped]);
        expect(packed.windows.every((w) => w.inputs.length === 8)).to.equal(true);
        expect(packed.windows.length).to.be.at.most(single.windows.length);
      }),
    );
  });

  it('first-fit decreasing: longest first, equals in order, each into the first with room', () => {
    const rows = [3, 5, 4, 4, 2, 6, 1].map((n) => made(Array.from({ length: n }, () => n)));
    // a row of one token has nothing to predict
    const { windows, dropped } = packRows(rows, options);
    expect(windows.map((w) => w.rows)).to.deep.equal([[5, 4], [1, 0], [2, 3]]); // prettier-ignore
    expect(dropped).to.equal(1);
  });

  it('rows longer than a window are cut or dropped; a row whose targets are cut off is dropped', async () => {
    const long = made([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    const late = made([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 8);
    const out = packRows([long, late, made([1, 2])], options);
    expect([out.cut, out.dropped]).to.deep.equal([1, 1]);
    expect(out.windows.flatMap((w) => w.rows)).to.deep.equal([0, 2]);
    expect(packRows([long, made([1, 2])], { ...options, overlong: 'drop' })).to.deep.include({ cut: 0, dropped: 1 });
    expect((await expectCode('DATASET_EMPTY', () => packRows([late], options))).exitCode).to.equal(66);
  });

  it('a batch of windows of any lengths', () => {
    const { windows } = packRows([made([5, 6, 7], 1), made([8, 9])], { ...options, mode: 'single' });
    const batch = stackWindows(windows, 3);
    expect(batch.shape).to.deep.equal([2, 3]);
    expect([...batch.inputs]).to.deep.equal([5, 6, 7, 8, 9, 3]);
    expect([...batch.targets]).to.deep.equal([6, 7, IGNORE, 9, IGNORE, IGNORE]);
    expect([...batch.segments]).to.deep.equal([0, 0, 0, 0, 0, -1]);
    expect([...batch.positions]).to.deep.equal([0, 1, 2, 0, 1, 0]);
  });
});
