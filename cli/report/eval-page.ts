/** The page of `pith eval --report`. */
import { basename } from 'node:path';
import type { EvalDetails, WorstToken } from '../../pipelines/eval-details.js';
import type { EvalOutcome, EvalReport } from '../../pipelines/eval.js';
import { renderPage, type Column, type Figure, type Section } from './page.js';
import { barPlot, brief } from './plots.js';
import { DASHES, renderPlot, SERIES, type Plot } from './svg.js';

const percent = (v: number): string => `${brief(100 * v)} %`;
const count = (n: number): string => n.toLocaleString('en-US');

export async function evalPage({ report: r, details }: EvalOutcome): Promise<string> {
  const sections = [
    ...(details === undefined ? [] : [await positionSection(r, details)]),
    ...(details === undefined || details.kld.length === 0 ? [] : [await kldSection(r, details)]),
    ...(details === undefined ? [] : [worstSection(details)]),
    ...(r.sample === undefined ? [] : [sampleSection(r.sample)]),
    ...(r.embeddings === undefined ? [] : [lowestSection(r.embeddings)]),
  ];
  const title = r.reference === undefined ? basename(r.checkpoint) : `${basename(r.checkpoint)} against ${basename(r.reference)}`;
  return renderPage({ title, facts: facts(r), sections });
}

function facts(r: EvalReport): (readonly [string, string])[] {
  const { kld, units, recovered, choices, embeddings } = r;
  return [
    ['model', r.checkpoint],
    ...(r.reference === undefined ? [] : [['reference', r.reference] as const]),
    ...(r.ppl === undefined
      ? []
      : [
          ['data', r.dataset!] as const,
          ['protocol', `${r.protocol}, windows of ${r.seqlen} tokens`] as const,
          ['tokens scored', count(r.tokens!)] as const,
          ['perplexity', `${brief(r.ppl)} ± ${brief(r.stderr!)}`] as const,
        ]),
    ...(units === undefined ? [] : [['word perplexity', brief(units.wordPpl)] as const, ['bits per byte', brief(units.bitsPerByte)] as const]),
    ...(kld === undefined
      ? []
      : [
          ['mean KLD', `${brief(kld.mean)} ± ${brief(kld.stderr)}`] as const,
          ['same likeliest token', percent(kld.topTokenAgreement)] as const,
          ['perplexity ratio', `${brief(kld.pplRatio)} ± ${brief(kld.pplRatioStderr)}`] as const,
        ]),
    ...(recovered?.share === undefined ? [] : [['recovered share', percent(recovered.share)] as const]),
    ...(embeddings === undefined
      ? []
      : [
          ['data', r.dataset!] as const,
          ['texts', `${count(embeddings.texts)} of ${count(embeddings.tokens)} tokens`] as const,
          ['vectors', `${count(embeddings.dimension)} channels: ${embeddings.pooling}`] as const,
          ['cosine, mean', brief(embeddings.cosine.mean)] as const,
          ['cosine, 1 %', brief(embeddings.cosine.p01)] as const,
          ['cosine, minimum', brief(embeddings.cosine.min)] as const,
        ]),
    ...(choices === undefined ? [] : [['acc, acc_norm', `${percent(choices.acc)}, ${percent(choices.accNorm)} of ${count(choices.questions)}`] as const]),
  ];
}

async function positionSection(r: EvalReport, { byPosition }: EvalDetails): Promise<Section> {
  const names = ['model', ...(r.reference === undefined ? [] : ['reference'])];
  const columns: Column[] = [
    { title: 'from' },
    { title: 'to' },
    { title: 'tokens' },
    { title: 'loss', format: brief },
    ...(r.reference === undefined
      ? []
      : [
          { title: 'loss of the reference', format: brief },
          { title: 'KLD', format: brief },
        ]),
  ];
  const rows = byPosition.map((b) => [b.from, b.to - 1, b.tokens, b.nll, ...(b.referenceNll === undefined ? [] : [b.referenceNll, b.kld])]);
  return {
    title: 'Loss by place in the window',
    note: 'Mean -log p of the tokens, nats, by how many tokens stand before them. Later tokens have more to go by.',
    ...(names.length === 1 ? {} : { legend: names.map((name, i) => ({ name, colour: SERIES[i]!, dash: DASHES[i]! })) }),
    ...(byPosition.length < 2 ? {} : { figures: [await lossFigure(byPosition, names)] }),
    table: { caption: 'Loss by place', columns, rows },
  };
}

