/** Tokens as a model takes them in one pass, and what each position should predict. */
import { PithError } from '../../core/errors.js';

/** A position without a target; PyTorch's ignore_index. */
export const IGNORE = -100;

export interface TokenWindow {
  /** (n) token ids. */
  readonly inputs: Int32Array;
  /** (n) the token that follows each input, already shifted, or IGNORE where nothing is scored. */
  readonly targets: Int32Array;
}

/** The window of `tokens` in which every next token is a target. */
export function nextTokenWindow(tokens: Int32Array): TokenWindow {
  const targets = new Int32Array(tokens.length).fill(IGNORE);
  targets.set(tokens.subarray(1));
  return { inputs: tokens, targets };
}

export function scoredTokens(window: TokenWindow): number {
  return window.targets.reduce((sum, t) => sum + (t === IGNORE ? 0 : 1), 0);
}

/** The window as one sequence whose tokens from `from` on are scored, each after those before it; for windows without gaps between targets. */
export function scoredSequence({ inputs, targets }: TokenWindow): { readonly ids: Int32Array; readonly from: number } {
  const last = targets.at(-1);
  const ids = last === undefined || last === IGNORE ? inputs : Int32Array.from([...inputs, last]);
  const first = targets.findIndex((t) => t !== IGNORE);
  return { ids, from: first < 0 ? ids.length : first + 1 };
}

/** `source`: the data that errors name. */
export function requireTokens(got: number, expected: number, source: string): void {
  if (got < expected) throw new PithError('DATASET_SHORT', { file: source, expected, got });
}
