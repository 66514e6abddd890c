/** The page of `pith inspect --report`. */
import { basename } from 'node:path';
import type { InspectReport } from '../../pipelines/inspect.js';
import type { Spectrum } from '../../pipelines/spectrum.js';
import { formatBytes, formatShare } from '../sizes.js';
import { rowNames } from './by-layer.js';
import { renderPage, type Column, type Section } from './page.js';
import { barPlot, brief, type Bar } from './plots.js';
import { spectrumSections } from './spectra.js';

/** Rows of the figure of sizes. */
const MODULES = 40;

export async function inspectPage(r: InspectReport, spectra: ReadonlyMap<string, Spectrum> | undefined): Promise<string> {
  const tensors = r.tensors.map((t) => ({ ...t, ...(spectra?.has(t.name) === true ? { spectrum: spectra.get(t.name)! } : {}) }));
  const sections = [await roleSection(r), await dtypeSection(r), ...(await spectrumSections(tensors, 'the weights')), tensorSection(tensors)];
  const facts = [
    ['checkpoint', r.source],
    ['tensors', String(r.tensors.length)],
    ['parameters', r.parameters.toLocaleString('en-US')],
    ['bytes', formatBytes(r.totalBytes)],
    ['files', String(r.files.length)],
  ] as const;
  return renderPage({ title: basename(r.source), facts, sections });
}

const bar = (name: string, bytes: number, whole: number): Bar => ({
  name,
  value: bytes,
  text: `${formatBytes(bytes)}, ${formatShare(bytes / Math.max(1, whole))}`,
});

async function roleSection(r: InspectReport): Promise<Section> {
  const row = rowNames(r.tensors);
  const sums = new Map<string, { tensors: number; bytes: number }>();
  for (const t of r.tensors) {
    const key = row(t);
    const sum = sums.get(key) ?? { tensors: 0, bytes: 0 };
    sums.set(key, { tensors: sum.tensors + 1, bytes: sum.bytes + t.bytes });
  }
  const largest = [...sums].sort(([, a], [, b]) => b.bytes - a.bytes).slice(0, MODULES);
  const bars = largest.map(([name, { tensors, bytes }]) => bar(tensors === 1 ? name : `${name} (${tensors})`, bytes, r.totalBytes));
  const rest = sums.size - largest.length;
  const note = `Bytes of each module over all layers, with its number of tensors${rest === 0 ? '' : `; ${rest} smaller ones are in the table`}.`;
  return { title: 'Size by module', note, figures: [await barPlot(bars, 'bytes by module')] };
}

async function dtypeSection(r: InspectReport): Promise<Section> {
  const bars = Object.entries(r.dtypes).sort(([, a], [, b]) => b.bytes - a.bytes).map(([dtype, d]) => bar(`${dtype} (${d.tensors})`, d.bytes, r.totalBytes)); // prettier-ignore
  return { title: 'Types', note: 'Bytes of each data type, with its number of tensors.', figures: [await barPlot(bars, 'bytes by dtype')] };
}

function tensorSection(tensors: readonly (InspectReport['tensors'][number] & { readonly spectrum?: Spectrum })[]): Section {
  const spectrum = tensors.some((t) => t.spectrum !== undefined);
  const columns: Column[] = [
    { title: 'tensor' },
    { title: 'dtype' },
    { title: 'shape' },
    { title: 'bytes', format: formatBytes },
    ...(spectrum ? ['eff. rank', '90 %', '95 %', '99 %', 'noise rank', 's_1', '|W|'].map((title) => ({ title, format: brief })) : []),
  ];
  const rows = tensors.map(({ name, dtype, shape, bytes, spectrum: s }) => {
    const ranks = spectrum ? [s?.effectiveRank, s?.rank90, s?.rank95, s?.rank99, s?.noiseRank, s?.values[0], s?.norm] : [];
    return [name, dtype, shape.join(' x '), bytes, ...ranks];
  });
  return { title: 'Tensors', table: { caption: 'Every tensor', columns, rows } };
}
