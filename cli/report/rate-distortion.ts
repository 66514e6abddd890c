/** Size against error of several methods: what `delta frontier` shows. */
import type { Figure, Section } from './page.js';
import { brief } from './plots.js';
import { DASHES, renderPlot, SERIES, type Plot } from './svg.js';

export interface RatePoint {
  /** bytes / rawBytes */
  readonly ratio: number;
  /** ||What - W1||_F / ||W1 - W0||_F; 0 for an exact one. */
  readonly error: number;
  /** What made it: `rank 32`. */
  readonly label?: string;
}

export interface RateSeries {
  readonly name: string;
  readonly points: readonly RatePoint[];
}

const [WIDTH, HEIGHT] = [720, 360];
/** Least distance of two labels, in pixels. */
const LABEL_STEP = 15;

/** Figure and table; both axes logarithmic, a line's name at its end. Points without error lie on the lower edge. */
export async function rateDistortionPlot(series: readonly RateSeries[]): Promise<Section> {
  const kept = series.map((s) => ({ ...s, points: [...s.points].filter((p) => p.ratio > 0 && p.error >= 0).sort((a, b) => a.ratio - b.ratio) }));
  const rows = kept.flatMap((s) => s.points.map((p) => [s.name, p.label ?? '', p.ratio, p.error] as const));
  const percent = (v: number): string => `${brief(100 * v)} %`;
  const columns = [{ title: 'method' }, { title: 'setting' }, { title: 'bytes / raw bytes', format: percent }, { title: 'error', format: brief }];
  return {
    title: 'Size against error',
    note: 'Across: bytes of the delta as a share of the raw bytes. Up: |restored - tuned| / |tuned - base|. Both logarithmic; lower left is better. Exact results lie on the lower edge.',
    ...(rows.length === 0 ? {} : { figures: [await figure(kept)] }),
    table: { caption: 'Every point', columns, rows },
  };
}

async function figure(series: readonly RateSeries[]): Promise<Figure> {
  const all = series.flatMap((s) => s.points);
  const errors = all.map((p) => p.error).filter((e) => e > 0);
  const floor = errors.length === 0 ? 0.1 : Math.min(...errors) / (errors.length < all.length ? 3 : 1.3);
  // the lowest points keep clear of the axis
  const edge = floor / 1.15;
  const ceiling = errors.length === 0 ? 1 : 1.3 * Math.max(...errors);
  const [left, right] = [Math.min(...all.map((p) => p.ratio)) / 1.15, Math.max(...all.map((p) => p.ratio)) * 1.15];
  const colours = { domain: series.map((s) => s.name), range: SERIES };
  const points = series.flatMap((s) =>
    s.points.map((p) => ({
      name: s.name,
      ratio: p.ratio,
      error: Math.max(p.error, floor),
      exact: p.error === 0,
      tip: `${s.name}${p.label === undefined ? '' : `, ${p.label}`}: ${brief(100 * p.ratio)} % of the bytes, ${p.error === 0 ? 'exact' : `error ${brief(p.error)}`}`,
    })),
  );
  const x = { field: 'ratio', type: 'quantitative' as const, title: 'bytes / raw bytes', scale: { type: 'log' as const, domain: [left, right], nice: false }, axis: { format: '~p', tickCount: 6, grid: false } }; // prettier-ignore
  const y = { field: 'error', type: 'quantitative' as const, title: 'error', scale: { type: 'log' as const, domain: [edge, ceiling], nice: false }, axis: { format: '~g', tickCount: 6 } }; // prettier-ignore
  const color = { field: 'name', type: 'nominal' as const, scale: colours, legend: null };
  const strokeDash = { field: 'name', type: 'nominal' as const, scale: { domain: colours.domain, range: DASHES }, legend: null };
  const lines = points.filter((p) => !p.exact);
  const plot: Plot = {
    width: WIDTH,
    height: HEIGHT,
    layer: [
      { data: { values: lines }, mark: { type: 'line', strokeWidth: 1.75, aria: false }, encoding: { x, y, color, strokeDash } },
      { data: { values: points }, mark: { type: 'point', filled: true, size: 40, opacity: 1 }, encoding: { x, y, color, shape: { field: 'exact', type: 'nominal', scale: { domain: [false, true], range: ['circle', 'diamond'] }, legend: null }, description: { field: 'tip' } } }, // prettier-ignore
      {
        data: { values: labels(points, edge, ceiling) },
        mark: {
          type: 'text',
          align: 'left',
          baseline: 'middle',
          dx: 10,
          fontSize: 12,
          stroke: 'var(--bg)',
          strokeWidth: 4,
          strokeJoin: 'round',
          limit: 0,
          aria: false,
        },
        encoding: { x, y, text: { field: 'name' }, color },
      },
    ],
  };
  const what = `Lines: error over size of ${series.map((s) => s.name).join(', ')}, both axes logarithmic`;
  return { svg: await renderPlot(plot, what) };
}

interface Label {
  readonly name: string;
  readonly ratio: number;
  readonly error: number;
}

/** Each series' name beside its last point, moved up where it would lie on another. */
function labels(points: readonly Label[], edge: number, ceiling: number): Label[] {
  const last = new Map(points.map((p) => [p.name, p]));
  const pixel = (error: number): number => (HEIGHT * Math.log(error / edge)) / Math.log(ceiling / edge);
  let free = -Infinity;
  return [...last.values()]
    .sort((a, b) => a.error - b.error)
    .map(({ name, ratio, error }) => {
      const up = Math.max(pixel(error), free);
      free = up + LABEL_STEP;
      return { name, ratio, error: edge * (ceiling / edge) ** (up / HEIGHT) };
    });
}
