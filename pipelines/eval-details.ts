/** Where a model does badly: loss by place in the window, how divergences are spread, the worst tokens in their contexts. */
import type { Tokenizer } from '../models/tokenizer/tokenizer.js';
import type { ScoreResult } from '../workers/messages/model.js';
import type { ScoredSequences } from './eval-data.js';

export interface PositionBin {
  /** Places of a window, [from, to). */
  readonly from: number;
  readonly to: number;
  readonly tokens: number;
  /** Means, nats. */
  readonly nll: number;
  readonly referenceNll?: number;
  readonly kld?: number;
}

export interface WorstToken {
  readonly window: number;
  readonly position: number;
  /** What stands before it. */
  readonly context: string;
  readonly token: string;
  /** The likeliest in its place. */
  readonly top: string;
  readonly p: number;
  readonly reference?: { readonly top: string; readonly p: number };
  readonly kld?: number;
}

export interface KldBin {
  /** [from, to) nats; the first begins at 0, whatever is below it. */
  readonly from: number;
  readonly to: number;
  readonly tokens: number;
}

export interface EvalDetails {
  readonly byPosition: readonly PositionBin[];
  /** Empty without a reference. */
  readonly kld: readonly KldBin[];
  /** By divergence with a reference, by loss without. */
  readonly worst: readonly WorstToken[];
}

const POSITION_BINS = 32;
const WORST = 25;
const CONTEXT_TOKENS = 16;
/** Decades of the histogram. */
const [LOWEST, HIGHEST, STEPS] = [-7, 1, 4];

export function evalDetails(data: ScoredSequences, result: ScoreResult, tokenizer: Tokenizer): EvalDetails {
  return {
    byPosition: byPosition(data, result),
    kld: result.kld === undefined ? [] : histogram(result.kld),
    worst: worst(data, result, tokenizer),
  };
}

function* scoredTokens({ sequences, from }: ScoredSequences): Generator<{ at: number; window: number; position: number }> {
  let at = 0;
  for (const [window, ids] of sequences.entries()) {
    for (let position = from[window]!; position < ids.length; position++) yield { at: at++, window, position };
  }
}

function byPosition(data: ScoredSequences, { nll, reference, kld }: ScoreResult): PositionBin[] {
  const longest = Math.max(0, ...data.sequences.map((s) => s.length));
  const width = Math.max(1, Math.ceil(longest / POSITION_BINS));
  const sums = Array.from({ length: Math.ceil(longest / width) }, () => ({ tokens: 0, nll: 0, reference: 0, kld: 0 }));
  for (const { at, position } of scoredTokens(data)) {
    const s = sums[Math.floor(position / width)]!;
    s.tokens++;
    s.nll += nll[at]!;
    s.reference += reference?.nll[at] ?? 0;
    s.kld += kld?.[at] ?? 0;
  }
  return sums.flatMap((s, i) => {
    if (s.tokens === 0) return [];
    const bin = { from: i * width, to: (i + 1) * width, tokens: s.tokens, nll: s.nll / s.tokens };
    return [kld === undefined ? bin : { ...bin, referenceNll: s.reference / s.tokens, kld: s.kld / s.tokens }];
  });
}

function histogram(kld: Float32Array): KldBin[] {
  const counts = new Array<number>((HIGHEST - LOWEST) * STEPS).fill(0);
  for (const v of kld) {
    const bin = v <= 0 ? 0 : Math.floor((Math.log10(v) - LOWEST) * STEPS);
    counts[Math.min(counts.length - 1, Math.max(0, bin))]!++;
  }
  const edge = (i: number): number => 10 ** (LOWEST + i / STEPS);
  const bins = counts.map((tokens, i) => ({ from: i === 0 ? 0 : edge(i), to: i === counts.length - 1 ? Infinity : edge(i + 1), tokens }));
  const [first, last] = [bins.findIndex((b) => b.tokens > 0), bins.findLastIndex((b) => b.tokens > 0)];
  return bins.slice(Math.max(0, first), last + 1);
}

function worst(data: ScoredSequences, { nll, top, reference, kld }: ScoreResult, tokenizer: Tokenizer): WorstToken[] {
  const by = kld ?? nll;
  const order = Array.from(by.keys())
    .sort((a, b) => by[b]! - by[a]! || a - b)
    .slice(0, WORST);
  const rank = new Map(order.map((at, i) => [at, i]));
  const out: WorstToken[] = [];
  const text = (ids: Int32Array | readonly number[]): string => tokenizer.decode(ids);
  for (const { at, window, position } of scoredTokens(data)) {
    const place = rank.get(at);
    if (place === undefined) continue;
    const ids = data.sequences[window]!;
    out[place] = {
      window,
      position,
      context: text(ids.subarray(Math.max(0, position - CONTEXT_TOKENS), position)),
      token: text([ids[position]!]),
      top: text([top[at]!]),
      p: Math.exp(-nll[at]!),
      ...(reference === undefined ? {} : { reference: { top: text([reference.top[at]!]), p: Math.exp(-reference.nll[at]!) } }),
      ...(kld === undefined ? {} : { kld: kld[at]! }),
    };
  }
  return out;
}
