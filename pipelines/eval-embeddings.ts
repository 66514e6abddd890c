/** How near a text encoder's vectors are to another checkpoint's: what compression left of its embeddings. */
import { join } from 'node:path';
import { PithError } from '../core/errors.js';
import type { ProgressEvent } from '../core/events.js';
import { WHOLE_TEXT, type TextRow } from '../core/text-row.js';
import { readRows } from '../formats/dataset/dataset.js';
import type { BertConfig } from '../models/config/types.js';
import { describePooling, PLAIN_RECIPE, sentenceIds, type SentenceRecipe } from '../models/sentence.js';
import type { Tokenizer } from '../models/tokenizer/tokenizer.js';
import { rowText } from '../models/windows/training.js';
import type { SentencesResult, SentencesTask } from '../workers/messages/model.js';
import type { WorkerPool } from '../workers/pool.js';
import type { EvalDataset } from './eval-data.js';
import { tokenizerOrNone, type EvalModel } from './eval-models.js';
import { share, shardCount, shardSettings, type ScoreRun } from './eval-score.js';
import { runJobs, type Job } from './schedule.js';

export type Encoder = EvalModel<BertConfig>;

/** A text of the data, and where it stands there. */
export interface PlacedText {
  readonly place: string;
  readonly text: string;
}

export interface EmbeddingFigures {
  readonly texts: number;
  /** Of the model's sequences, special ones among them. */
  readonly tokens: number;
  /** Texts that were longer than `maxTokens` and lost their ends. */
  readonly cut: number;
  readonly maxTokens: number;
  /** Channels of a vector. */
  readonly dimension: number;
  /** `mean, to length 1` */
  readonly pooling: string;
  readonly cosine: CosineFigures;
  /** The texts whose vectors are farthest apart, the farthest first. */
  readonly lowest: readonly (PlacedText & { readonly cosine: number })[];
}

/** Over the texts. */
export interface CosineFigures {
  readonly mean: number;
  readonly min: number;
  readonly p01: number;
  readonly median: number;
}

export type EmbeddingRun = Omit<ScoreRun, 'spool'> & { readonly work: string };
export type EmbeddingData = Omit<EvalDataset, 'seqlen' | 'protocol' | 'wikitext'> & { readonly seqlen?: number };

const LOWEST = 10;
/** Characters of a text that is shown. */
const SHOWN = 160;

/** What an encoder is asked, made of texts. */
export interface Prepared {
  readonly encoder: Encoder;
  readonly recipe: SentenceRecipe;
  readonly maxTokens: number;
  readonly sequences: readonly Int32Array[];
  readonly cut: number;
}

/**
 * Cosines between the vectors of `model` and of `reference`, each made by its own tokenizer and pooling; a checkpoint without them has the other's.
 * EMBEDDING_MISMATCH, NOT_FINITE (65), DATASET_EMPTY (66).
 */
export async function* compareEmbeddings(
  encoders: { readonly model: Encoder; readonly reference: Encoder },
  data: EmbeddingData,
  run: Omit<EmbeddingRun, 'totalBytes' | 'doneBytes' | 'pool'> & { readonly makePool: (threads: number) => WorkerPool },
): AsyncGenerator<ProgressEvent, EmbeddingFigures, void> {
  const { model, reference, texts } = await prepare(encoders, data);
  const dimension = (p: Prepared): number => p.recipe.modes.length * p.encoder.config.hiddenSize;
  if (dimension(model) !== dimension(reference)) {
    const names = { file: model.encoder.argument, reference: reference.encoder.argument };
    throw new PithError('EMBEDDING_MISMATCH', { ...names, got: dimension(model), expected: dimension(reference) });
  }
  const both = [model, reference];
  const bytes = both.map((p) => shards(p, run) * p.encoder.bytes);
  await using pool = run.makePool(Math.max(...both.map((p) => shards(p, run))));
  const totalBytes = bytes[0]! + bytes[1]!;
  yield { type: 'job.start', job: run.job, totalBytes, tasks: both.length, resumedBytes: 0 };
  const vectors: Float32Array[] = [];
  for (const [i, p] of both.entries()) {
    vectors.push(yield* embedAll(p, { ...run, pool, totalBytes, doneBytes: i === 0 ? 0 : bytes[0]! }, `${i}`));
    checkFinite(p, vectors[i]!, texts);
  }
  return {
    texts: texts.length,
    tokens: model.sequences.reduce((sum, s) => sum + s.length, 0),
    cut: model.cut,
    maxTokens: model.maxTokens,
    dimension: dimension(model),
    pooling: describePooling(model.recipe),
    ...cosineFigures(vectors[0]!, vectors[1]!, texts),
  };
}

