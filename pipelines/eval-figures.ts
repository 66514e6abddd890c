/**
 * From log probabilities of tokens to the figures of an evaluation, with standard errors. Perplexity and divergence as llama.cpp's
 * llama-perplexity has them (ggml-org/llama.cpp, tools/perplexity/perplexity.cpp: mean_and_uncertainty, covariance, percentile), words and
 * bytes as lm-evaluation-harness (lm_eval/api/metrics.py). Logarithms are natural, probabilities shares of 1.
 */
import type { ScoreResult } from '../workers/messages/model.js';

export interface Perplexity {
  readonly ppl: number;
  readonly stderr: number;
  /** Mean -log p, nats. */
  readonly nll: number;
  /** Scored tokens. */
  readonly tokens: number;
}

export interface Divergence {
  /** Of D(reference || model), nats a token; `stderr` is that of the mean. */
  readonly mean: number;
  readonly stderr: number;
  readonly min: number;
  readonly median: number;
  readonly p90: number;
  readonly p95: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
  /** Share of tokens at which both find the same one likeliest. */
  readonly topTokenAgreement: number;
  readonly topTokenStderr: number;
  /** Mean and root mean square of p(token) - p_reference(token). */
  readonly meanDeltaP: number;
  readonly rmsDeltaP: number;
  readonly rmsDeltaPStderr: number;
  readonly pplReference: number;
  readonly pplReferenceStderr: number;
  /** ppl / pplReference, its standard error by the covariance of the two. */
  readonly pplRatio: number;
  readonly pplRatioStderr: number;
  /** Of the two mean log probabilities. */
  readonly correlation: number;
}

export interface TextUnits {
  readonly words: number;
  readonly bytes: number;
}

export interface UnitPerplexity extends TextUnits {
  readonly wordPpl: number;
  readonly bytePpl: number;
  readonly bitsPerByte: number;
}

interface Mean {
  readonly mean: number;
  /** 0 for ten values or fewer, as there. */
  readonly stderr: number;
}

/** Sums of deviations, not of squares: those lose the small variance of large values. */
export function meanOf(values: ArrayLike<number>, f: (v: number, i: number) => number = (v) => v): Mean {
  const n = values.length;
  let sum = 0;
  for (let i = 0; i < n; i++) sum += f(values[i]!, i);
  const mean = sum / Math.max(1, n);
  let squares = 0;
  for (let i = 0; i < n; i++) squares += (f(values[i]!, i) - mean) ** 2;
  return { mean, stderr: n > 10 ? Math.sqrt(squares / n / (n - 1)) : 0 };
}

/** exp of the mean; its error is ppl times that of the mean. */
export function perplexity(nll: Float32Array): Perplexity {
  const { mean, stderr } = meanOf(nll);
  const ppl = Math.exp(mean);
  return { ppl, stderr: ppl * stderr, nll: mean, tokens: nll.length };
}

/** word: exp(-ll / words), byte: exp(-ll / bytes), bits: -ll / (bytes ln 2). */
export function unitPerplexity(nll: Float32Array, units: TextUnits): UnitPerplexity {
  let sum = 0;
  for (const v of nll) sum += v;
  return {
    ...units,
    wordPpl: Math.exp(sum / units.words),
    bytePpl: Math.exp(sum / units.bytes),
    bitsPerByte: sum / (units.bytes * Math.LN2),
  };
}

