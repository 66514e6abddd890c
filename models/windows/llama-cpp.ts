/**
 * Perplexity as llama.cpp's llama-perplexity measures it: windows of `nCtx` tokens without overlap, the first token of each replaced by BOS where
 * the model adds one, and the predictions of the second half scored: nCtx - nCtx/2 - 1 in each.
 * Source: ggml-org/llama.cpp, tools/perplexity/perplexity.cpp (perplexity) and common/arg.cpp (`-f` drops one line end at the end of the file).
 */
import type { Tokenizer } from '../tokenizer/tokenizer.js';
import { IGNORE, requireTokens, type TokenWindow } from './window.js';

export interface LlamaCppOptions {
  readonly nCtx: number;
  /** Put in the place of each window's first token; left out for models that add no BOS. */
  readonly bos?: number;
  readonly maxWindows?: number;
  readonly source: string;
}

/** The text's ids as llama-perplexity reads a file: special tokens written out in it are text. */
export function llamaCppIds(tokenizer: Tokenizer, text: string): Int32Array {
  return tokenizer.encode(text.endsWith('\n') ? text.slice(0, -1) : text, { parseSpecial: false });
}

/** The BOS that the tokenizer puts before a text, if it does. */
export function addedBos(tokenizer: Tokenizer): number | undefined {
  const { bos } = tokenizer.special;
  return bos !== undefined && tokenizer.surround.before.includes(bos) ? bos : undefined;
}

/** DATASET_SHORT (65) below two windows, as there. */
export function llamaCppWindows(ids: Int32Array, { nCtx, bos, maxWindows = Infinity, source }: LlamaCppOptions): TokenWindow[] {
  requireTokens(ids.length, 2 * nCtx, source);
  const first = Math.floor(nCtx / 2);
  return Array.from({ length: Math.min(Math.floor(ids.length / nCtx), maxWindows) }, (_, i) => {
    const tokens = ids.subarray(i * nCtx, (i + 1) * nCtx);
    const inputs = Int32Array.from(tokens);
    if (bos !== undefined) inputs[0] = bos;
    const targets = new Int32Array(nCtx).fill(IGNORE);
    targets.set(tokens.subarray(first + 1), first);
    return { inputs, targets };
  });
}