async function lossFigure(bins: EvalDetails['byPosition'], names: readonly string[]): Promise<Figure> {
  const values = bins.flatMap((b) => {
    const position = (b.from + b.to - 1) / 2;
    const point = (name: string, loss: number) => ({ name, position, loss, tip: `${name}, tokens ${b.from} to ${b.to - 1}: ${brief(loss)}` });
    return [point(names[0]!, b.nll), ...(b.referenceNll === undefined ? [] : [point(names[1]!, b.referenceNll)])];
  });
  const x = { field: 'position', type: 'quantitative' as const, title: 'tokens before', axis: { grid: false } };
  const y = { field: 'loss', type: 'quantitative' as const, title: 'loss, nats', scale: { zero: false } };
  const color = { field: 'name', type: 'nominal' as const, scale: { domain: [...names], range: SERIES }, legend: null };
  const strokeDash = { field: 'name', type: 'nominal' as const, scale: { domain: [...names], range: DASHES }, legend: null };
  const plot: Plot = {
    data: { values },
    width: 720,
    height: 260,
    layer: [
      { mark: { type: 'line', strokeWidth: 1.5, aria: false }, encoding: { x, y, color, strokeDash } },
      { mark: { type: 'point', size: 16, filled: true, opacity: 1 }, encoding: { x, y, color, description: { field: 'tip' } } },
    ],
  };
  return { svg: await renderPlot(plot, `Lines: mean loss by place in the window, from ${brief(bins[0]!.nll)} to ${brief(bins.at(-1)!.nll)} nats`) };
}

async function kldSection(r: EvalReport, { kld }: EvalDetails): Promise<Section> {
  const total = kld.reduce((sum, b) => sum + b.tokens, 0);
  const name = (v: number): string => (v === 0 ? '0' : v === Infinity ? '' : brief(v));
  const bars = kld.map((b) => ({ name: `${name(b.from)} – ${name(b.to)}`, value: b.tokens / total, text: percent(b.tokens / total) }));
  const { mean, median, p90, p95, p99, p999, max, min } = r.kld!;
  const rows = Object.entries({ mean, minimum: min, median, '90 %': p90, '95 %': p95, '99 %': p99, '99.9 %': p999, maximum: max });
  return {
    title: 'Divergence from the reference',
    note: 'D(reference || model) of every scored token, nats; how many tokens lie in each quarter of a decade.',
    figures: [await barPlot(bars, 'share of the tokens by divergence')],
    table: { caption: 'Divergence', columns: [{ title: '' }, { title: 'nats', format: brief }], rows },
  };
}

function worstSection({ worst, kld }: EvalDetails): Section {
  const compared = kld.length > 0;
  const columns: Column[] = [
    { title: 'window' },
    { title: 'place' },
    { title: 'context' },
    { title: 'token' },
    { title: 'likeliest' },
    { title: 'p', format: percent },
    ...(compared ? [{ title: "reference's likeliest" }, { title: "reference's p", format: percent }, { title: 'KLD', format: brief }] : []),
  ];
  const row = (t: WorstToken) => [
    t.window,
    t.position,
    ...[t.context, t.token, t.top].map(oneLine),
    t.p,
    ...(compared ? [oneLine(t.reference!.top), t.reference!.p, t.kld] : []),
  ];
  return {
    title: 'Worst tokens',
    note: compared ? 'The tokens at which the distributions are farthest from the reference.' : 'The tokens with the least probability.',
    table: { caption: 'Worst tokens', columns, rows: worst.map(row) },
  };
}

/** Line ends as a sign: a cell has one line. */
const oneLine = (text: string): string => text.replaceAll('\n', '\u21b5');

function lowestSection({ lowest }: NonNullable<EvalReport['embeddings']>): Section {
  return {
    title: 'Farthest vectors',
    note: "The texts whose vectors are farthest from the reference's.",
    table: {
      caption: 'Farthest vectors',
      columns: [{ title: 'place' }, { title: 'cosine', format: brief }, { title: 'text' }],
      rows: lowest.map((t) => [t.place, t.cosine, oneLine(t.text)]),
    },
  };
}

function sampleSection({ prompt, text, tokens, temperature }: NonNullable<EvalReport['sample']>): Section {
  const columns = [{ title: 'prompt' }, { title: 'continuation' }];
  return {
    title: 'A sample',
    note: `${tokens} tokens${temperature === 0 ? ', always the likeliest' : ` at temperature ${temperature}`}.`,
    table: { caption: 'Sample', columns, rows: [[oneLine(prompt), oneLine(text)]] },
  };
}
