/** The data of an evaluation as a model meets it: sequences, and from which token on each is scored; by the protocol of the figure. */
import { PithError } from '../core/errors.js';
import type { TextRow } from '../core/text-row.js';
import { readRows, type DatasetSpec } from '../formats/dataset/dataset.js';
import type { RowTemplate } from '../formats/dataset/template.js';
import type { Tokenizer } from '../models/tokenizer/tokenizer.js';
import { choiceWindows } from '../models/windows/choices.js';
import { gptqWindows } from '../models/windows/gptq.js';
import { addedBos, llamaCppIds, llamaCppWindows } from '../models/windows/llama-cpp.js';
import { countBytes, countWords, documentIds, prefixToken, rollingWindows } from '../models/windows/rolling.js';
import { joinRows, rowText } from '../models/windows/training.js';
import { wikitextDetokenize, wikitextPages } from '../models/windows/wikitext.js';
import { IGNORE, type TokenWindow } from '../models/windows/window.js';
import type { TextUnits } from './eval-figures.js';

export const PROTOCOLS = ['gptq', 'llama.cpp', 'lm-eval'] as const;
export type Protocol = (typeof PROTOCOLS)[number];

export interface EvalDataset {
  readonly spec: DatasetSpec;
  readonly template?: RowTemplate;
  readonly protocol: Protocol;
  /** Tokens of a window. */
  readonly seqlen: number;
  readonly maxTokens?: number;
  /** The text is WikiText's raw file: lm-eval reads it page by page. */
  readonly wikitext?: boolean;
}

export interface ScoredSequences {
  readonly sequences: readonly Int32Array[];
  /** First scored token of each. */
  readonly from: readonly number[];
}

export interface EvalData extends ScoredSequences {
  /** Tokens of the data that the windows were taken from. */
  readonly tokens: number;
  readonly documents: number;
  /** Words and bytes of what is scored: lm-eval's. */
  readonly units?: TextUnits;
}

/** DATASET_EMPTY (66); DATASET_SHORT, DATASET_JSON, DATASET_ROW (65). */
export function evalData(d: EvalDataset, tokenizer: Tokenizer): EvalData {
  if (d.wikitext === true && d.protocol !== 'lm-eval') throw new PithError('USAGE', { message: '--wikitext is for --protocol lm-eval' });
  const rows = readRows(d.spec, d.template === undefined ? {} : { template: d.template });
  if (d.protocol === 'lm-eval') return documents(d, rows, tokenizer);
  const enough = enoughText(d.maxTokens);
  const text = joinRows(enoughRows(rows, tokenizer, enough), tokenizer).slice(0, enough);
  const source = d.spec.file;
  const { seqlen, maxTokens } = d;
  const ids = d.protocol === 'gptq' ? tokenizer.encode(text) : llamaCppIds(tokenizer, text);
  const windows = d.protocol === 'gptq' ? gptqWindows(ids, { seqlen, source, ...limit(maxTokens) }) : llamaWindows(ids, d, tokenizer);
  return { ...scored(windows), tokens: windows.length * seqlen, documents: 1 };
}

/** V8 makes no longer strings. */
const MAX_TEXT = 2 ** 29 - 24;
/** Characters that surely hold so many tokens; no language has 64 a token. A text below 16 M is read whole. */
const enoughText = (maxTokens: number | undefined): number => (maxTokens === undefined ? Infinity : Math.max(1 << 24, 64 * maxTokens));

/** Rows up to where a limit of tokens is surely reached: of a large file not all is read. DATASET_ROW (65) where the text gets too long. */
function* enoughRows(rows: Iterable<TextRow>, tokenizer: Tokenizer, enough: number): Generator<TextRow> {
  let length = 0;
  for (const row of rows) {
    length += rowText(row, tokenizer).length + row.separator.length;
    if (length > MAX_TEXT) throw new PithError('DATASET_ROW', { file: row.file, place: row.place, message: 'the text gets too long here; give --max-tokens, or fewer rows' }); // prettier-ignore
    yield row;
    if (length >= enough) return;
  }
}

