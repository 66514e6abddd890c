/** The sections on singular values, for weights (`inspect`) and for differences (`diff`). */
import type { Spectrum } from '../../pipelines/spectrum.js';
import { hasLayers, largestBars, panels, type Placed } from './by-layer.js';
import type { Section } from './page.js';
import { barPlot, brief, layerPanels, spectrumPlot } from './plots.js';
import { DASHES, SERIES } from './svg.js';

export interface Measured extends Placed {
  readonly spectrum?: Spectrum;
}

const LINES = ['effective rank', 'rank at 90 % of the energy', 'at 95 %', 'at 99 %'];
/** Curves of one figure: each has a colour and a dash of its own. */
const CURVES = SERIES.length;

export async function spectrumSections(tensors: readonly Measured[], of: string): Promise<Section[]> {
  const known = tensors.filter((t) => t.spectrum?.finite === true && t.spectrum.norm > 0);
  if (known.length === 0) return [];
  const largest = [...known].sort((a, b) => b.spectrum!.norm - a.spectrum!.norm).slice(0, CURVES);
  const curves = {
    title: `Singular values of ${of}`,
    note: `The ${largest.length} largest by Frobenius norm, of ${known.length}. A curve that falls at once is of low rank; one that stays up is not. Values below 1e-4 of the first are drawn there.`,
    figures: [await spectrumPlot(largest.map((t) => ({ name: t.name, values: t.spectrum!.values })))],
  };
  return [curves, await rankSection(known, of)];
}

async function rankSection(known: readonly Measured[], of: string): Promise<Section> {
  const title = `Rank of ${of} by layer`;
  const meaning =
    'Effective rank: exp of the entropy of s / sum s, the number of directions in use. Rank at 90, 95, 99 % of the energy: the least rank that keeps that share of the squared norm. Matrices outside of the layers are in the table.';
  if (!hasLayers(known)) {
    const bars = largestBars(known, ({ spectrum }) => {
      const value = spectrum?.effectiveRank;
      return value === undefined ? undefined : { value, text: `${brief(value)} of ${spectrum!.side}` };
    });
    return { title: `Effective rank of ${of}`, note: meaning, figures: [await barPlot(bars, 'effective rank')] };
  }
  const figures = await layerPanels(
    panels(known, ({ spectrum: s }) => [s?.effectiveRank, s?.rank90, s?.rank95, s?.rank99]),
    'rank',
    LINES,
    (v) => String(Math.round(v)),
  );
  return { title, note: meaning, legend: LINES.map((name, i) => ({ name, colour: SERIES[i]!, dash: DASHES[i]! })), figures };
}
