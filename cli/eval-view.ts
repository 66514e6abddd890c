/** An evaluation as text: every figure with how it was measured. */
import { printable } from '../core/errors.js';
import type { EvalReport } from '../pipelines/eval.js';
import { table } from './table.js';

const RULES = {
  gptq: (r: EvalReport) => `${count(r.windows!)} windows of ${r.seqlen} tokens without overlap`,
  'llama.cpp': (r: EvalReport) => `the second halves of ${count(r.windows!)} windows of ${r.seqlen} tokens`,
  'lm-eval': (r: EvalReport) => `${count(r.documents!)} document${r.documents === 1 ? '' : 's'} in ${count(r.windows!)} rolling windows of ${r.seqlen} tokens`,
};

const count = (n: number): string => n.toLocaleString('en-US');
/** Six digits, more where the error is smaller; the error to two. */
const value = (v: number, stderr: number): string => rounded(v, stderr, Math.max(errorDigits(stderr), 5 - magnitude(v)));
const percent = (v: number, stderr: number): string => `${rounded(100 * v, 100 * stderr, stderr > 0 ? errorDigits(100 * stderr) : 3)} %`;
const rounded = (v: number, stderr: number, digits: number): string =>
  stderr > 0 ? `${v.toFixed(clamped(digits))} ± ${stderr.toFixed(clamped(errorDigits(stderr)))}` : v.toFixed(clamped(digits));
const errorDigits = (stderr: number): number => (stderr > 0 ? 1 - magnitude(stderr) : 0);
const magnitude = (v: number): number => (v === 0 ? 0 : Math.floor(Math.log10(Math.abs(v))));
const clamped = (digits: number): number => Math.min(10, Math.max(0, digits));
const nats = (v: number): string => (v === 0 ? '0' : Math.abs(v) < 1e-3 ? v.toExponential(3) : v.toPrecision(4));

export function describeEval(r: EvalReport): string {
  if (r.embeddings !== undefined) return embeddingTable(r, r.embeddings);
  const parts = [...dataLines(r), ...(r.choices === undefined ? [] : [choiceTable(r.choices)])];
  if (r.sample !== undefined) {
    // line ends are the text's own; nothing else drives the terminal
    const text = (s: string): string => s.split('\n').map(printable).join('\n');
    parts.push(`${text(r.sample.prompt)}|${text(r.sample.text)}`);
  }
  return parts.join('\n\n');
}

function dataLines(r: EvalReport): string[] {
  if (r.ppl === undefined) return [];
  const rows = [['perplexity', value(r.ppl, r.stderr!), `${r.protocol}: ${RULES[r.protocol!](r)}, ${count(r.tokens!)} tokens scored`]];
  if (r.units !== undefined) {
    const { wordPpl, bytePpl, bitsPerByte, words, bytes } = r.units;
    rows.push(['word perplexity', wordPpl.toPrecision(6), `lm-eval: ${count(words)} words`]);
    rows.push(['byte perplexity', bytePpl.toPrecision(6), `lm-eval: ${count(bytes)} bytes`]);
    rows.push(['bits per byte', bitsPerByte.toPrecision(6), 'lm-eval']);
  }
  if (r.recovered !== undefined) {
    const { share, base, tuned } = r.recovered;
    rows.push(['recovered share', share === undefined ? '-' : `${(100 * share).toFixed(2)} %`, '0 % is the base, 100 % the fine-tune']);
    for (const [name, at] of [['base', base], ['fine-tune', tuned]] as const) rows.push([`  ${name}`, value(at.ppl, at.stderr), printable(at.checkpoint)]); // prettier-ignore
  }
  return [table(['', 'value', 'measured on'], rows), ...(r.kld === undefined ? [] : [kldTable(r, r.kld)])];
}

function kldTable(r: EvalReport, k: NonNullable<EvalReport['kld']>): string {
  const quantiles = { minimum: k.min, median: k.median, '90 %': k.p90, '95 %': k.p95, '99 %': k.p99, '99.9 %': k.p999, maximum: k.max };
  const rows = [
    ['KLD, mean', value(k.mean, k.stderr)],
    ...Object.entries(quantiles).map(([name, v]) => [`KLD, ${name}`, nats(v)]),
    ['same likeliest token', percent(k.topTokenAgreement, k.topTokenStderr)],
    ['mean change of p', `${(100 * k.meanDeltaP).toFixed(3)} %`],
    ['RMS change of p', percent(k.rmsDeltaP, k.rmsDeltaPStderr)],
    ['perplexity of the reference', value(k.pplReference, k.pplReferenceStderr)],
    ['perplexity ratio', value(k.pplRatio, k.pplRatioStderr)],
  ];
  return `${table([`against ${printable(r.reference!)}`, 'nats a token, %'], rows)}\np: of the token that comes, ${count(r.tokens!)} of them, as llama.cpp's --kl-divergence`;
}

function embeddingTable(r: EvalReport, e: NonNullable<EvalReport['embeddings']>): string {
  const { mean, min, p01, median } = e.cosine;
  const rows = [
    ['mean', similarity(mean), `${count(e.texts)} texts, ${count(e.tokens)} tokens${e.cut > 0 ? `, ${count(e.cut)} cut to ${count(e.maxTokens)}` : ''}`],
    ['median', similarity(median), `vectors of ${count(e.dimension)} channels: ${e.pooling}`],
    ['1 %', similarity(p01), 'a hundredth of the texts is below'],
    ['minimum', similarity(min), printable(e.lowest[0]!.place)],
  ];
  return table([`cosine to ${printable(r.reference!)}`, '', 'of'], rows);
}

/** As many digits as show how far it is from 1. */
const similarity = (v: number): string => v.toFixed(v < 1 ? Math.min(12, Math.max(6, 2 - Math.floor(Math.log10(1 - v)))) : 6);

function choiceTable(c: NonNullable<EvalReport['choices']>): string {
  const rows = [
    ['acc', percent(c.acc, c.accStderr), 'the likeliest choice'],
    ['acc_norm', percent(c.accNorm, c.accNormStderr), 'the likeliest a character'],
    ['acc_bytes', percent(c.accBytes, c.accBytesStderr), 'the likeliest a byte'],
  ];
  return table([`${count(c.questions)} questions`, 'right', 'lm-eval'], rows);
}
