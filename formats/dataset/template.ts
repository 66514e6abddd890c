/**
 * A row template: how a row's fields become text. `{name}` is a field, `{a.b}` a field in a field, `{{` and `}}` are braces, `\n`, `\t`, `\r`
 * and `\\` what they are in most languages. `{|}` parts the prompt from the completion: `Question: {question}\nAnswer:{|} {answer}\n`.
 */
import { PithError } from '../../core/errors.js';
import type { RowBody } from '../../core/text-row.js';

export type Fields = Readonly<Record<string, unknown>>;
type Part = { readonly text: string } | { readonly field: string };

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', '\\': '\\' };
const TOKEN = /\\(?<escape>[^])|(?<brace>\{\{|\}\})|\{(?<field>[A-Za-z_][\w.]*)\}|(?<divider>\{\|\})|(?<stray>[{}\\])|(?<text>[^{}\\]+)/g;

export interface RowTemplate {
  /** Text, or a prompt and its completion. `fail` makes the error for a field that is missing or no text. */
  readonly body: (fields: Fields, fail: (message: string) => Error) => RowBody;
}

/** USAGE (64) when it is malformed. */
export function parseRowTemplate(source: string): RowTemplate {
  const bad = (message: string): PithError => new PithError('USAGE', { message: `template "${source}": ${message}` });
  const halves: Part[][] = [[]];
  for (const { groups } of source.matchAll(TOKEN)) {
    const { escape, brace, field, divider, stray, text } = groups ?? {};
    const parts = halves.at(-1)!;
    if (escape !== undefined) {
      const character = ESCAPES[escape];
      if (character === undefined) throw bad(`unknown escape \\${escape}`);
      parts.push({ text: character });
    } else if (brace !== undefined) parts.push({ text: brace[0]! });
    else if (field !== undefined) parts.push({ field });
    else if (divider !== undefined) halves.push([]);
    else if (stray !== undefined) throw bad(`"${stray}" alone; write ${stray.repeat(2)}`);
    else parts.push({ text: text! });
  }
  if (halves.length > 2) throw bad('{|} can be there once');
  if (!halves.flat().some((p) => 'field' in p)) throw bad('it names no field');
  const [prompt, completion] = halves;
  return {
    body: (fields, fail) =>
      completion === undefined
        ? { kind: 'text', text: fill(prompt!, fields, fail) }
        : { kind: 'completion', prompt: fill(prompt!, fields, fail), completion: fill(completion, fields, fail) },
  };
}

function fill(parts: readonly Part[], fields: Fields, fail: (message: string) => Error): string {
  return parts.map((p) => ('text' in p ? p.text : fieldText(p.field, fields, fail))).join('');
}

function fieldText(path: string, fields: Fields, fail: (message: string) => Error): string {
  let value: unknown = fields;
  for (const name of path.split('.')) value = typeof value === 'object' && value !== null && Object.hasOwn(value, name) ? (value as Fields)[name] : undefined;
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  throw fail(value === undefined ? `field "${path}" is missing; the row has ${Object.keys(fields).join(', ') || 'no fields'}` : `field "${path}" is no text`);
}
