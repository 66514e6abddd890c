/** Tensors gathered into modules and layers, for figures. */
import type { Bar, HeatCell, LayerPoint, Panel } from './plots.js';

export interface Placed {
  readonly name: string;
  readonly place: { readonly stack: string; readonly layer?: number; readonly module: string };
}

/** A row of a figure: one module of one stack in all layers. Several stacks (encoder, decoder) are told apart by name. */
export function rowNames(tensors: readonly Placed[]): (t: Placed) => string {
  const stacks = new Set(tensors.filter((t) => t.place.layer !== undefined).map((t) => t.place.stack));
  return ({ place }) => (stacks.size > 1 && place.layer !== undefined ? `${place.stack}.*.${place.module}` : place.module);
}

/** Whether figures by layer say more than one bar a tensor. */
export function hasLayers(tensors: readonly Placed[]): boolean {
  return new Set(tensors.flatMap((t) => t.place.layer ?? [])).size > 1;
}

/** One cell a module and layer; `value` sees all tensors of it (experts share one). */
export function heatCells<T extends Placed>(tensors: readonly T[], value: (of: readonly T[]) => { value: number; text: string } | undefined): HeatCell[] {
  const row = rowNames(tensors);
  const groups = groupBy(tensors, (t) => `${t.place.layer ?? ''} ${row(t)}`);
  return [...groups.values()].flatMap((of) => {
    const { layer } = of[0]!.place;
    const found = value(of);
    return found === undefined ? [] : [{ row: row(of[0]!), ...(layer === undefined ? {} : { layer }), ...found }];
  });
}

/** One panel a module; `values` gives a tensor's value on each line, absent where it has none. Experts of a layer are averaged. */
export function panels<T extends Placed>(tensors: readonly T[], values: (t: T) => readonly (number | undefined)[]): Panel[] {
  const layered = tensors.filter((t) => t.place.layer !== undefined);
  const modules = groupBy(layered, rowNames(tensors));
  return [...modules].map(([title, of]) => ({ title, points: pointsOf(of, values) })).filter((p) => p.points.length > 0);
}

function pointsOf<T extends Placed>(tensors: readonly T[], values: (t: T) => readonly (number | undefined)[]): LayerPoint[] {
  const layers = [...groupBy(tensors, (t) => t.place.layer!)].sort(([a], [b]) => a - b);
  return layers.flatMap(([layer, of]) => {
    const rows = of.map(values);
    return rows[0]!.flatMap((_, series) => {
      const known = rows.map((r) => r[series]).filter((v) => v !== undefined);
      return known.length === 0 ? [] : [{ layer, series, value: known.reduce((sum, v) => sum + v, 0) / known.length }];
    });
  });
}

/** The `most` largest, falling. */
export function largestBars<T extends Placed>(tensors: readonly T[], value: (t: T) => { value: number; text: string } | undefined, most = 40): Bar[] {
  return tensors
    .flatMap((t) => {
      const found = value(t);
      return found === undefined ? [] : [{ name: t.name, ...found }];
    })
    .sort((a, b) => b.value - a.value)
    .slice(0, most);
}

function groupBy<T, K>(items: readonly T[], key: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const item of items) {
    const k = key(item);
    const group = groups.get(k);
    if (group === undefined) groups.set(k, [item]);
    else group.push(item);
  }
  return groups;
}
