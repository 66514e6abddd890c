/** The page of `pith diff --report`. */
import { basename } from 'node:path';
import type { DiffedTensor, DiffReport } from '../../pipelines/diff.js';
import { formatShare } from '../sizes.js';
import { hasLayers, heatCells, largestBars, panels } from './by-layer.js';
import { renderPage, type Column, type Figure, type Section } from './page.js';
import { barPlot, brief, heatMap, layerPanels } from './plots.js';
import { spectrumSections } from './spectra.js';

export async function diffPage(r: DiffReport): Promise<string> {
  const { elements, changedShare, relativeNorm } = r.summary;
  const compared = r.tensors.filter((t) => t.changedShare !== undefined);
  const sections = [
    await changedSection(compared),
    await normSection(compared.filter((t) => t.baseNorm! > 0)),
    ...(await spectrumSections(r.tensors, 'the differences')),
    ...(await intruderSections(r)),
    tensorSection(r.tensors),
  ];
  const facts = [
    ['base', r.base],
    ['fine-tune', r.tuned],
    ['tensors', `${r.tensors.length}, ${r.tensors.filter((t) => t.status === 'same').length} the same`],
    ['elements compared', elements.toLocaleString('en-US')],
    ['changed', formatShare(changedShare)],
    ['|dW| / |W|', brief(relativeNorm)],
  ] as const;
  return renderPage({ title: `${basename(r.tuned)} against ${basename(r.base)}`, facts, sections: sections.filter((s) => s !== undefined) });
}

const total = (tensors: readonly DiffedTensor[], of: (t: DiffedTensor) => number): number => tensors.reduce((sum, t) => sum + of(t), 0);
const elementsOf = (t: DiffedTensor): number => t.shape.reduce((n, d) => n * d, 1);

async function changedSection(tensors: readonly DiffedTensor[]): Promise<Section | undefined> {
  if (tensors.length === 0) return undefined;
  const share = (of: readonly DiffedTensor[]): { value: number; text: string } => {
    const value = total(of, (t) => t.changedShare! * elementsOf(t)) / Math.max(1, total(of, elementsOf));
    return { value, text: formatShare(value) };
  };
  const figure = hasLayers(tensors)
    ? await heatMap(heatCells(tensors, share), 'share of the elements that changed', { format: '~p' })
    : await barPlot(largestBars(tensors, (t) => share([t])), 'share of the elements that changed'); // prettier-ignore
  return {
    title: 'Changed share by layer and module',
    note: 'Share of the elements whose stored bits differ. Modules outside of the layers are in the column –.',
    figures: [figure],
  };
}

async function normSection(tensors: readonly DiffedTensor[]): Promise<Section | undefined> {
  if (tensors.length === 0) return undefined;
  const title = 'Relative norm by layer';
  const note =
    '|W1 - W0| / |W0| in the Frobenius norm: how far each module moved. All figures have the same axes; tensors outside of the layers are in the table.';
  if (!hasLayers(tensors)) {
    const bars = largestBars(tensors, (t) => ({ value: t.relativeNorm!, text: brief(t.relativeNorm!) }));
    return { title, note, figures: [await barPlot(bars, 'relative norm')] };
  }
  const modules = panels(tensors, (t) => [t.relativeNorm]);
  return { title, note, figures: await layerPanels(modules, 'relative norm', ['|dW| / |W|'], brief) };
}

async function intruderSections(r: DiffReport): Promise<Section[]> {
  const looked = r.tensors.filter((t) => t.intruders !== undefined && t.intruders.left === undefined);
  if (r.intruders === undefined || looked.length === 0) return [];
  const { top, cosine } = r.intruders;
  const count = (t: DiffedTensor): number => t.intruders?.intruders.length ?? 0;
  const leftOut = r.tensors.filter((t) => t.intruders?.left !== undefined).length;
  const note = `Of the ${top} leading left singular vectors of each fine-tuned matrix, those whose cosine with every left singular vector of the base is below ${cosine}: directions that the base did not have (Shuttleworth et al., arXiv 2410.21228). ${total(looked, count)} in ${looked.filter((t) => count(t) > 0).length} of ${looked.length} matrices${leftOut === 0 ? '' : `; ${leftOut} left out, too large or not finite`}.`;
  const figures = [
    ...(total(looked, count) === 0 ? [] : [await countFigure(looked, count)]),
    await cosineFigure(looked.filter((t) => t.intruders!.leading.length > 0)),
  ];
  return [{ title: 'Intruder dimensions', note, figures, table: intruderTable(looked, count) }];
}