const shards = (p: Prepared, run: Pick<EmbeddingRun, 'resolved'> & Parameters<typeof shardCount>[1]): number =>
  shardCount({ model: p.encoder, sequences: p.sequences }, run, run.resolved);

async function prepare(
  { model, reference }: { readonly model: Encoder; readonly reference: Encoder },
  data: EmbeddingData,
): Promise<{ model: Prepared; reference: Prepared; texts: readonly PlacedText[] }> {
  const tokenizer = await model.tokenizer();
  const [own, other] = await Promise.all([model.sentence(), reference.sentence()]);
  const recipe = own ?? other ?? PLAIN_RECIPE;
  const texts = takeTexts(data, tokenizer, (text) => sentenceIds(tokenizer, text, recipe, maxTokens(model, recipe, data.seqlen)).ids.length);
  const otherTokenizer = (await tokenizerOrNone(reference)) ?? tokenizer;
  return {
    texts,
    model: prepareTexts({ encoder: model, tokenizer, recipe, ...data }, texts),
    reference: prepareTexts({ encoder: reference, tokenizer: otherTokenizer, recipe: other ?? recipe, ...data }, texts),
  };
}

interface EncoderSetup {
  readonly encoder: Encoder;
  readonly tokenizer: Tokenizer;
  readonly recipe: SentenceRecipe;
  readonly seqlen?: number;
}

export function prepareTexts({ encoder, tokenizer, recipe, seqlen }: EncoderSetup, texts: readonly Pick<PlacedText, 'text'>[]): Prepared {
  const most = maxTokens(encoder, recipe, seqlen);
  const made = texts.map(({ text }) => sentenceIds(tokenizer, text, recipe, most));
  return { encoder, recipe, maxTokens: most, sequences: made.map((m) => m.ids), cut: made.filter((m) => m.cut).length };
}

/** Tokens of a text: what was asked for, or what the checkpoint says; never more than there are positions. */
function maxTokens(encoder: Encoder, recipe: SentenceRecipe, seqlen: number | undefined): number {
  const { maxPositions } = encoder.config;
  if (seqlen !== undefined && seqlen > maxPositions) {
    throw new PithError('USAGE', { message: `--seqlen ${seqlen}: ${encoder.argument} has ${maxPositions} positions, each a row of a table; give fewer` });
  }
  return Math.min(seqlen ?? recipe.maxTokens ?? maxPositions, maxPositions);
}

/** Texts up to `maxTokens` tokens of the data. DATASET_EMPTY (66) when there is none. */
function takeTexts(data: EmbeddingData, tokenizer: Tokenizer, tokensOf: (text: string) => number): PlacedText[] {
  const texts: PlacedText[] = [];
  let tokens = 0;
  for (const row of readRows(data.spec, data.template === undefined ? {} : { template: data.template })) {
    for (const t of textsOf(row, tokenizer)) {
      if (t.text.trim() === '') continue;
      if (data.maxTokens !== undefined) tokens += tokensOf(t.text);
      if (texts.length > 0 && tokens > (data.maxTokens ?? Infinity)) return texts;
      texts.push(t);
    }
  }
  if (texts.length === 0) throw new PithError('DATASET_EMPTY', { file: data.spec.file, message: 'no row has a text' });
  return texts;
}

