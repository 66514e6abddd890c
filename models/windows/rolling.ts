/**
 * Word, byte and bit perplexity as EleutherAI's lm-evaluation-harness measures them: each document in rolling windows in which every token is
 * predicted once, the first after a prefix token; exp(-sum of log-likelihoods / words), the same by bytes, and bits per byte.
 * Source: lm_eval/utils.py (get_rolling_token_windows, make_disjoint_window), lm_eval/models/huggingface.py (loglikelihood_rolling, prefix_token_id),
 * lm_eval/tasks/wikitext/preprocess_wikitext.py.
 */
import { PithError } from '../../core/errors.js';
import type { Tokenizer } from '../tokenizer/tokenizer.js';
import { PYTHON_WHITESPACE } from '../tokenizer/unicode.js';
import { IGNORE, type TokenWindow } from './window.js';

export interface RollingOptions {
  /** What the first token is predicted from: BOS, or EOS where the model has none. */
  readonly prefixToken: number;
  /** Tokens in a window. */
  readonly maxSeqLen: number;
  /** Tokens that a window at least has before the first it scores; 1 there. */
  readonly contextLen?: number;
}

/** TOKENIZER_TOKEN (65) when the model has neither. */
export function prefixToken(tokenizer: Tokenizer): number {
  return tokenizer.special.bos ?? tokenizer.required('eos');
}

/** The document's ids as there: with the tokenizer's special tokens, unless it begins with the prefix token itself. */
export function documentIds(tokenizer: Tokenizer, text: string): Int32Array {
  return tokenizer.encode(text, { addSpecial: !text.startsWith(tokenizer.decode([prefixToken(tokenizer)])) });
}

/** The windows of one document; none for an empty one. */
export function rollingWindows(ids: Int32Array, { prefixToken, maxSeqLen, contextLen = 1 }: RollingOptions): TokenWindow[] {
  if (contextLen < 1 || contextLen > maxSeqLen) throw new PithError('USAGE', { message: `expected a context of 1 to ${maxSeqLen} tokens, got ${contextLen}` });
  if (ids.length === 0) return [];
  // input i is what token i is predicted from
  const before = new Int32Array(ids.length);
  before[0] = prefixToken;
  before.set(ids.subarray(0, -1), 1);
  const step = maxSeqLen - contextLen + 1;
  const windows: TokenWindow[] = [];
  for (let begin = 0, end = Math.min(maxSeqLen, ids.length); begin < ids.length; begin = end, end = Math.min(begin + step, ids.length)) {
    // a last window that scores fewer tokens has the more before them
    const from = Math.max(0, end - maxSeqLen);
    const targets = new Int32Array(end - from).fill(IGNORE);
    targets.set(ids.subarray(begin, end), begin - from);
    windows.push({ inputs: before.subarray(from, end), targets });
  }
  return windows;
}

const SPACES = new RegExp(`[${PYTHON_WHITESPACE}]+`, 'u');

/** Words as Python's `re.split(r"\s+", text)` counts them: one more than the runs of whitespace. */
export function countWords(text: string): number {
  return text.split(SPACES).length;
}

export function countBytes(text: string): number {
  return Buffer.byteLength(text.toWellFormed(), 'utf8');
}
