/**
 * A text encoder's hidden states -> one vector a text, as sentence-transformers makes it (models/Pooling.py, Normalize.py, Transformer.py of
 * github.com/UKPLab/sentence-transformers): `modules.json` lists the steps, `1_Pooling/config.json` says which pooling. Computed in f64.
 */
import * as z from 'zod';
import { configError, flag, readConfig, size, text, type ConfigSource } from './config/read.js';
import type { Tokenizer } from './tokenizer/tokenizer.js';

/** In the order in which several stand side by side. */
export const POOLING_MODES = ['cls', 'max', 'mean', 'mean_sqrt_len_tokens', 'weightedmean', 'lasttoken'] as const;
export type PoolingMode = (typeof POOLING_MODES)[number];

export interface Pooling {
  readonly modes: readonly PoolingMode[];
  /** To length 1. */
  readonly normalize: boolean;
}

export interface SentenceRecipe extends Pooling {
  /** Tokens of a text, special ones included; the rest is cut off. */
  readonly maxTokens?: number;
  readonly lowerCase: boolean;
}

/** What sentence-transformers does with a model that has no modules.json. */
export const PLAIN_RECIPE: SentenceRecipe = { modes: ['mean'], normalize: false, lowerCase: false };

/** Keys of 1_Pooling/config.json by mode; the mean is what is done where none says otherwise. */
const KEYS: Readonly<Record<PoolingMode, string>> = {
  cls: 'pooling_mode_cls_token',
  max: 'pooling_mode_max_tokens',
  mean: 'pooling_mode_mean_tokens',
  mean_sqrt_len_tokens: 'pooling_mode_mean_sqrt_len_tokens',
  weightedmean: 'pooling_mode_weightedmean_tokens',
  lasttoken: 'pooling_mode_lasttoken',
};

const moduleSchema = z.looseObject({ type: text, path: text.nullish() }, 'a module with "type" and "path"');
const modulesSchema = z.array(moduleSchema, 'a list of modules');
const poolingSchema = z.looseObject({
  word_embedding_dimension: size.nullish(),
  pooling_mode: text.nullish(),
  ...Object.fromEntries(Object.values(KEYS).map((key) => [key, flag.nullish()])),
});
const transformerSchema = z.looseObject({ max_seq_length: size.nullish(), do_lower_case: flag.nullish() });

/**
 * `read`: a JSON file of the checkpoint's folder by its path, undefined where it is not there. Undefined without modules.json; MODEL_CONFIG (65)
 * for steps that are not built here.
 */
export function parseSentence(read: (path: string) => ConfigSource | undefined, hiddenSize: number): SentenceRecipe | undefined {
  const source = read('modules.json');
  if (source === undefined) return undefined;
  const modules = readConfig(source, modulesSchema as unknown as z.ZodType<{ type: string; path?: string | null }[]>);
  let recipe: SentenceRecipe = { modes: [], normalize: false, lowerCase: false };
  for (const [i, { type, path }] of modules.entries()) {
    const kind = type.slice(type.lastIndexOf('.') + 1);
    // a folder beside modules.json, or that folder itself
    const folder = path == null || path === '' ? '' : `${path}/`;
    if (!/^([\w-][\w.-]*\/)?$/.test(folder)) throw configError(source, `${i}.path`, 'a folder beside modules.json');
    if (kind === 'Transformer' && i === 0) recipe = { ...recipe, ...transformer(read(`${folder}sentence_bert_config.json`)) };
    else if (kind === 'Pooling' && i === 1) recipe = { ...recipe, modes: poolingModes(source, i, read(`${folder}config.json`), hiddenSize) };
    else if (kind === 'Normalize' && i === 2) recipe = { ...recipe, normalize: true };
    else throw configError(source, `${i}.type`, 'Transformer, Pooling and perhaps Normalize, in this order');
  }
  if (recipe.modes.length === 0) throw configError(source, '1.type', 'a Pooling');
  return recipe;
}

function transformer(source: ConfigSource | undefined): Partial<SentenceRecipe> {
  if (source === undefined) return {};
  const { max_seq_length: most, do_lower_case: lower } = readConfig(source, transformerSchema);
  return { lowerCase: lower ?? false, ...(most == null ? {} : { maxTokens: most }) };
}

function poolingModes(modules: ConfigSource, index: number, source: ConfigSource | undefined, hiddenSize: number): PoolingMode[] {
  if (source === undefined) throw configError(modules, `${index}.path`, 'a folder with config.json');
  const c = readConfig(source, poolingSchema);
  if (c.word_embedding_dimension != null && c.word_embedding_dimension !== hiddenSize) {
    throw configError(source, 'word_embedding_dimension', `the model's ${hiddenSize}`);
  }
  if (c.pooling_mode != null) {
    const mode = POOLING_MODES.find((m) => m === c.pooling_mode!.toLowerCase());
    if (mode === undefined) throw configError(source, 'pooling_mode', `one of ${POOLING_MODES.join(', ')}`);
    return [mode];
  }
  const modes = POOLING_MODES.filter((mode) => ((c as Record<string, unknown>)[KEYS[mode]] ?? mode === 'mean') === true);
  if (modes.length === 0) throw configError(source, KEYS.mean, 'a pooling: none is true', false);
  return modes;
}

/** Ids of a text as the model is asked: special tokens around it, no more than `maxTokens` with them. `cut`: not all of it. */
export function sentenceIds(tokenizer: Tokenizer, raw: string, { lowerCase }: SentenceRecipe, maxTokens: number): { ids: Int32Array; cut: boolean } {
  const trimmed = raw.trim();
  const { before, after } = tokenizer.surround;
  const inner = tokenizer.encode(lowerCase ? trimmed.toLowerCase() : trimmed, { addSpecial: false });
  const room = Math.max(0, maxTokens - before.length - after.length);
  return { ids: Int32Array.from([...before, ...inner.subarray(0, room), ...after]), cut: inner.length > room };
}

/** states: (tokens, width) of one text, one token at least. Gives (modes * width). */
export function embedTokens(states: Float32Array, width: number, { modes, normalize }: Pooling): Float32Array {
  const out = new Float64Array(modes.length * width);
  modes.forEach((mode, i) => pool(states, width, mode, out.subarray(i * width, (i + 1) * width)));
  // torch's normalize divides by no less than 1e-12
  const length = normalize ? Math.max(1e-12, Math.sqrt(out.reduce((sum, v) => sum + v * v, 0))) : 1;
  return Float32Array.from(out, (v) => v / length);
}

function pool(states: Float32Array, width: number, mode: PoolingMode, out: Float64Array): void {
  const tokens = states.length / width;
  if (mode === 'cls') out.set(states.subarray(0, width));
  else if (mode === 'lasttoken') out.set(states.subarray((tokens - 1) * width));
  else if (mode === 'max') {
    out.fill(-Infinity);
    states.forEach((v, i) => (out[i % width] = Math.max(out[i % width]!, v)));
  } else {
    // the t-th token counts t times
    const weighted = mode === 'weightedmean';
    states.forEach((v, i) => (out[i % width]! += weighted ? v * (Math.floor(i / width) + 1) : v));
    const total = weighted ? (tokens * (tokens + 1)) / 2 : mode === 'mean' ? tokens : Math.sqrt(tokens);
    out.forEach((v, i) => (out[i] = v / total));
  }
}

/** For people: `mean, to length 1`. */
export const describePooling = ({ modes, normalize }: Pooling): string => `${modes.join(' + ')}${normalize ? ', to length 1' : ''}`;
