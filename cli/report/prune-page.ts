/** The page of `pith prune --report`. */
import { placeOf } from '../../models/place.js';
import type { PrunedTensor, PruneReport } from '../../pipelines/prune/report.js';
import { ERRORS_OF } from '../prune-view.js';
import { formatBytes, formatMs, formatShare } from '../sizes.js';
import { hasLayers, heatCells, largestBars } from './by-layer.js';
import { renderPage, type Column, type Section } from './page.js';
import { barPlot, brief, heatMap } from './plots.js';

type Placed = PrunedTensor & { readonly place: ReturnType<typeof placeOf> };

export async function prunePage(r: PruneReport, source: string): Promise<string> {
  const tensors = r.tensors.map((t) => ({ ...t, place: placeOf(t.name) }));
  const facts = [
    ['checkpoint', source],
    ['method', r.update === undefined ? r.method : `${r.method}, ${r.update} update`],
    ['structure', r.structure],
    ['statistics', r.mode],
    ['zeros', formatShare(r.sparsity)],
    ['bytes', formatBytes(r.bytes)],
  ] as const;
  const errors = [...new Set(tensors.map((t) => ERRORS_OF[t.errorOf]))].join('; ');
  const sections = [
    await valueSection(tensors, 'Error by layer', `By layer: the ${errors}.`, 'error', (t) => t.error, brief),
    await valueSection(tensors, 'Sparsity by layer', 'Share of zeros of every layer.', 'sparsity', (t) => t.sparsity, formatShare),
    layerSection(tensors),
  ];
  return renderPage({ title: `Sparsity of ${source}`, facts, sections });
}

async function valueSection(
  tensors: readonly Placed[],
  title: string,
  note: string,
  axis: string,
  value: (t: Placed) => number,
  format: (v: number) => string,
): Promise<Section> {
  if (!hasLayers(tensors)) {
    const bars = largestBars(tensors, (t) => ({ value: value(t), text: format(value(t)) }));
    return { title, note, figures: [await barPlot(bars, axis)] };
  }
  const mean = (of: readonly Placed[]): number => of.reduce((sum, t) => sum + value(t), 0) / of.length;
  const cells = heatCells(tensors, (of) => ({ value: mean(of), text: format(mean(of)) }));
  return { title, note, figures: [await heatMap(cells, axis)] };
}

function layerSection(tensors: readonly Placed[]): Section {
  const columns: Column[] = [
    { title: 'layer' },
    { title: 'shape' },
    { title: 'sparsity', format: formatShare },
    { title: 'error', format: brief },
    { title: 'time', format: formatMs },
    { title: 'notes' },
  ];
  const notes = (t: PrunedTensor): string => Object.entries(t.facts).map(([k, v]) => `${k} ${typeof v === 'number' ? brief(v) : v}`).join(', '); // prettier-ignore
  const rows = tensors.map((t) => [t.name, `${t.m} x ${t.n}`, t.sparsity, t.error, t.ms, notes(t)]);
  return { title: 'Layers', table: { caption: 'Every layer', columns, rows } };
}
