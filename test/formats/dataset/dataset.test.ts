/** Data files: what rows are read from them, and what is said of those that hold none. */
import { expect } from 'chai';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RowBody, TextRow } from '../../../core/text-row.js';
import { parseDatasetSpec, readRows, type DatasetSpec, type RowOptions } from '../../../formats/dataset/dataset.js';
import { readLines } from '../../../formats/dataset/lines.js';
import { parseRowTemplate } from '../../../formats/dataset/template.js';
import { expectCode } from '../../support/expect-error.js';
import { tempDir } from '../../support/files.js';

let dir: ReturnType<typeof tempDir>;
beforeEach(() => (dir = tempDir()));
afterEach(() => dir[Symbol.dispose]());

function file(content: string | Uint8Array, name = 'd.jsonl'): string {
  const path = join(dir.path, name);
  writeFileSync(path, content);
  return path;
}
const jsonl = (...rows: unknown[]): string => file(rows.map((r) => JSON.stringify(r)).join('\n'));
const rows = (path: string | DatasetSpec, options: RowOptions = {}): TextRow[] => [...readRows(typeof path === 'string' ? { file: path } : path, options)];
const bodies = (path: string, template?: string): RowBody[] =>
  rows(path, template === undefined ? {} : { template: parseRowTemplate(template) }).map((r) => r.body);