const limit = (maxTokens: number | undefined): { maxTokens?: number } => (maxTokens === undefined ? {} : { maxTokens });

function llamaWindows(ids: Int32Array, { seqlen: nCtx, maxTokens, spec }: EvalDataset, tokenizer: Tokenizer): TokenWindow[] {
  const bos = addedBos(tokenizer);
  return llamaCppWindows(ids, {
    nCtx,
    source: spec.file,
    ...(bos === undefined ? {} : { bos }),
    ...(maxTokens === undefined ? {} : { maxWindows: Math.max(1, Math.floor(maxTokens / nCtx)) }),
  });
}

/** Whole documents, so that their words and bytes are those that are scored. */
function documents(d: EvalDataset, rows: Iterable<TextRow>, tokenizer: Tokenizer): EvalData {
  const windows: TokenWindow[] = [];
  const units = { words: 0, bytes: 0 };
  let [tokens, count] = [0, 0];
  for (const text of documentTexts(rows, tokenizer, d.wikitext === true)) {
    const ids = documentIds(tokenizer, text.read);
    if (count > 0 && tokens + ids.length > (d.maxTokens ?? Infinity)) break;
    windows.push(...rollingWindows(ids, { prefixToken: prefixToken(tokenizer), maxSeqLen: d.seqlen }));
    units.words += countWords(text.counted);
    units.bytes += countBytes(text.counted);
    tokens += ids.length;
    count++;
  }
  if (tokens === 0) throw new PithError('DATASET_EMPTY', { file: d.spec.file, message: 'no document has a token' });
  return { ...scored(windows), tokens, documents: count, units };
}

function* documentTexts(rows: Iterable<TextRow>, tokenizer: Tokenizer, wikitext: boolean): Generator<{ read: string; counted: string }> {
  for (const row of rows) {
    const text = rowText(row, tokenizer);
    if (!wikitext) yield { read: text, counted: text };
    else for (const page of wikitextPages(text)) yield { read: wikitextDetokenize(page), counted: page };
  }
}

/** Windows as the tokens themselves: inputs, and the last target behind them. A window's targets are one run. */
export function scored(windows: readonly TokenWindow[]): ScoredSequences {
  const all = windows.map(({ inputs, targets }) => {
    const first = targets.findIndex((t) => t !== IGNORE);
    const last = targets.findLastIndex((t) => t !== IGNORE);
    if (first < 0) return undefined;
    const ids = new Int32Array(last + 2);
    ids.set(inputs.subarray(0, last + 1));
    ids[last + 1] = targets[last]!;
    return { ids, from: first + 1 };
  });
  const kept = all.filter((w) => w !== undefined);
  return { sequences: kept.map((w) => w.ids), from: kept.map((w) => w.from) };
}

export interface Question {
  /** Its choices' places among the sequences. */
  readonly first: number;
  readonly characters: readonly number[];
  readonly bytes: readonly number[];
  readonly gold: number;
}

export interface ChoiceData extends ScoredSequences {
  readonly questions: readonly Question[];
}

/** DATASET_ROW (65) for a row without choices. */
export function choiceData(spec: DatasetSpec, template: RowTemplate | undefined, tokenizer: Tokenizer, maxSeqLen: number): ChoiceData {
  const windows: TokenWindow[] = [];
  const questions: Question[] = [];
  for (const row of readRows(spec, template === undefined ? {} : { template })) {
    if (row.body.kind !== 'choices') throw new PithError('DATASET_ROW', { file: row.file, place: row.place, message: 'expected a question with "choices"' });
    const { windows: own, ...question } = choiceWindows(row.body, tokenizer, { maxSeqLen });
    questions.push({ first: windows.length, ...question });
    windows.push(...own);
  }
  return { ...scored(windows), questions };
}
