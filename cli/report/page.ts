/** One self-contained page of figures and tables: everything is there without scripts, which add sorting and the choice of colours. */
import { createHash } from 'node:crypto';
import { pithVersion } from '../../core/version.js';
import { escape } from './svg.js';
import { SCRIPT } from './script.js';
import { STYLE } from './style.js';

export interface Figure {
  readonly svg: string;
  /** Shown above it, where a section has several. */
  readonly caption?: string;
}

/** What a colour and dash stand for, where figures share one legend. */
export interface LegendEntry {
  readonly name: string;
  readonly colour: string;
  readonly dash: readonly number[];
}

export interface Column {
  readonly title: string;
  /** How its numbers read; they sort by value. */
  readonly format?: (value: number) => string;
}

export type Cell = string | number | undefined;

export interface Table {
  /** Its name, for those who meet it out of its place. */
  readonly caption: string;
  readonly columns: readonly Column[];
  readonly rows: readonly (readonly Cell[])[];
}

export interface Section {
  readonly title: string;
  /** What is shown and how to read it. */
  readonly note?: string;
  readonly legend?: readonly LegendEntry[];
  readonly figures?: readonly Figure[];
  readonly table?: Table;
}

export interface Page {
  readonly title: string;
  /** Key figures: name and value. */
  readonly facts?: readonly (readonly [name: string, value: string])[];
  readonly sections: readonly Section[];
}

export function renderPage({ title, facts = [], sections }: Page): string {
  const hash = createHash('sha256').update(SCRIPT).digest('base64');
  // no request leaves the page, and no script but this one runs in it
  const policy = `default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-${hash}'`;
  const links = sections.map((s, i) => `<li><a href="#s${i + 1}">${escape(s.title)}</a></li>`).join('');
  const list = facts.map(([name, value]) => `<div><dt>${escape(name)}</dt><dd>${escape(value)}</dd></div>`).join('');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<link rel="icon" href="data:,">
<title>${escape(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<header><h1>${escape(title)}</h1><button type="button" id="colours" hidden></button></header>
${list === '' ? '' : `<dl>${list}</dl>\n`}${sections.length < 2 ? '' : `<nav aria-label="Sections"><ul>${links}</ul></nav>\n`}<main>
${sections.map(section).join('\n')}
</main>
<footer>Written by pith ${escape(pithVersion())}. No part of this page is loaded from anywhere.</footer>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

function section(s: Section, index: number): string {
  const id = `s${index + 1}`;
  const parts = [
    s.note === undefined ? '' : `<p>${escape(s.note)}</p>`,
    s.legend === undefined ? '' : legend(s.legend),
    s.figures === undefined ? '' : `<div class="figures">${s.figures.map((f) => figure(f, s.title)).join('\n')}</div>`,
    s.table === undefined ? '' : table(s.table),
  ];
  return `<section aria-labelledby="${id}"><h2 id="${id}">${escape(s.title)}</h2>${parts.filter((p) => p !== '').join('\n')}</section>`;
}

/** What may be wider than the screen scrolls by itself, by keyboard too. */
const scroller = (kind: string, name: string, inner: string): string =>
  `<div class="scroll ${kind}" tabindex="0" role="region" aria-label="${escape(name)}">${inner}</div>`;

function figure({ svg, caption }: Figure, title: string): string {
  if (caption === undefined) return `<figure class="wide">${scroller('plot', title, svg)}</figure>`;
  return `<figure><figcaption>${escape(caption)}</figcaption>${svg}</figure>`;
}

function legend(entries: readonly LegendEntry[]): string {
  const items = entries.map(({ name, colour, dash }) => {
    const line = `<line x1="1" x2="27" y1="6" y2="6" stroke="${colour}" stroke-width="2.5" stroke-dasharray="${dash[1] === 0 ? 'none' : dash.join(' ')}"/>`;
    return `<li><svg aria-hidden="true" width="28" height="12">${line}</svg>${escape(name)}</li>`;
  });
  return `<ul class="legend">${items.join('')}</ul>`;
}

function table({ caption, columns, rows }: Table): string {
  const numeric = columns.map((_, i) => rows.some((r) => typeof r[i] === 'number'));
  const head = columns.map((c, i) => `<th scope="col"${numeric[i] ? ' class="n"' : ''}>${escape(c.title)}</th>`).join('');
  const body = rows.map((row) => `<tr>${columns.map((c, i) => cell(row[i], c, numeric[i]!)).join('')}</tr>`).join('\n');
  const inner = `<table><caption>${escape(caption)}</caption><thead><tr>${head}</tr></thead><tbody>\n${body}\n</tbody></table>`;
  return scroller('table', caption, inner);
}

function cell(value: Cell, { format }: Column, numeric: boolean): string {
  const open = numeric ? '<td class="n"' : '<td';
  if (typeof value !== 'number') return `${open}>${escape(value ?? '')}</td>`;
  return `${open} data-v="${value}">${escape(format === undefined ? String(value) : format(value))}</td>`;
}
