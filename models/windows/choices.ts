/**
 * Multiple choice as lm-evaluation-harness scores it: the log-likelihood of " choice" after the query, for each choice; the largest wins (acc), or
 * the largest per character (acc_norm) or per byte (acc_bytes).
 * Source: lm_eval/api/model.py (TemplateLM._encode_pair, loglikelihood), lm_eval/models/huggingface.py (_loglikelihood_tokens), lm_eval/api/task.py.
 */
import type { RowBody } from '../../core/text-row.js';
import { trimEnd } from '../tokenizer/unicode.js';
import type { Tokenizer } from '../tokenizer/tokenizer.js';
import { documentIds, prefixToken } from './rolling.js';
import { IGNORE, type TokenWindow } from './window.js';

export interface ChoiceWindows {
  /** One for each choice; the targets are the choice's tokens. */
  readonly windows: readonly TokenWindow[];
  /** Characters and bytes of each choice, to divide its log-likelihood by. */
  readonly characters: readonly number[];
  readonly bytes: readonly number[];
  readonly gold: number;
}

export interface ChoiceOptions {
  /** Longer contexts lose their beginning. */
  readonly maxSeqLen: number;
  /** Between query and choice. */
  readonly delimiter?: string;
}

export function choiceWindows(body: Extract<RowBody, { kind: 'choices' }>, tokenizer: Tokenizer, { maxSeqLen, delimiter = ' ' }: ChoiceOptions): ChoiceWindows {
  return {
    windows: body.choices.map((choice) => pairWindow(tokenizer, body.query, delimiter + choice, maxSeqLen)),
    characters: body.choices.map((c) => Array.from(c).length),
    bytes: body.choices.map((c) => Buffer.byteLength(c)),
    gold: body.gold,
  };
}

/** The window that scores `continuation` after `context`: the continuation's tokens are those
 * that the two have as one text beyond the number of the context's own, whose trailing space goes to the continuation. */
export function pairWindow(tokenizer: Tokenizer, context: string, continuation: string, maxSeqLen: number): TokenWindow {
  const [before, scored] = encodePair(tokenizer, context, continuation);
  const ids = Int32Array.from([...before, ...scored]).subarray(-(maxSeqLen + 1));
  const inputs = ids.subarray(0, -1);
  const targets = new Int32Array(inputs.length).fill(IGNORE);
  const count = Math.min(scored.length, inputs.length);
  targets.set(ids.subarray(ids.length - count), targets.length - count);
  return { inputs, targets };
}

function encodePair(tokenizer: Tokenizer, context: string, continuation: string): [Int32Array, Int32Array] {
  if (context === '') {
    const ids = tokenizer.encode(continuation, { addSpecial: false });
    const prefix = prefixToken(tokenizer);
    return ids[0] === prefix ? [ids.subarray(0, 1), ids.subarray(1)] : [Int32Array.of(prefix), ids];
  }
  const before = documentIds(tokenizer, trimEnd(context));
  return [before, documentIds(tokenizer, context + continuation).subarray(before.length)];
}
