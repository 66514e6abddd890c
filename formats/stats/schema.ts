/** What a statistics file holds and says of itself, version 1: `docs/formats/statistics.md` is the normative text. */
import * as z from 'zod';
import type { TensorInfo } from '../../core/tensor.js';

export const STATS_VERSION = 1;

/** Of a module's inputs x (tokens, in): modules that are fed the same tensor store them once. */
export const INPUT_STATISTICS = ['inputSqNorm', 'inputAbsMean', 'inputGram', 'tokens'] as const;
/** Of the gradients G (out, in) of the loss to a module's weight. */
export const FISHER_STATISTICS = ['fisherRow', 'fisherA', 'fisherB'] as const;
export const STATISTICS = [...INPUT_STATISTICS, ...FISHER_STATISTICS] as const;
export type InputStatistic = (typeof INPUT_STATISTICS)[number];
export type FisherStatistic = (typeof FISHER_STATISTICS)[number];
export type Statistic = (typeof STATISTICS)[number];

/** Which flag of `pith calibrate` takes each. */
export const STATISTIC_FLAGS: Readonly<Record<Statistic, string>> = {
  inputSqNorm: '--stats sqnorm',
  inputAbsMean: '--stats absmean',
  inputGram: '--stats gram',
  tokens: '--stats sqnorm,absmean,gram',
  fisherRow: '--fisher row',
  fisherA: '--fisher kron',
  fisherB: '--fisher kron',
};

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.int().nonnegative();

export const statsFields = {
  model: z.object({ name: z.string(), contentHash: sha256 }),
  dataset: z.object({ name: z.string(), sha256 }),
  nsamples: count,
  seqlen: count,
  seed: count,
  tokens: count,
  tokensHash: sha256,
  alias: z.record(z.string(), z.string()),
};

export interface StatsManifest {
  readonly version: number;
  readonly generator: string;
  /** The checkpoint whose forward pass was watched. */
  readonly model: z.infer<typeof statsFields.model>;
  /** The text: file name and SHA-256 of the file. */
  readonly dataset: z.infer<typeof statsFields.dataset>;
  readonly nsamples: number;
  /** Tokens of the longest sequence. */
  readonly seqlen: number;
  readonly seed: number;
  /** Of all sequences. */
  readonly tokens: number;
  /** SHA-256 of the token ids as they were fed: int32, little-endian, one sequence after the other. */
  readonly tokensHash: string;
  /** module -> the module under whose name its input statistics are. */
  readonly alias: Readonly<Record<string, string>>;
}

/** Sides of a module's weight as y = x W^T sees it, however it is stored. */
export interface ModuleSides {
  readonly in: number;
  readonly out: number;
}

export const statName = (module: string, statistic: Statistic): string => `${module}.${statistic}`;

/** Name, type and shape of one statistic. */
export function statInfo(module: string, statistic: Statistic, sides: ModuleSides): TensorInfo {
  const name = statName(module, statistic);
  return statistic === 'tokens' ? { name, dtype: 'I64', shape: [] } : { name, dtype: 'F32', shape: shapeOf(statistic, sides) };
}

function shapeOf(statistic: Exclude<Statistic, 'tokens'>, { in: n, out: m }: ModuleSides): readonly number[] {
  switch (statistic) {
    case 'inputSqNorm':
    case 'inputAbsMean':
      return [n];
    case 'inputGram':
    case 'fisherA':
      return [n, n];
    case 'fisherRow':
      return [m];
    case 'fisherB':
      return [m, m];
  }
}

export function manifestToMetadata(m: StatsManifest): Record<string, string> {
  return {
    'pith.format': 'statistics',
    'pith.version': String(STATS_VERSION),
    generator: m.generator,
    model: JSON.stringify(m.model),
    dataset: JSON.stringify(m.dataset),
    nsamples: String(m.nsamples),
    seqlen: String(m.seqlen),
    seed: String(m.seed),
    tokens: String(m.tokens),
    tokensHash: JSON.stringify(m.tokensHash),
    alias: JSON.stringify(m.alias),
  };
}
