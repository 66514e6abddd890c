/** The page of `pith factorize --report`. */
import { placeOf } from '../../models/place.js';
import type { FactorizedLayer, FactorizeReport } from '../../pipelines/factorize/report.js';
import { formatBytes, formatShare } from '../sizes.js';
import { hasLayers, heatCells, largestBars, panels } from './by-layer.js';
import { renderPage, type Column, type Section } from './page.js';
import { barPlot, brief, heatMap, layerPanels } from './plots.js';

type Placed = FactorizedLayer & { readonly place: ReturnType<typeof placeOf> };

export async function factorizePage(r: FactorizeReport, source: string): Promise<string> {
  const layers = r.layers.map((l) => ({ ...l, place: placeOf(`${l.name}.weight`) }));
  const facts = [
    ['checkpoint', source],
    ['method', r.method],
    ['kept of the layers', formatShare(r.kept)],
    ['parameters', `${r.parameters.toLocaleString('en-US')} of ${r.rawParameters.toLocaleString('en-US')}`],
    ['bytes', `${formatBytes(r.bytes)} of ${formatBytes(r.rawBytes)}`],
  ] as const;
  return renderPage({ title: `Factors of ${source}`, facts, sections: [await errorSection(layers), await rankSection(layers), layerSection(layers)] });
}

const errorOf = (l: FactorizedLayer): number => l.outputError ?? l.error;

async function errorSection(layers: readonly Placed[]): Promise<Section> {
  const output = layers.some((l) => l.outputError !== undefined);
  const what = output ? 'error of the output, |X (What - W)^T| / |X W^T|' : "error in the method's metric";
  const note = `By layer: the ${what}. Layers that stay as they are have none.`;
  const value = (l: Placed): { value: number; text: string } => ({ value: errorOf(l), text: brief(errorOf(l)) });
  if (!hasLayers(layers)) return { title: 'Error by layer', note, figures: [await barPlot(largestBars(layers, value), 'error')] };
  const names = output ? ['of the output', 'of the weight'] : ["in the method's metric", 'of the weight'];
  const lines = panels(layers, (l) => [errorOf(l), l.weightError]);
  return { title: 'Error by layer', note: `${note} The second line is |What - W| / |W|.`, figures: await layerPanels(lines, 'error', names, brief) };
}

async function rankSection(layers: readonly Placed[]): Promise<Section> {
  const note = 'Components of every layer, as a share of the most that it could have; 1 for a layer that stays as it is.';
  const share = (l: FactorizedLayer): number => (l.rank === undefined ? 1 : l.rank / Math.min(l.m, l.n));
  const text = (l: FactorizedLayer): string => (l.rank === undefined ? 'whole' : String(l.rank));
  if (!hasLayers(layers)) {
    return { title: 'Rank by layer', note, figures: [await barPlot(largestBars(layers, (l) => ({ value: share(l), text: text(l) })), 'rank / full rank')] }; // prettier-ignore
  }
  const cells = heatCells(layers, (of) => ({ value: of.reduce((sum, l) => sum + share(l), 0) / of.length, text: of.map(text).join(', ') }));
  return { title: 'Rank by layer', note, figures: [await heatMap(cells, 'rank / full rank')] };
}

function layerSection(layers: readonly Placed[]): Section {
  const columns: Column[] = [
    { title: 'layer' },
    { title: 'shape' },
    { title: 'rank' },
    { title: 'kept', format: formatShare },
    { title: 'error', format: brief },
    { title: 'of the weight', format: brief },
    { title: 'of the output', format: brief },
    { title: 'notes' },
  ];
  const notes = (l: Placed): string => Object.entries(l.facts).map(([k, v]) => `${k} ${typeof v === 'number' ? brief(v) : v}`).join(', '); // prettier-ignore
  const rows = layers.map((l) => [l.name, `${l.m} x ${l.n}`, l.rank ?? 'whole', l.kept, l.error, l.weightError, l.outputError, notes(l)]);
  return { title: 'Layers', table: { caption: 'Every layer', columns, rows } };
}
