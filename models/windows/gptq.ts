/**
 * Perplexity as GPTQ measures it, and most quantization and pruning papers after it: one long text, windows of `seqlen` tokens without overlap,
 * a rest that fills no window left out, seqlen - 1 predictions in each, exp of the mean over all.
 * Source: IST-DASLab/gptq, datautils.py (get_wikitext2 joins the rows by two line ends) and opt.py (opt_eval); Frantar et al., arXiv 2210.17323.
 */
import { nextTokenWindow, requireTokens, type TokenWindow } from './window.js';

export interface GptqOptions {
  /** Tokens in a window. */
  readonly seqlen: number;
  /** Takes no more tokens than this from the start of the text. */
  readonly maxTokens?: number;
  readonly source: string;
}

/** DATASET_SHORT (65) when there is not one window. */
export function gptqWindows(ids: Int32Array, { seqlen, maxTokens = Infinity, source }: GptqOptions): TokenWindow[] {
  requireTokens(Math.min(ids.length, maxTokens), seqlen, source);
  const count = Math.floor(Math.min(ids.length, maxTokens) / seqlen);
  return Array.from({ length: count }, (_, i) => nextTokenWindow(ids.subarray(i * seqlen, (i + 1) * seqlen)));
}