/** undefined when nothing was compared. */
export function divergence({ nll, top, reference, kld }: ScoreResult): Divergence | undefined {
  if (reference === undefined || kld === undefined || kld.length === 0) return undefined;
  const n = kld.length;
  const [own, other, kl] = [meanOf(nll), meanOf(reference.nll), meanOf(kld)];
  let [cross, same] = [0, 0];
  for (let i = 0; i < n; i++) {
    cross += (nll[i]! - own.mean) * (reference.nll[i]! - other.mean);
    if (top[i] === reference.top[i]) same++;
  }
  const covariance = n > 10 ? cross / n / (n - 1) : 0;
  const deltaP = (v: number, i: number): number => Math.exp(-v) - Math.exp(-reference.nll[i]!);
  const squareDelta = meanOf(nll, (v, i) => deltaP(v, i) ** 2);
  const rmsDeltaP = Math.sqrt(squareDelta.mean);
  const pplRatio = Math.exp(own.mean - other.mean);
  const agreement = same / n;
  const pplReference = Math.exp(other.mean);
  return {
    ...kl,
    ...quantiles(kld),
    topTokenAgreement: agreement,
    topTokenStderr: n > 1 ? Math.sqrt((agreement * (1 - agreement)) / (n - 1)) : 0,
    meanDeltaP: meanOf(nll, deltaP).mean,
    rmsDeltaP,
    rmsDeltaPStderr: rmsDeltaP > 0 ? (0.5 / rmsDeltaP) * squareDelta.stderr : 0,
    pplReference,
    pplReferenceStderr: pplReference * other.stderr,
    pplRatio,
    pplRatioStderr: pplRatio * Math.sqrt(Math.max(0, own.stderr ** 2 + other.stderr ** 2 - 2 * covariance)),
    correlation: own.stderr > 0 && other.stderr > 0 ? covariance / (own.stderr * other.stderr) : 1,
  };
}

function quantiles(kld: Float32Array): Pick<Divergence, 'min' | 'median' | 'p90' | 'p95' | 'p99' | 'p999' | 'max'> {
  const sorted = kld.toSorted();
  const at = (share: number): number => percentile(sorted, share);
  return { min: at(0), median: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99), p999: at(0.999), max: at(1) };
}

/** Between neighbours in proportion. */
export function percentile(sorted: ArrayLike<number>, share: number): number {
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const part = place - below;
  return (1 - part) * sorted[below]! + part * sorted[Math.min(below + 1, sorted.length - 1)]!;
}

/** What of a fine-tune's gain a model keeps: 0 is the base, 1 the fine-tune; undefined when they are equally good. */
export function recoveredShare(ppl: number, base: number, tuned: number): number | undefined {
  return base === tuned ? undefined : (base - ppl) / (base - tuned);
}

/** One question with log-likelihoods of its choices. */
export interface ChoiceScores {
  readonly logLikelihoods: readonly number[];
  readonly characters: readonly number[];
  readonly bytes: readonly number[];
  readonly gold: number;
}

export interface ChoiceFigures {
  readonly questions: number;
  /** The likeliest choice is right; by lm-evaluation-harness' names the same for likelihood a character (acc_norm) and a byte (acc_bytes). */
  readonly acc: number;
  readonly accStderr: number;
  readonly accNorm: number;
  readonly accNormStderr: number;
  readonly accBytes: number;
  readonly accBytesStderr: number;
}

export function choiceFigures(all: readonly ChoiceScores[]): ChoiceFigures {
  const figure = (length: (q: ChoiceScores, choice: number) => number): Mean => {
    const right = all.map((q) => Number(argMax(q.logLikelihoods.map((l, c) => l / length(q, c))) === q.gold));
    const mean = right.reduce((sum, v) => sum + v, 0) / right.length;
    // sample deviation over root n, as there
    return { mean, stderr: right.length > 1 ? Math.sqrt((mean * (1 - mean)) / (right.length - 1)) : 0 };
  };
  const [plain, norm, bytes] = [figure(() => 1), figure((q, c) => q.characters[c]!), figure((q, c) => q.bytes[c]!)];
  return {
    questions: all.length,
    acc: plain.mean,
    accStderr: plain.stderr,
    accNorm: norm.mean,
    accNormStderr: norm.stderr,
    accBytes: bytes.mean,
    accBytesStderr: bytes.stderr,
  };
}

const argMax = (values: readonly number[]): number => values.indexOf(Math.max(...values));
