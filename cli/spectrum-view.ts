/** Spectra for people: a table with a line of blocks for each, and curves for a report. */
import type { DiffReport } from '../pipelines/diff.js';
import type { Spectrum } from '../pipelines/spectrum.js';
import { table } from './table.js';

const BLOCKS = '▁▂▃▄▅▆▇█';
const WIDTH = 24;
/** Decades that the blocks span below the largest value. */
const DECADES = 3;

/** Log scale over three decades, the index on a log scale too: s_1 left, the last known value right. */
export function sparkline(values: readonly number[], width = WIDTH): string {
  const top = values[0] ?? 0;
  if (top <= 0) return '';
  const cells = Math.min(width, values.length);
  return Array.from({ length: cells }, (_, i) => {
    const at = cells === 1 ? 0 : Math.round(values.length ** (i / (cells - 1))) - 1;
    const height = 1 + Math.log10(Math.max(values[at]! / top, 1e-30)) / DECADES;
    return BLOCKS[Math.max(0, Math.min(BLOCKS.length - 1, Math.round(height * (BLOCKS.length - 1))))]!;
  }).join('');
}

const number = (v: number | undefined): string => (v === undefined ? '-' : Number.isInteger(v) ? String(v) : v.toFixed(1));

export function spectrumTable(spectra: ReadonlyMap<string, Spectrum>): string {
  const rows = [...spectra].map(([name, s]) =>
    s.finite
      ? [name, s.side, number(s.effectiveRank), number(s.rank90), number(s.rank95), number(s.rank99), number(s.noiseRank), (s.values[0] ?? 0).toExponential(2), sparkline(s.values)] // prettier-ignore
      : [name, s.side, '-', '-', '-', '-', '-', '-', 'values that are not finite'],
  );
  const text = table(['tensor', 'side', 'eff. rank', '90 %', '95 %', '99 %', 'noise', 's_1', 'singular values, log-log'], rows);
  return `${text}\neff. rank: exp of the entropy of s / sum s; 90/95/99 %: rank that keeps the share of |W|^2; noise: values above the Gavish-Donoho threshold`;
}

/** What `diff --spectrum` says of intruder dimensions: how many, and where most of them are. */
export function intruderLine(r: Pick<DiffReport, 'tensors' | 'intruders'>): string {
  const looked = r.tensors.flatMap((t) =>
    t.intruders === undefined || t.intruders.left !== undefined ? [] : [{ name: t.name, count: t.intruders.intruders.length }],
  );
  const having = looked.filter((t) => t.count > 0).sort((a, b) => b.count - a.count);
  const count = having.reduce((sum, t) => sum + t.count, 0);
  const most = having.slice(0, 3).map((t) => `${t.name} ${t.count}`).join(', '); // prettier-ignore
  const { top, cosine } = r.intruders!;
  return `intruder dimensions: ${count} in ${having.length} of ${looked.length} matrices (top ${top}, cosine below ${cosine})${most === '' ? '' : `; most: ${most}`}`;
}
