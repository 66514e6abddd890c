/** Running a whole model: scores of tokens, vectors of texts, generated text. */
import type { Pooling } from '../../models/sentence.js';
import type { ModelRef, RunSettings } from './refs.js';

/** Log probabilities of tokens, each given those before it in its sequence. `settings.memoryBytes` is what the task may hold. */
export interface ScoreTask {
  readonly type: 'score';
  readonly settings: RunSettings;
  readonly model: ModelRef;
  /** Its distributions are what the model's are compared with. */
  readonly reference?: ModelRef;
  readonly sequences: readonly Int32Array[];
  /** Index of the first token that is scored, by sequence; 1 where absent, as the first token has nothing before it. */
  readonly from?: readonly number[];
  /** Tokens of a batch; chosen by the memory where absent. */
  readonly batchTokens?: number;
  /** Hidden states that memory has no room for go to files whose names begin so; they are gone when the task ends. */
  readonly spool: string;
}

/** Of every scored token, the sequences one after the other. */
export interface TokenScores {
  /** -log p, nats. */
  readonly nll: Float32Array;
  /** The likeliest token in its place. */
  readonly top: Int32Array;
}

export interface ScoreResult extends TokenScores {
  readonly reference?: TokenScores;
  /** D(reference || model) of the distributions that each scored token was drawn from, nats. */
  readonly kld?: Float32Array;
}

/** One vector a token sequence, by a text encoder. */
export interface SentencesTask {
  readonly type: 'sentences';
  readonly settings: RunSettings;
  readonly model: ModelRef;
  /** Special tokens among them; one token at least each. */
  readonly sequences: readonly Int32Array[];
  readonly pooling: Pooling;
  /** Tokens of a batch; chosen by the memory where absent. */
  readonly batchTokens?: number;
  /** As in ScoreTask. */
  readonly spool: string;
}

export interface SentencesResult {
  /** Channels of a vector. */
  readonly width: number;
  /** (sequences, width) */
  readonly embeddings: Float32Array;
}

/** Continues a sequence token by token. */
export interface GenerateTask {
  readonly type: 'generate';
  readonly settings: RunSettings;
  readonly model: ModelRef;
  /** One at least. */
  readonly ids: Int32Array;
  /** How many to add at most. */
  readonly tokens: number;
  /** 0: always the likeliest; else p^(1/T) is drawn from, by the run's seed. */
  readonly temperature: number;
  /** Tokens that end it; they are not added. */
  readonly stop: readonly number[];
}

export interface GenerateResult {
  /** The added tokens. */
  readonly ids: Int32Array;
  /** What of the weights stayed in memory between tokens. */
  readonly kept: 'decoded' | 'stored' | 'nothing';
}
