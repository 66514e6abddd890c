/** Flags of the delta codecs: how much to keep, and what becomes of the embeddings. */
import { Flags } from '@oclif/core';
import { PithError } from '../core/errors.js';
import type { CalibrationText } from '../pipelines/calibration-data.js';
import type { DeltaTarget } from '../pipelines/delta-budget.js';
import type { EncodeOptions } from '../pipelines/delta-encode.js';
import { dataFlags, datasetSpec, rowTemplate } from './data-flags.js';
import { parseSize } from './sizes.js';

const only = ['rank', 'energy', 'target-size', 'target-ratio', 'max-error'];
const alone = (name: string): string[] => only.filter((o) => o !== name);
const share = (name: string, description: string) =>
  Flags.custom<number>({ description, helpValue: '0..1', exclusive: alone(name), parse: async (text) => number(name, text, (v) => v > 0 && v <= 1) })();

export const deltaFlags = {
  method: Flags.string({
    default: 'lossless',
    description: 'delta codec (`pith methods list`), or auto: the best of several for each tensor',
    helpValue: 'NAME',
  }),
  progressive: Flags.boolean({
    description: 'lossy layer first, the exact remainder behind it in the same file; sizes and errors that are asked for count the lossy layer alone',
  }),
  stats: Flags.string({
    description: 'statistics of the base or the fine-tune (`pith calibrate`) that the method is fitted to (delta-come: inputGram)',
    helpValue: 'FILE',
    helpGroup: 'LOSSY',
  }),
  set: Flags.string({ multiple: true, default: [], description: 'method parameter', helpValue: 'KEY=VALUE' }),
  rank: Flags.integer({ min: 1, description: 'components kept in every matrix', exclusive: alone('rank'), helpGroup: 'LOSSY' }),
  energy: share('energy', 'share of every squared delta that is kept'),
  'target-size': Flags.custom<number>({
    description: 'size of the whole file, of its lossy layer under --progressive, shared over all tensors',
    exclusive: alone('target-size'),
    helpValue: 'SIZE',
    parse: async (text) => parseSize(text),
  })(),
  'target-ratio': Flags.custom<number>({
    description: 'the same as a factor: N times smaller',
    exclusive: alone('target-ratio'),
    helpValue: 'N',
    parse: async (text) => number('target-ratio', text, (v) => v > 1),
  })(),
  'max-error': share('max-error', '||restored - tuned|| / ||tuned - base|| over the model, with the fewest bytes'),
  factors: Flags.option({
    options: ['bf16', 'f16', 'f32', 'int8', 'int4'] as const,
    description: 'storage of low-rank factors (default bf16; int8 under a size)',
    helpGroup: 'LOSSY',
  })(),
  embeddings: Flags.string({
    description: 'embeddings and heads: same, lossless, a rank (8), an energy (0.5) or a size of their own (2MB)',
    default: 'same',
    helpValue: 'HOW',
    helpGroup: 'LOSSY',
  }),
};

/** Text that the fine-tune is for: what errors do to its predictions there decides the shares of a size. */
export const probeFlags = {
  dataset: Flags.string({
    description: 'text (JSON Lines, plain) on which it is measured what an error in each part does',
    helpValue: 'FILE',
    helpGroup: 'LOSSY',
  }),
  ...dataFlags,
  nsamples: Flags.integer({ min: 1, default: 12, description: 'windows of text that are measured on', helpGroup: 'LOSSY' }),
  seqlen: Flags.integer({ min: 2, default: 256, description: 'tokens of a window', helpGroup: 'LOSSY' }),
};

interface ParsedProbe {
  readonly dataset: string | undefined;
  readonly rows: string | undefined;
  readonly template: string | undefined;
  readonly nsamples: number;
  readonly seqlen: number;
  readonly seed: number;
}

export function probeOptions(f: ParsedProbe): { data?: CalibrationText } {
  if (f.dataset === undefined) return {};
  const { nsamples, seqlen, seed } = f;
  return { data: { spec: datasetSpec(f.dataset, f.rows), ...rowTemplate(f.template), nsamples, seqlen, seed } };
}

function number(flag: string, text: string, ok: (v: number) => boolean): number {
  const v = Number(text);
  if (text.trim() === '' || !ok(v)) throw new PithError('USAGE', { message: `--${flag} ${text}: not in its range` });
  return v;
}

interface Parsed {
  readonly rank: number | undefined;
  readonly energy: number | undefined;
  readonly 'target-size': number | undefined;
  readonly 'target-ratio': number | undefined;
  readonly 'max-error': number | undefined;
  readonly factors: string | undefined;
  readonly embeddings: string;
}

/** The parts of the pipeline's options that these flags decide; explicit flags win over `--set`. */
export function lossyOptions(flags: Parsed, set: Readonly<Record<string, unknown>>): Pick<EncodeOptions, 'params' | 'target' | 'embeddings'> {
  const target: DeltaTarget = {
    ...(flags['target-size'] === undefined ? {} : { bytes: flags['target-size'] }),
    ...(flags['target-ratio'] === undefined ? {} : { ratio: flags['target-ratio'] }),
    ...(flags['max-error'] === undefined ? {} : { maxError: flags['max-error'] }),
  };
  const hasTarget = Object.keys(target).length > 0;
  const params = {
    ...set,
    ...(flags.rank === undefined ? {} : { rank: flags.rank }),
    ...(flags.energy === undefined ? {} : { energy: flags.energy }),
    ...(flags.factors === undefined ? {} : { factors: flags.factors }),
  };
  const embeddings = embeddingRule(flags.embeddings, params, hasTarget);
  return { params, ...(hasTarget ? { target } : {}), ...(embeddings === undefined ? {} : { embeddings }) };
}

function embeddingRule(text: string, params: Readonly<Record<string, unknown>>, hasTarget: boolean): EncodeOptions['embeddings'] {
  if (text === 'same') return undefined;
  if (text === 'lossless') return text;
  const rest = Object.fromEntries(Object.entries(params).filter(([k]) => k !== 'rank' && k !== 'energy'));
  if (/^\d+$/.test(text) && Number(text) > 0) return { params: { ...rest, rank: Number(text), energy: undefined } };
  const v = Number(text);
  if (v > 0 && v <= 1) return { params: { ...rest, energy: v, rank: undefined } };
  if (!hasTarget) throw new PithError('USAGE', { message: `--embeddings ${text}: a size needs --target-size or --target-ratio for the rest` });
  return { bytes: parseSize(text) };
}