describe('formats/dataset', () => {
  describe('kinds of rows', () => {
    it('text, prompt and completion or response, messages, question and answer', () => {
      const messages = [{ role: 'user', content: 'Hi', name: null }];
      const path = jsonl({ text: 'a' }, { prompt: 'p', completion: 'c' }, { prompt: 'p', response: 'r', text: 'not this' }, { messages, text: 'x' }, { question: 'q', answer: 'a' }); // prettier-ignore
      expect(bodies(path)).to.deep.equal([
        { kind: 'text', text: 'a' },
        { kind: 'completion', prompt: 'p', completion: 'c' },
        { kind: 'completion', prompt: 'p', completion: 'r' },
        { kind: 'chat', messages },
        { kind: 'completion', prompt: 'Question: q\nAnswer:', completion: ' a\n' },
      ]);
    });

    it('multiple choice: texts or ARC labels; the right one by index, digits or label', () => {
      const choices = ['x', 'y', 'z'];
      const arc = { text: choices, label: ['1', '2', '3'] };
      const golds = [{ gold: 2 }, { answer: 1 }, { label: '2' }, { answerKey: 'B' }, { choices: arc, answerKey: '1' }];
      const path = jsonl(...golds.map((g) => ({ query: 'q', choices, ...g })));
      expect(bodies(path).map((b) => b.kind === 'choices' && b.gold)).to.deep.equal([2, 1, 2, 1, 0]);
      const [body] = bodies(jsonl({ question: 'q', choices, gold: 0 }));
      expect(body).to.deep.equal({ kind: 'choices', query: 'Question: q\nAnswer:', choices, gold: 0 });
      expect(bodies(jsonl({ ctx: 'c', choices, gold: 0 }), 'C {ctx}')[0]).to.deep.include({ query: 'C c' });
    });

    it('the row keeps its fields, its place and what joins it to the next', () => {
      const [a, b] = rows(jsonl({ text: 'a', id: 7, weight: 0.5 }, { prompt: 'p', completion: 'c' }));
      expect(a).to.deep.include({ place: 'line 1', separator: '\n\n', fields: { text: 'a', id: 7, weight: 0.5 } });
      expect(b).to.deep.include({ place: 'line 2', separator: '' });
      expect(rows(jsonl({ text: 'a' }), { template: parseRowTemplate('{text}') })[0]!.separator).to.equal('');
    });
  });

  describe('templates', () => {
    it('fields, braces, escapes, numbers, fields of fields', () => {
      const path = jsonl({ question: 'q', answer: 'a', n: 3, deep: { er: true } });
      expect(bodies(path, 'Question: {question}\\nAnswer: {answer}\\n')).to.deep.equal([{ kind: 'text', text: 'Question: q\nAnswer: a\n' }]);
      expect(bodies(path, '{{{n}}} \\t\\\\ {deep.er}')).to.deep.equal([{ kind: 'text', text: '{3} \t\\ true' }]);
    });

    it('{|} parts prompt and completion', () => {
      const [body] = bodies(jsonl({ question: 'q', answer: 'a' }), 'Q {question}{|} {answer}');
      expect(body).to.deep.equal({ kind: 'completion', prompt: 'Q q', completion: ' a' });
    });

    it('a template comes before text, messages and the rest', () => {
      expect(bodies(jsonl({ text: 'a', prompt: 'p', completion: 'c', messages: [] }), '{text}!')).to.deep.equal([{ kind: 'text', text: 'a!' }]);
    });

    for (const [source, part] of [
      ['no field', 'names no field'],
      ['{a} }', '"}" alone'],
      ['{a} {', '"{" alone'],
      ['{a b}', '"{" alone'],
      ['{a}\\q', '\\q'],
      ['{a}{|}{|}', 'once'],
      ['{a}\\', '"\\" alone'],
    ] as const) {
      // prettier-ignore
      it(`${JSON.stringify(source)} is refused`, async () => {
        const error = await expectCode('USAGE', () => parseRowTemplate(source));
        expect(error.message).to.contain(part);
      });
    }

    it('a field that a row lacks is named with file and line', async () => {
      const path = file('{"a":"x","b":[1]}\n\n{"b":"y"}\n');
      const missing = await expectCode('DATASET_ROW', () => bodies(path, '{a}'));
      expect(missing.message).to.equal(`${path}: line 3: field "a" is missing; the row has b`);
      expect((await expectCode('DATASET_ROW', () => bodies(path, '{b}'))).message).to.contain('line 1: field "b" is no text');
    });
  });

  describe('files', () => {
    it('a plain text is one row, as it is', () => {
      const text = ' = A = \r\n\n caf\u00e9 \u{1f600} \n';
      for (const name of ['a.txt', 'wiki.test.raw', 'README']) {
        const [row] = rows(file(text, name));
        expect(row).to.deep.include({ body: { kind: 'text', text }, place: 'the text', separator: '\n\n' });
      }
    });

    it('JSON Lines: blank lines, \\r\\n, a byte order mark, no line end at the end', () => {
      const path = file('\ufeff{"text":"a"}\r\n\r\n  \n{"text":"b"}');
      expect(rows(path).map((r) => [r.place, r.body.kind === 'text' && r.body.text])).to.deep.equal([['line 1', 'a'], ['line 4', 'b']]); // prettier-ignore
    });

    it('one JSON array, on one line or many', () => {
      for (const text of ['[{"text":"a"},{"text":"b"}]', '[\n {"text": "a"},\n {"text": "b"}\n]\n']) {
        expect(rows(file(text, 'd.json')).map((r) => r.place)).to.deep.equal(['row 1', 'row 2']);
      }
    });

    it('lines that lie across chunks', () => {
      const lines = ['one', '', 'caf\u00e9 \u{1f600}', 'x'.repeat(50), 'end'];
      const path = file(`${lines.join('\n')}\n`);
      for (const chunk of [1, 2, 3, 7, 64, 1000])
        expect(
          [...readLines(path, chunk)].map((l) => l.text),
          `${chunk}`,
        ).to.deep.equal(lines);
    });

    it('a range of rows; a file that is named so is itself', async () => {
      const path = jsonl(...Array.from({ length: 6 }, (_, i) => ({ text: `${i}` })));
      const texts = (argument: string): unknown[] => rows(parseDatasetSpec(argument)).map((r) => r.body.kind === 'text' && r.body.text);
      expect(texts(`${path}[2:4]`)).to.deep.equal(['2', '3']);
      expect(texts(`${path}[4:]`)).to.deep.equal(['4', '5']);
      expect(texts(`${path}[:1]`)).to.deep.equal(['0']);
      expect(texts(`${path}[:]`)).to.have.length(6);
      const odd = file('{"text":"odd"}', 'd[1:2].jsonl');
      expect(texts(odd)).to.deep.equal(['odd']);
      expect(parseDatasetSpec(file('x', 'y[1:2]'))).to.deep.equal({ file: join(dir.path, 'y[1:2]') });
      for (const range of ['[3:3]', '[4:2]', '[x]', '[-1:]', '[1]']) await expectCode('USAGE', () => parseDatasetSpec(path + range));
      expect((await expectCode('DATASET_EMPTY', () => texts(`${path}[6:]`))).message).to.contain('it has 6 rows, none from 6 on');
    });

    it('rows are read as they are asked for: what is broken later is not seen', () => {
      const path = file('{"text":"a"}\n{"text":"b"}\nbroken');
      expect(rows(parseDatasetSpec(`${path}[:2]`))).to.have.length(2);
    });
  });

  describe('what is wrong is named', () => {
    const cases: [code: 'DATASET_JSON' | 'DATASET_ROW' | 'DATASET_UTF8', content: string | Uint8Array, message: string, name?: string][] = [
      ['DATASET_JSON', '{"text":"a"}\n{"text":"b"\n', 'line 2: invalid JSON'],
      ['DATASET_JSON', '{"text":"a"}\n\n\n{"text":"b"}}', 'line 4: invalid JSON'],
      ['DATASET_JSON', '[\n{"text":"a"},\n{"text" "b"}\n]', 'line 3: invalid JSON', 'd.json'],
      ['DATASET_JSON', '[{"text":"a"}', 'line 1: invalid JSON', 'd.json'],
      ['DATASET_UTF8', Buffer.concat([Buffer.from('{"text":"a"}\n{"text":"'), Buffer.from([0xff]), Buffer.from('"}')]), 'line 2: not valid UTF-8'],
      ['DATASET_UTF8', Uint8Array.of(0x50, 0x41, 0x52, 0x31, 0x15, 0x80), 'the text: not valid UTF-8', 'd.parquet'],
      ['DATASET_ROW', '{"text":"a"}\n3', 'line 2: expected an object'],
      [
        'DATASET_ROW',
        '{"txt":"a","id":1}',
        'line 1: expected text, prompt with completion or response, messages, question with answer, or choices; the row has txt, id',
      ],
      ['DATASET_ROW', '{}', 'the row has no fields'],
      ['DATASET_ROW', '{"text":3}', 'line 1: "text" is no text'],
      ['DATASET_ROW', '{"prompt":"a","completion":[]}', '"prompt" and "completion" must be texts'],
      ['DATASET_ROW', '{"messages":[]}', '"messages" is no list'],
      ['DATASET_ROW', '{"messages":[{"role":"user"},{"content":"x"}]}', 'message 2 has no "role"'],
      ['DATASET_ROW', '{"query":"q","choices":["a"],"gold":0}', '"choices" is no list of two'],
      ['DATASET_ROW', '{"query":"q","choices":["a","b"]}', 'says which choice is right'],
      ['DATASET_ROW', '{"query":"q","choices":["a","b"],"gold":2}', '"gold" names none of the 2 choices'],
      ['DATASET_ROW', '{"query":"q","choices":["a","b"],"answerKey":"C"}', '"answerKey" names none'],
      ['DATASET_ROW', '{"choices":["a","b"],"gold":1}', 'field "question" is missing'],
    ];
    for (const [code, content, message, name] of cases) {
      it(message, async () => {
        const path = file(content, name);
        const error = await expectCode(code, () => rows(path));
        expect(error.message).to.contain(`${path}: `).and.to.contain(message);
        expect(error.exitCode).to.equal(65);
      });
    }

    it('nothing there, and nothing in it: exit code 66', async () => {
      expect((await expectCode('NOT_FOUND', () => rows(join(dir.path, 'none.jsonl')))).exitCode).to.equal(66);
      for (const [content, name] of [
        ['', 'd.jsonl'],
        ['\n \n', 'd.jsonl'],
        ['[]', 'd.json'],
        ['', 'd.txt'],
      ] as const) {
        // prettier-ignore
        const error = await expectCode('DATASET_EMPTY', () => rows(file(content, name)));
        expect(error.exitCode, name).to.equal(66);
      }
      await expectCode('DATASET_EMPTY', () => rows(dir.path));
    });

    it('a range or a template for a plain text', async () => {
      const path = file('x', 'a.txt');
      await expectCode('USAGE', () => rows(parseDatasetSpec(`${path}[1:]`)));
      await expectCode('USAGE', () => bodies(path, '{text}'));
    });

    it('a template with {|} for choices', async () => {
      await expectCode('DATASET_ROW', () => bodies(jsonl({ q: 'q', choices: ['a', 'b'], gold: 0 }), '{q}{|}'));
    });
  });
});
