/** The figures of reports, each from plain numbers. All are promises: Vega loads when the first one is drawn. */
import type { Figure } from './page.js';
import { DASHES, RAMP, renderPlot, SERIES, type Plot } from './svg.js';

export interface Bar {
  readonly name: string;
  readonly value: number;
  /** The value as it is written beside the bar. */
  readonly text: string;
}

/** One horizontal bar a row, from zero. */
export async function barPlot(bars: readonly Bar[], axis: string): Promise<Figure> {
  const values = bars.map((b, i) => ({ ...b, row: i, tip: `${b.name}: ${b.text}` }));
  const y = { field: 'row', type: 'ordinal' as const, axis: null };
  const top = Math.max(...bars.map((b) => b.value), 0);
  const x = { field: 'value', type: 'quantitative' as const, scale: { domain: [0, top > 0 ? 1.18 * top : 1], nice: false }, axis: null };
  const names = { align: 'right' as const, baseline: 'middle' as const, dx: -6, fill: 'var(--fg)', fontSize: 11, limit: 0, aria: false };
  const plot: Plot = {
    data: { values },
    width: 420,
    height: { step: 20 },
    layer: [
      { mark: { type: 'bar', fill: SERIES[0]!, height: 13 }, encoding: { x, y, description: { field: 'tip' } } },
      { mark: { ...names, type: 'text', align: 'left', dx: 5 }, encoding: { x, y, text: { field: 'text' } } },
      { mark: { ...names, type: 'text', x: 0 }, encoding: { y, text: { field: 'name' } } },
    ],
  };
  const largest = bars.length === 0 ? ', none' : `, ${bars.length} of them; the first is ${bars[0]!.name} with ${bars[0]!.text}`;
  return { svg: await renderPlot(plot, `Bars: ${axis}${largest}`) };
}

export interface HeatCell {
  /** Column; absent: outside of the layers. */
  readonly layer?: number;
  readonly row: string;
  readonly value: number;
  /** The value as the tooltip says it. */
  readonly text: string;
}

const OUTSIDE = '–';

export interface HeatOptions {
  /** The values are counts. */
  readonly whole?: boolean;
  /** Small values are the ones to see. */
  readonly reverse?: boolean;
  /** d3-format of the legend's numbers. */
  readonly format?: string;
}

/** Layers from left to right, what is outside of them last; modules from top to bottom in the order that they come in. */
export async function heatMap(cells: readonly HeatCell[], axis: string, options: HeatOptions = {}): Promise<Figure> {
  const columns = [...new Set(cells.map((c) => c.layer))].sort((a, b) => (a ?? Infinity) - (b ?? Infinity)).map((l) => (l === undefined ? OUTSIDE : String(l)));
  const rows = [...new Set(cells.map((c) => c.row))];
  const values = cells.map((c) => ({
    column: c.layer === undefined ? OUTSIDE : String(c.layer),
    row: c.row,
    value: c.value,
    tip: `${c.row}, ${c.layer === undefined ? 'outside of the layers' : `layer ${c.layer}`}: ${c.text}`,
  }));
  const [low, high] = extent(cells.map((c) => c.value));
  const most = Math.round(high);
  const ramp = options.reverse === true ? [...RAMP].reverse() : RAMP;
  // counts up to six have a colour each
  const counts = options.whole === true && most < RAMP.length;
  const scale = counts
    ? { type: 'ordinal' as const, domain: Array.from({ length: most + 1 }, (_, i) => i), range: evenly(most + 1, ramp) }
    : { type: 'quantize' as const, domain: roundDomain(options.whole === true ? 0 : low, high), range: ramp };
  const legend = { orient: 'top' as const, direction: 'horizontal' as const, gradientLength: 350, title: axis, titleLimit: 0, ...(options.format === undefined ? {} : { format: options.format }) }; // prettier-ignore
  const step = Math.max(10, Math.min(26, Math.floor(820 / columns.length)));
  const plot: Plot = {
    data: { values },
    width: { step },
    height: { step: 22 },
    mark: { type: 'rect', stroke: 'var(--bg)', strokeWidth: 1 },
    encoding: {
      x: { field: 'column', type: 'ordinal', sort: columns, title: 'layer', axis: { labelAngle: 0, labelOverlap: 'parity', domain: false, ticks: false } },
      y: { field: 'row', type: 'nominal', sort: rows, title: null, axis: { labelLimit: 0, domain: false, ticks: false, labelColor: 'var(--fg)' } },
      color: { field: 'value', type: counts ? 'ordinal' : 'quantitative', scale, legend },
      description: { field: 'tip' },
    },
  };
  return { svg: await renderPlot(plot, `Heat map: ${axis} of ${rows.length} modules in ${columns.filter((c) => c !== OUTSIDE).length} layers, from ${brief(low)} to ${brief(high)}`) }; // prettier-ignore
}

const evenly = (count: number, ramp: readonly string[]): string[] =>
  Array.from({ length: count }, (_, i) => ramp[count === 1 ? 0 : Math.round((i * (ramp.length - 1)) / (count - 1))]!);

