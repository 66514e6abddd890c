/** Vega-Lite specifications to SVG: no browser, no canvas. Colours are CSS variables of the page, so one figure serves light and dark. */
import type { TopLevelSpec } from '#vega';
import { printable } from '../../core/errors.js';

export type Plot = TopLevelSpec;

const FONT = 'system-ui, sans-serif';
const MUTED = 'var(--muted)';
/** Mean width of a glyph of a sans-serif font, in ems. */
const GLYPH = 0.6;

const CONFIG = {
  background: 'transparent',
  font: FONT,
  axis: { aria: false, domainColor: MUTED, gridColor: 'var(--grid)', labelColor: MUTED, labelFontSize: 11, tickColor: MUTED, titleColor: MUTED, titleFontSize: 11, titleFontWeight: 'normal' }, // prettier-ignore
  legend: {
    aria: false,
    gradientStrokeColor: 'transparent',
    labelColor: 'var(--fg)',
    labelFontSize: 11,
    labelLimit: 0,
    titleColor: MUTED,
    titleFontSize: 11,
    titleFontWeight: 'normal',
  },
  view: { stroke: null },
} as const;

/** Colours of series, in order; the page's style gives each a value on light and on dark ground. */
export const SERIES = Array.from({ length: 8 }, (_, i) => `var(--c${i})`);
/** So that no two series differ by colour alone. */
export const DASHES = [[1, 0], [6, 2], [2, 2], [8, 2, 2, 2], [4, 4], [10, 3], [1, 3], [6, 2, 1, 2]]; // prettier-ignore
/** From the ground's colour to the strongest. */
export const RAMP = Array.from({ length: 7 }, (_, i) => `var(--h${i})`);

/** Text for HTML and for attributes in double quotes; control characters are shown, as on a terminal. */
export const escape = (text: string): string => printable(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

/** `label`: what the figure shows, for those who do not see it. A mark's `description` becomes its tooltip. */
export async function renderPlot(plot: Plot, label: string): Promise<string> {
  const { compile, parse, textMetrics, View } = await import('#vega');
  // numbers come too
  textMetrics.width = (item, text) => GLYPH * (item.fontSize ?? 11) * Math.max(0, ...[text].flat().map((line) => String(line).length));
  const { spec } = compile(plot, { config: CONFIG });
  const view = new View(parse(spec), { renderer: 'none', loader: NO_LOADER, logLevel: 0 });
  try {
    return named(printable(await view.toSVG()), label);
  } finally {
    view.finalize();
  }
}

const refuse = (): Promise<never> => Promise.reject(new Error('a figure loads nothing'));
/** Nothing is loaded: all data is in the specification. */
const NO_LOADER = { load: refuse, sanitize: refuse, http: refuse, file: refuse };

/** One image with one name; the marks' labels as tooltips; without roles inside, what draws nothing, and digits that nobody sees. */
function named(svg: string, label: string): string {
  return svg
    .replace(/<path aria-label="([^"]*)"([^>]*)\/>/g, '<path$2><title>$1</title></path>')
    .replace(/<path class="(?:background|foreground)"[^>]*(?:d=""|d="M0,0h0v0h0Z"|display="none")[^>]*\/>/g, '')
    .replace(/<\w[^>]*>/g, trimmed)
    .replace(/^<svg [^>]*?(width="\d+" height="\d+" viewBox="[^"]*")>/, `<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="${escape(label)}" $1>`);
}

function trimmed(tag: string): string {
  const named = tag.replace(/ (?:role|aria-[a-z]+|pointer-events)="[^"]*"/g, '');
  return named.replace(/ (?:d|transform)="[^"]*"/g, (geometry) => geometry.replace(/\d+\.\d{3,}(?:e-\d+)?/g, (v) => String(Number(Number(v).toFixed(2)))));
}
