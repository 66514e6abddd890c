/** What a row of data is, by the fields it has. */
import type { Message, RowBody } from '../../core/text-row.js';
import { parseRowTemplate, type Fields, type RowTemplate } from './template.js';

type Fail = (message: string) => Error;

/** As lm-evaluation-harness writes GSM8K and ARC (tasks/gsm8k/gsm8k.yaml, tasks/arc/arc_easy.yaml). */
const QUESTION_ANSWER = parseRowTemplate('Question: {question}\\nAnswer:{|} {answer}\\n');
const QUESTION = parseRowTemplate('Question: {question}\\nAnswer:');

/**
 * The body of a row: `choices`, then `messages`, `prompt` with `completion` or `response`, `text`, `question` with `answer`. A template takes the
 * place of the last three; beside `choices` it makes the query. `fail` makes the error for a row that is none of them.
 */
export function rowBody(fields: Fields, template: RowTemplate | undefined, fail: Fail): RowBody {
  if (fields['choices'] !== undefined) return choices(fields, template, fail);
  if (template !== undefined) return template.body(fields, fail);
  if (fields['messages'] !== undefined) return { kind: 'chat', messages: messages(fields['messages'], fail) };
  const { prompt, text, question, answer } = fields;
  const name = fields['completion'] === undefined ? 'response' : 'completion';
  const completion = fields[name];
  if (prompt !== undefined && completion !== undefined) {
    if (typeof prompt !== 'string' || typeof completion !== 'string') throw fail(`"prompt" and "${name}" must be texts; conversations go in "messages"`);
    return { kind: 'completion', prompt, completion };
  }
  if (text !== undefined) {
    if (typeof text !== 'string') throw fail('"text" is no text');
    return { kind: 'text', text };
  }
  if (question !== undefined && answer !== undefined) return QUESTION_ANSWER.body(fields, fail);
  const have = Object.keys(fields).join(', ') || 'no fields';
  throw fail(
    `expected text, prompt with completion or response, messages, question with answer, or choices; the row has ${have}; --template takes other fields`,
  );
}

function messages(value: unknown, fail: Fail): readonly Message[] {
  if (!Array.isArray(value) || value.length === 0) throw fail('"messages" is no list of messages');
  for (const [i, m] of (value as unknown[]).entries()) {
    const role = typeof m === 'object' && m !== null ? (m as Fields)['role'] : undefined;
    if (typeof role !== 'string') throw fail(`message ${i + 1} has no "role"`);
  }
  return value as Message[];
}

/** lm-evaluation-harness' multiple choice: `query` or `question`, `choices` (texts, or ARC's texts and labels), and the right one. */
function choices(fields: Fields, template: RowTemplate | undefined, fail: Fail): RowBody {
  const { texts, labels } = choiceTexts(fields['choices'], fail);
  const gold = goldIndex(fields, labels, texts.length, fail);
  const source = template ?? (typeof fields['query'] === 'string' ? undefined : QUESTION);
  const body = source?.body(fields, fail);
  if (body?.kind === 'completion') throw fail('a template with {|} cannot make the query of choices');
  return { kind: 'choices', query: body?.kind === 'text' ? body.text : (fields['query'] as string), choices: texts, gold };
}

function choiceTexts(value: unknown, fail: Fail): { texts: string[]; labels: readonly unknown[] } {
  const labelled = typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : undefined;
  const texts: unknown = labelled === undefined ? value : labelled['text'];
  if (!Array.isArray(texts) || texts.length < 2 || !texts.every((t) => typeof t === 'string')) throw fail('"choices" is no list of two texts or more');
  const labels: unknown = labelled?.['label'];
  return { texts: texts, labels: Array.isArray(labels) ? labels : texts.map((_, i) => String.fromCharCode(65 + i)) };
}

/** An index, its digits, or a label. */
function goldIndex(fields: Fields, labels: readonly unknown[], count: number, fail: Fail): number {
  const name = ['gold', 'answer', 'label', 'answerKey'].find((n) => fields[n] !== undefined);
  const value = name === undefined ? undefined : fields[name];
  const byLabel = labels.indexOf(value);
  const index = typeof value === 'string' ? (byLabel >= 0 ? byLabel : /^\d+$/.test(value) ? Number(value) : -1) : value;
  if (typeof index !== 'number' || !Number.isInteger(index) || index < 0 || index >= count) {
    throw fail(name === undefined ? 'no "gold", "answer", "label" or "answerKey" says which choice is right' : `"${name}" names none of the ${count} choices`);
  }
  return index;
}
