/** `--report FILE.html`: one self-contained page of figures and tables. */
import { existsSync, writeFileSync } from 'node:fs';
import { PithError } from '../core/errors.js';

export interface Curve {
  readonly name: string;
  readonly values: readonly number[];
}

export interface Section {
  readonly title: string;
  readonly svg?: string;
  readonly table?: { readonly head: readonly string[]; readonly rows: readonly (readonly (string | number)[])[] };
}

const COLOURS = ['#4269d0', '#efb118', '#ff725c', '#6cc5b0', '#3ca951', '#ff8ab7', '#a463f2', '#97bbf5', '#9c6b4e', '#9498a0', '#1b9e77', '#7570b3'];
const [W, H, LEFT, BOTTOM] = [760, 320, 60, 40];
const escape = (text: string): string => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

/** Curves over their index, both axes logarithmic, each divided by its first value; the first twelve are named. */
export function spectrumPlot(curves: readonly Curve[]): string {
  const shown = curves.filter((c) => (c.values[0] ?? 0) > 0);
  const length = Math.max(2, ...shown.map((c) => c.values.length));
  const decades = 4;
  const x = (i: number): number => LEFT + ((W - LEFT - 10) * Math.log(i + 1)) / Math.log(length);
  const y = (v: number): number => 10 + (H - BOTTOM - 10) * Math.min(1, -Math.log10(Math.max(v, 1e-30)) / decades);
  const grid = Array.from({ length: decades + 1 }, (_, d) => {
    const at = y(10 ** -d);
    return `<line x1="${LEFT}" x2="${W - 10}" y1="${at}" y2="${at}" stroke="#ddd"/><text x="${LEFT - 6}" y="${at + 4}" text-anchor="end">1e-${d}</text>`;
  });
  const ticks = [1, 10, 100, 1000].filter((t) => t <= length).map((t) => `<text x="${x(t - 1)}" y="${H - BOTTOM + 16}" text-anchor="middle">${t}</text>`);
  const lines = shown.map((c, k) => {
    const points = c.values.map((v, i) => `${x(i).toFixed(1)},${y(v / c.values[0]!).toFixed(1)}`).join(' ');
    return `<polyline points="${points}" fill="none" stroke="${COLOURS[k % COLOURS.length]!}" stroke-opacity="${k < COLOURS.length ? 1 : 0.35}"><title>${escape(c.name)}</title></polyline>`;
  });
  const legend = shown.slice(0, COLOURS.length).map((c, k) => `<text x="${LEFT + 10}" y="${H + 14 + 15 * k}" fill="${COLOURS[k]!}">${escape(c.name)}</text>`);
  const height = H + 20 + 15 * legend.length;
  const axes = `<text x="${(W + LEFT) / 2}" y="${H - 6}" text-anchor="middle">index of the singular value</text>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${W} ${height}" font-size="11" font-family="sans-serif">${[...grid, ...ticks, ...lines, axes, ...legend].join('')}</svg>`;
}

/** One horizontal bar a row, values in [0, 1]. */
export function barPlot(bars: readonly { readonly name: string; readonly value: number }[]): string {
  const rows = bars.map((b, i) => {
    const at = 14 * i;
    const width = 380 * Math.max(0, Math.min(1, b.value));
    return `<text x="330" y="${at + 11}" text-anchor="end">${escape(b.name)}</text><rect x="336" y="${at + 2}" width="${width.toFixed(1)}" height="10" fill="${COLOURS[0]!}"/><text x="${(340 + width).toFixed(1)}" y="${at + 11}">${(100 * b.value).toFixed(1)} %</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${W} ${14 * bars.length + 4}" font-size="10" font-family="sans-serif">${rows.join('')}</svg>`;
}

/** OUTPUT_EXISTS when the file is there. */
export function writeReport(file: string, title: string, sections: readonly Section[]): void {
  if (existsSync(file)) throw new PithError('OUTPUT_EXISTS', { file });
  const cell = (tag: string, c: string | number): string => `<${tag}>${escape(String(c))}</${tag}>`;
  const body = sections.map((s) => {
    const rows = s.table?.rows.map((r) => `<tr>${r.map((c) => cell('td', c)).join('')}</tr>`).join('') ?? '';
    const head = s.table === undefined ? '' : `<table><tr>${s.table.head.map((c) => cell('th', c)).join('')}</tr>${rows}</table>`;
    return `<h2>${escape(s.title)}</h2>${s.svg ?? ''}${head}`;
  });
  const style = 'body{font:14px sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}table{border-collapse:collapse;font-size:12px}td,th{padding:2px 8px;text-align:left;border-bottom:1px solid #eee}td{font-variant-numeric:tabular-nums}'; // prettier-ignore
  const page = `<!doctype html><html lang="en"><meta charset="utf-8"><title>${escape(title)}</title><style>${style}</style><h1>${escape(title)}</h1>${body.join('\n')}</html>\n`;
  writeFileSync(file, page, { flag: 'wx' });
}
