/**
 * Data files: plain text (one row), JSON Lines, or one JSON array. `FILE[BEGIN:END]` takes rows BEGIN up to END, counted from 0 and without END;
 * either may be left out. A file whose own name ends so is taken as it is.
 */
import { extname } from 'node:path';
import { PithError } from '../../core/errors.js';
import { WHOLE_TEXT, type TextRow } from '../../core/text-row.js';
import * as io from '../io.js';
import { parseJson } from '../json.js';
import { decodeUtf8, readLines } from './lines.js';
import { rowBody } from './rows.js';
import type { Fields, RowTemplate } from './template.js';

export interface DatasetSpec {
  readonly file: string;
  readonly rows?: readonly [begin: number, end: number];
}

export interface RowOptions {
  readonly template?: RowTemplate;
}

const ROW_FORMATS = new Set(['.jsonl', '.ndjson', '.json']);
/** V8 makes no longer strings. */
const MAX_TEXT_BYTES = 2 ** 29 - 24;

/** USAGE (64) when the range is empty or malformed. */
export function parseDatasetSpec(argument: string): DatasetSpec {
  const match = /^(.+)\[([^[\]]*)\]$/s.exec(argument);
  if (match === null || io.stat(argument) !== undefined) return { file: argument };
  const range = /^(\d*):(\d*)$/.exec(match[2]!);
  const begin = Number(range?.[1] ?? '');
  const end = range?.[2] === undefined || range[2] === '' ? Infinity : Number(range[2]);
  if (range === null || begin >= end)
    throw new PithError('USAGE', { message: `"${argument}": expected rows [BEGIN:END] with BEGIN < END, got [${match[2]!}]` });
  return { file: match[1]!, rows: [begin, end] };
}

/**
 * The rows, one after another. NOT_FOUND, DATASET_EMPTY (66); DATASET_JSON, DATASET_UTF8, DATASET_ROW (65) with file and line, when the reading
 * comes there.
 */
export function* readRows(spec: DatasetSpec, options: RowOptions = {}): Generator<TextRow> {
  const { file } = spec;
  const s = io.stat(file);
  if (s === undefined) throw new PithError('NOT_FOUND', { file });
  if (!s.isFile) throw new PithError('DATASET_EMPTY', { file, message: 'it is no file' });
  if (!ROW_FORMATS.has(extname(file).toLowerCase())) {
    yield textRow(spec, s.bytes, options);
    return;
  }
  const [begin, end] = spec.rows ?? [0, Infinity];
  let index = 0;
  let count = 0;
  for (const { place, value } of jsonRows(file, s.bytes)) {
    if (index++ < begin) continue;
    count++;
    yield toRow(file, place, value, options);
    // what lies behind the range is not read
    if (index >= end) return;
  }
  if (count === 0) throw new PithError('DATASET_EMPTY', { file, message: index === 0 ? 'it has no rows' : `it has ${index} rows, none from ${begin} on` });
}

function textRow({ file, rows }: DatasetSpec, bytes: number, options: RowOptions): TextRow {
  if (rows !== undefined) throw new PithError('USAGE', { message: `"${file}": a row range is for ${[...ROW_FORMATS].join(', ')}` });
  if (options.template !== undefined) throw new PithError('USAGE', { message: `"${file}": a template is for ${[...ROW_FORMATS].join(', ')}` });
  const text = wholeText(file, bytes);
  if (text === '') throw new PithError('DATASET_EMPTY', { file, message: 'the file is empty' });
  return { file, place: WHOLE_TEXT, body: { kind: 'text', text }, separator: '\n\n', fields: {} };
}

function wholeText(file: string, bytes: number): string {
  if (bytes > MAX_TEXT_BYTES)
    throw new PithError('DATASET_ROW', { file, place: WHOLE_TEXT, message: `${bytes} bytes are too long for one text; JSON Lines are read row by row` });
  return decodeUtf8(io.readFile(file), file, WHOLE_TEXT);
}

function* jsonRows(file: string, bytes: number): Generator<{ place: string; value: unknown }> {
  let first = true;
  for (const { number, text } of readLines(file)) {
    if (text.trim() === '') continue;
    if (first && text.trimStart().startsWith('[')) {
      yield* arrayRows(file, bytes);
      return;
    }
    first = false;
    yield { place: `line ${number}`, value: parse(text, file, () => `line ${number}`) };
  }
}

function* arrayRows(file: string, bytes: number): Generator<{ place: string; value: unknown }> {
  const text = wholeText(file, bytes);
  const value = parse(text, file, (at) => `line ${text.slice(0, at).split('\n').length}`);
  if (!Array.isArray(value)) throw new PithError('DATASET_ROW', { file, place: 'line 1', message: 'expected a list of rows' });
  for (const [i, row] of (value as unknown[]).entries()) yield { place: `row ${i + 1}`, value: row };
}

function parse(text: string, file: string, place: (position: number) => string): unknown {
  return parseJson(text, (message) => {
    // V8 says where; at the text's end it does not
    const position = Number(/position (\d+)/.exec(message)?.[1] ?? text.length);
    return new PithError('DATASET_JSON', { file, place: place(position), message });
  });
}

function toRow(file: string, place: string, value: unknown, { template }: RowOptions): TextRow {
  const fail = (message: string): PithError => new PithError('DATASET_ROW', { file, place, message });
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fail('expected an object');
  const fields = value as Fields;
  const body = rowBody(fields, template, fail);
  // texts are documents, as GPTQ joins WikiText's; a template has line ends of its own
  return { file, place, body, separator: body.kind === 'text' && template === undefined ? '\n\n' : '', fields };
}
