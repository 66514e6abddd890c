/** Flags of what a model is calibrated on, and of the statistics that are taken. */
import { Flags } from '@oclif/core';
import { PithError } from '../core/errors.js';
import type { CalibrateOptions } from '../pipelines/calibrate-plan.js';
import { calibrationData } from '../pipelines/calibration-data.js';
import { dataFlags, datasetSpec, rowTemplate } from './data-flags.js';

/** Tokens of a window where nothing else is said, and the model has so many positions. */
const USUAL_SEQLEN = 2048;

export const windowFlags = {
  ...dataFlags,
  nsamples: Flags.integer({ min: 1, default: 128, description: 'windows of text, drawn by the seed' }),
  seqlen: Flags.integer({ min: 1, description: `tokens of a window (default: ${USUAL_SEQLEN}, or as many as the model has positions for)` }),
};

interface ParsedWindows {
  readonly dataset: string;
  readonly rows: string | undefined;
  readonly template: string | undefined;
  readonly nsamples: number;
  readonly seqlen: number | undefined;
  readonly seed: number;
}

/** The windows, once the model is known. */
export function windows(f: ParsedWindows): CalibrateOptions['data'] {
  const text = { spec: datasetSpec(f.dataset, f.rows), ...rowTemplate(f.template), nsamples: f.nsamples, seed: f.seed };
  return (reader, positions) => calibrationData(reader, { ...text, seqlen: f.seqlen ?? Math.min(USUAL_SEQLEN, positions) });
}

const INPUTS = { sqnorm: ['inputSqNorm'], absmean: ['inputAbsMean'], gram: ['inputGram'] } as const;
const FISHER = { row: ['fisherRow'], kron: ['fisherA', 'fisherB'] } as const;

export const statisticFlags = {
  stats: Flags.string({ default: 'sqnorm,absmean,gram', description: 'of the inputs: sqnorm, absmean, gram; or none', helpValue: 'LIST' }),
  fisher: Flags.string({ description: 'of the gradients: row (FWSVD), kron (GFWSVD); one gradient a window', helpValue: 'LIST' }),
};

export function statistics(f: { readonly stats: string; readonly fisher: string | undefined }): Pick<CalibrateOptions, 'statistics' | 'fisher'> {
  const chosen = {
    statistics: f.stats === 'none' ? [] : list('stats', f.stats, INPUTS),
    fisher: f.fisher === undefined ? [] : list('fisher', f.fisher, FISHER),
  };
  if (chosen.statistics.length + chosen.fisher.length === 0)
    throw new PithError('USAGE', { message: '--stats none: --fisher is missing, there is nothing to take' });
  return chosen;
}

/** `a,b` by the table, in its order. */
function list<S extends string>(flag: string, text: string, table: Readonly<Record<string, readonly S[]>>): S[] {
  const names = new Set(text.split(',').map((name) => name.trim()));
  for (const name of names) {
    if (!Object.hasOwn(table, name)) throw new PithError('USAGE', { message: `--${flag} ${text}: "${name}" is none of ${Object.keys(table).join(', ')}` });
  }
  return Object.entries(table).flatMap(([name, statistics_]) => (names.has(name) ? statistics_ : []));
}