/** Around all values, so that the bounds between the ramp's colours are round: multiples of a short number. */
export function roundDomain(low: number, high: number): [number, number] {
  const bands = RAMP.length;
  const ten = 10 ** Math.floor(Math.log10((high - low) / bands));
  const step = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12].map((f) => f * ten).find((s) => Math.floor(low / s) * s + bands * s >= high)!;
  const first = Math.floor(low / step);
  return [first * step, (first + bands) * step].map((v) => Number(v.toPrecision(12))) as [number, number];
}

/** Least and largest; a single value gets room on both sides. */
function extent(values: readonly number[]): [number, number] {
  const [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  if (!(low <= high)) return [0, 1];
  const room = Math.max(Math.abs(high) * 1e-3, 1e-9);
  return high - low < room ? [low - room, high + room] : [low, high];
}

/** Three digits. */
export const brief = (v: number): string => (v === 0 ? '0' : Math.abs(v) >= 1e-3 && Math.abs(v) < 1e5 ? String(Number(v.toPrecision(3))) : v.toExponential(2));

export interface LayerPoint {
  readonly layer: number;
  readonly value: number;
  /** Which of the figure's lines it is on, from 0. */
  readonly series: number;
}

export interface Panel {
  readonly title: string;
  readonly points: readonly LayerPoint[];
}

/** One small figure a module, value over layer, all with the same axes. */
export async function layerPanels(panels: readonly Panel[], axis: string, names: readonly string[], format: (v: number) => string): Promise<Figure[]> {
  const all = panels.flatMap((p) => p.points);
  const layers = extent(all.map((p) => p.layer));
  const top = all.reduce((most, p) => Math.max(most, p.value), 0);
  const x = { field: 'layer', type: 'quantitative' as const, title: 'layer', scale: { domain: layers, nice: false }, axis: { tickMinStep: 1, tickCount: 6, grid: false, format: 'd' } }; // prettier-ignore
  const y = { field: 'value', type: 'quantitative' as const, title: null, scale: { domain: [0, top > 0 ? 1.05 * top : 1], nice: false }, axis: { tickCount: 4, domain: false, ticks: false, minExtent: 34 } }; // prettier-ignore
  const domain = names.map((_, i) => i);
  const color = { field: 'series', type: 'nominal' as const, scale: { domain, range: SERIES.slice(0, names.length) }, legend: null };
  const strokeDash = { field: 'series', type: 'nominal' as const, scale: { domain, range: DASHES.slice(0, names.length) }, legend: null };
  return Promise.all(
    panels.map(async ({ title, points }) => {
      const values = points.map((p) => ({ ...p, tip: `layer ${p.layer}${names.length > 1 ? `, ${names[p.series]!}` : ''}: ${format(p.value)}` }));
      const plot: Plot = {
        data: { values },
        width: 250,
        height: 110,
        layer: [
          { mark: { type: 'line', strokeWidth: 1.75, aria: false }, encoding: { x, y, color, strokeDash } },
          { mark: { type: 'point', filled: true, size: 16, opacity: 1 }, encoding: { x, y, color, description: { field: 'tip' } } },
        ],
      };
      const [low, high] = extent(points.map((p) => p.value));
      return { caption: title, svg: await renderPlot(plot, `${title}: ${axis} by layer, from ${format(Math.max(0, low))} to ${format(high)}`) };
    }),
  );
}

export interface Curve {
  readonly name: string;
  readonly values: readonly number[];
}

/** Points of a curve that are drawn, evenly on the log axis. */
const DRAWN = 64;

/** Singular values over their index, each divided by the first, both axes logarithmic. */
export async function spectrumPlot(curves: readonly Curve[]): Promise<Figure> {
  const shown = curves.filter((c) => (c.values[0] ?? 0) > 0).slice(0, SERIES.length);
  const values = shown.flatMap((c) => {
    const last = c.values.length - 1;
    const picked = new Set(Array.from({ length: DRAWN }, (_, i) => Math.round((last + 1) ** (i / (DRAWN - 1))) - 1));
    return [...picked].map((i) => ({ name: c.name, index: i + 1, share: Math.max(c.values[i]! / c.values[0]!, 1e-4), tip: c.name }));
  });
  const domain = shown.map((c) => c.name);
  const legend = { title: null, orient: 'bottom' as const, direction: 'vertical' as const, columns: 1, symbolType: 'stroke' as const, symbolSize: 400, symbolStrokeWidth: 2 }; // prettier-ignore
  const plot: Plot = {
    data: { values },
    width: 640,
    height: 280,
    mark: { type: 'line', strokeWidth: 1.75 },
    encoding: {
      x: { field: 'index', type: 'quantitative', title: 'index of the singular value', scale: { type: 'log', nice: false }, axis: { grid: false, format: '~s', tickCount: 5 } }, // prettier-ignore
      y: { field: 'share', type: 'quantitative', title: 's_i / s_1', scale: { type: 'log', nice: true }, axis: { tickCount: 4, format: '~g' } },
      color: { field: 'name', type: 'nominal', scale: { domain, range: SERIES }, legend },
      strokeDash: { field: 'name', type: 'nominal', scale: { domain, range: DASHES }, legend },
      description: { field: 'tip' },
    },
  };
  return { svg: await renderPlot(plot, `Lines: singular values of ${shown.length} matrices over their index, both axes logarithmic`) };
}