/** A row is a text; of a plain text file every line is one. */
function textsOf(row: TextRow, tokenizer: Tokenizer): PlacedText[] {
  if (row.place !== WHOLE_TEXT) return [{ place: row.place, text: rowText(row, tokenizer) }];
  return rowText(row, tokenizer)
    .split('\n')
    .map((text, i) => ({ place: `line ${i + 1}`, text }));
}

/** (texts, dimension). */
export async function* embedAll(
  p: Pick<Prepared, 'encoder' | 'recipe' | 'sequences'>,
  run: EmbeddingRun,
  name: string,
): AsyncGenerator<ProgressEvent, Float32Array, void> {
  const { encoder, recipe, sequences } = p;
  const parts = share(sequences, shardCount({ model: encoder, sequences }, run, run.resolved));
  const settings = shardSettings(run, parts.length);
  const width = recipe.modes.length * encoder.config.hiddenSize;
  const out = new Float32Array(sequences.length * width);
  const jobs = parts.map((members, i): Job<SentencesTask> & { readonly members: readonly number[] } => ({
    members,
    label: `${i}`,
    bytes: encoder.bytes,
    memoryBytes: settings.memoryBytes,
    task: {
      type: 'sentences',
      settings,
      model: encoder.ref,
      sequences: members.map((m) => sequences[m]!),
      pooling: { modes: recipe.modes, normalize: recipe.normalize },
      spool: join(run.work, `states.${name}.${i}`),
      ...(run.batchTokens === undefined ? {} : { batchTokens: run.batchTokens }),
    },
  }));
  const members = new Map(jobs.map((j) => [j.label, j.members]));
  yield* runJobs<SentencesTask>(jobs, run, ({ label }, { embeddings }: SentencesResult) => {
    members.get(label)!.forEach((m, i) => out.set(embeddings.subarray(i * width, (i + 1) * width), m * width));
    return undefined;
  });
  return out;
}

function checkFinite({ encoder }: Prepared, vectors: Float32Array, texts: readonly PlacedText[]): void {
  const bad = vectors.findIndex((v) => !Number.isFinite(v));
  if (bad < 0) return;
  const { place } = texts[Math.floor(bad / (vectors.length / texts.length))]!;
  throw new PithError('NOT_FINITE', { message: `${encoder.argument}: the vector of ${place}` });
}

function cosineFigures(a: Float32Array, b: Float32Array, texts: readonly PlacedText[]): Pick<EmbeddingFigures, 'cosine' | 'lowest'> {
  const width = a.length / texts.length;
  const cosines = texts.map((_, t) => cosine(a.subarray(t * width, (t + 1) * width), b.subarray(t * width, (t + 1) * width)));
  const order = cosines.map((_, i) => i).sort((i, j) => cosines[i]! - cosines[j]! || i - j);
  // the smallest value that so large a share of the texts does not exceed
  const quantile = (q: number): number => cosines[order[Math.max(0, Math.ceil(q * texts.length) - 1)]!]!;
  const lowest = order.slice(0, LOWEST).map((i) => ({ place: texts[i]!.place, text: shown(texts[i]!.text), cosine: cosines[i]! }));
  return { cosine: { mean: cosines.reduce((x, c) => x + c, 0) / texts.length, min: quantile(0), p01: quantile(0.01), median: quantile(0.5) }, lowest };
}

/** Of two vectors, in f64; 1 of two zeros, 0 of one. */
function cosine(a: Float32Array, b: Float32Array): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += a[i]! * b[i]!;
    aa += a[i]! * a[i]!;
    bb += b[i]! * b[i]!;
  }
  if (aa === 0 || bb === 0) return aa === bb ? 1 : 0;
  // the product of the roots would round equal vectors away from 1
  return ab / Math.sqrt(aa * bb);
}

function shown(text: string): string {
  const characters = Array.from(text.trim());
  return characters.length > SHOWN ? `${characters.slice(0, SHOWN).join('')}...` : characters.join('');
}
