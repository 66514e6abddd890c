/** The checkpoints of an evaluation: opened as they will be run, configs read, tokenizers that must agree. */
import { PithError } from '../core/errors.js';
import { totalByteLength } from '../core/shape.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { requireCausalConfig, requireEncoderConfig, requireTextConfig } from '../models/config/parse.js';
import type { BertConfig, CausalConfig } from '../models/config/types.js';
import { leastBytes } from '../models/memory.js';
import type { SentenceRecipe } from '../models/sentence.js';
import type { Tokenizer } from '../models/tokenizer/tokenizer.js';
import type { ModelRef } from '../workers/messages/refs.js';
import { loadSentence } from '../workers/load-sentence.js';
import { loadTokenizer } from '../workers/load-tokenizer.js';
import { openAny } from '../workers/open.js';
import { modelRef } from './model-ref.js';

/** What reads text. */
export type TextConfig = CausalConfig | BertConfig;

export class EvalModel<Config extends TextConfig = CausalConfig> implements AsyncDisposable {
  #tokenizer: Promise<Tokenizer> | undefined;

  private constructor(
    readonly argument: string,
    readonly ref: ModelRef,
    readonly config: Config,
    private readonly reader: CheckpointReader,
  ) {}

  /** NOT_FOUND (66) without config.json, MODEL_CONFIG (65) for one that describes neither a decoder nor a text encoder. */
  static async open(argument: string): Promise<EvalModel<TextConfig>> {
    const reader = await openAny(argument, { merged: 'F32' });
    try {
      const ref = await modelRef(argument, reader);
      return new EvalModel(argument, ref, requireTextConfig(ref.config, ref.configFile), reader);
    } catch (error) {
      await reader[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Of all tensors: what a pass counts for in the progress. */
  get bytes(): number {
    return totalByteLength(this.reader.infos.values());
  }

  /** What a worker needs at least for sequences of so many tokens. */
  leastBytes(tokens: number): number {
    return leastBytes(this.config, this.reader.infos, tokens);
  }

  /** How a text encoder's vectors are made; undefined where the checkpoint does not say. */
  sentence(): Promise<SentenceRecipe | undefined> {
    return loadSentence(this.reader, this.config.hiddenSize);
  }

  tokenizer(): Promise<Tokenizer> {
    this.#tokenizer ??= loadTokenizer(this.reader);
    return this.#tokenizer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.reader[Symbol.asyncDispose]();
  }
}

type Models<K extends string, Config extends TextConfig> = Partial<Record<K, EvalModel<Config>>>;

/** All models or none; the first error closes what is open. */
export async function openModels<K extends string>(
  arguments_: Readonly<Partial<Record<K, string>>>,
): Promise<{ models: Models<K, TextConfig> } & AsyncDisposable> {
  const models: Models<K, TextConfig> = {};
  const dispose = async (): Promise<void> => {
    for (const m of new Set(Object.values<EvalModel<TextConfig> | undefined>(models))) await m?.[Symbol.asyncDispose]();
  };
  const byArgument = new Map<string, EvalModel<TextConfig>>();
  try {
    for (const [role, argument] of Object.entries<string | undefined>(arguments_)) {
      if (argument === undefined) continue;
      const model = byArgument.get(argument) ?? (await EvalModel.open(argument));
      byArgument.set(argument, model);
      models[role as K] = model;
    }
  } catch (error) {
    await dispose();
    throw error;
  }
  return { models, [Symbol.asyncDispose]: dispose };
}

/** The same models as decoders: MODEL_CONFIG (65) for one that is none. */
export function asDecoders<K extends string>(models: Models<K, TextConfig>): Models<K, CausalConfig> {
  for (const m of Object.values<EvalModel<TextConfig> | undefined>(models)) if (m !== undefined) requireCausalConfig(m.ref.config, m.ref.configFile);
  return models as Models<K, CausalConfig>;
}

/** The same as text encoders. */
export function asEncoders<K extends string>(models: Models<K, TextConfig>): Models<K, BertConfig> {
  for (const m of Object.values<EvalModel<TextConfig> | undefined>(models)) if (m !== undefined) requireEncoderConfig(m.ref.config, m.ref.configFile);
  return models as Models<K, BertConfig>;
}

/** Figures of two models can be compared only over the same tokens: VOCABULARY_MISMATCH, TOKENIZER_MISMATCH (65). */
export async function checkComparable(model: EvalModel, other: EvalModel): Promise<void> {
  const [own, expected] = [model.config.vocabSize, other.config.vocabSize];
  const names = { file: model.argument, reference: other.argument };
  if (own !== expected) throw new PithError('VOCABULARY_MISMATCH', { ...names, got: own, expected });
  const [a, b] = await Promise.all([model.tokenizer(), tokenizerOrNone(other)]);
  if (b === undefined) return;
  for (let id = 0; id <= Math.max(a.maxId, b.maxId); id++) {
    const [got, wanted] = [a.tokenOf(id), b.tokenOf(id)];
    // rows that fill the embedding up may have a name in one of them only
    if (got !== wanted && got !== undefined && wanted !== undefined) throw new PithError('TOKENIZER_MISMATCH', { ...names, token: id, got, expected: wanted });
  }
}

/** The other model may be bare weights: its tokens are the first one's then. */
export async function tokenizerOrNone(model: EvalModel<TextConfig>): Promise<Tokenizer | undefined> {
  try {
    return await model.tokenizer();
  } catch (error) {
    if (error instanceof PithError && error.code === 'TOKENIZER_MISSING') return undefined;
    throw error;
  }
}