async function countFigure(looked: readonly DiffedTensor[], count: (t: DiffedTensor) => number): Promise<Figure> {
  const axis = 'intruder dimensions';
  if (!hasLayers(looked)) return barPlot(largestBars(looked, (t) => ({ value: count(t), text: String(count(t)) })), axis); // prettier-ignore
  const cells = heatCells(looked, (of) => {
    const value = total(of, count);
    return { value, text: `${value} of ${total(of, (t) => t.intruders!.leading.length)} vectors` };
  });
  return heatMap(cells, axis, { whole: true });
}

const leastCosine = (t: DiffedTensor): number => Math.min(1, ...t.intruders!.leading.map((v) => v.cosine));

async function cosineFigure(looked: readonly DiffedTensor[]): Promise<Figure> {
  const axis = 'least of the cosines of the leading vectors';
  const value = (of: readonly DiffedTensor[]): { value: number; text: string } => {
    const least = Math.min(...of.map(leastCosine));
    return { value: least, text: least.toFixed(3) };
  };
  if (hasLayers(looked)) return heatMap(heatCells(looked, value), axis, { reverse: true });
  return barPlot(largestBars(looked, (t) => value([t])), axis); // prettier-ignore
}

function intruderTable(looked: readonly DiffedTensor[], count: (t: DiffedTensor) => number): NonNullable<Section['table']> {
  const columns: Column[] = [
    { title: 'tensor' },
    { title: 'intruders' },
    { title: 'at' },
    { title: 'singular values' },
    { title: 'their cosines' },
    { title: 'least cosine', format: (v) => v.toFixed(3) },
    { title: 'eff. rank of W', format: (v) => v.toFixed(1) },
    { title: 'eff. rank of W + dW', format: (v) => v.toFixed(1) },
  ];
  const rows = looked.map((t) => {
    const { intruders: found, leading, effectiveRank } = t.intruders!;
    const least = leading.length === 0 ? undefined : leastCosine(t);
    const list = (of: (v: (typeof found)[number]) => string): string => found.map(of).join(', ');
    return [t.name, count(t), list((v) => String(v.index)), list((v) => brief(v.value)), list((v) => v.cosine.toFixed(3)), least, effectiveRank?.base, effectiveRank?.tuned]; // prettier-ignore
  });
  return { caption: 'Intruder dimensions of every matrix; the first vector is at 0', columns, rows };
}

function tensorSection(tensors: readonly DiffedTensor[]): Section {
  const spectrum = tensors.some((t) => t.spectrum !== undefined);
  const columns: Column[] = [
    { title: 'tensor' },
    { title: 'status' },
    { title: 'dtype' },
    { title: 'shape' },
    { title: 'changed', format: formatShare },
    { title: '|dW| / |W|', format: brief },
    { title: 'max |dW|', format: brief },
    ...(spectrum ? ['eff. rank', '90 %', '95 %', '99 %', 's_1'].map((title) => ({ title, format: brief })) : []),
  ];
  const rows = tensors.map((t) => {
    const s = t.spectrum;
    const ranks = spectrum ? [s?.effectiveRank, s?.rank90, s?.rank95, s?.rank99, s?.values[0]] : [];
    return [t.name, t.status, t.dtype, t.shape.join(' x '), t.changedShare, t.relativeNorm, t.maxAbs, ...ranks];
  });
  return { title: 'Tensors', table: { caption: 'Every tensor', columns, rows } };
}
