/** Flags of `pith factorize`: how much is kept, what it is judged by, what is written. */
import { Flags } from '@oclif/core';
import { PithError } from '../core/errors.js';
import type { FactorizeOptions } from '../pipelines/factorize/plan.js';
import { ALLOCATIONS, type Allocation, type RankTarget } from '../pipelines/factorize/ranks.js';
import { windowFlags, windows } from './calibration-flags.js';
import { parseSettings } from './flags.js';
import { parseSize } from './sizes.js';

const only = ['ratio', 'rank', 'energy'];
const share = (name: string, description: string) =>
  Flags.custom<number>({
    description,
    helpValue: '0..1',
    helpGroup: 'RANKS',
    exclusive: only.filter((o) => o !== name),
    parse: async (text) => {
      const v = Number(text);
      if (text.trim() === '' || !(v > 0 && v <= 1)) throw new PithError('USAGE', { message: `--${name} ${text}: give a share above 0, at most 1` });
      return v;
    },
  })();

export const factorizeFlags = {
  method: Flags.string({ default: 'svd-llm', description: 'factorizer (`pith methods list --kind factor`)', helpValue: 'NAME' }),
  set: Flags.string({ multiple: true, default: [], description: 'method parameter', helpValue: 'KEY=VALUE' }),
  ratio: share('ratio', 'share of the parameters of the linear layers that is kept'),
  rank: Flags.integer({ min: 1, description: 'components kept in every layer', helpGroup: 'RANKS', exclusive: ['ratio', 'energy'] }),
  energy: share('energy', "the least rank of every layer that keeps this share of its squares in the method's metric"),
  allocation: Flags.option({
    options: ALLOCATIONS,
    default: 'uniform' as const,
    description: 'how --ratio is shared: the same for every layer, or by what a component takes of the relative error',
    helpGroup: 'RANKS',
  })(),
  stats: Flags.string({
    description: 'statistics of the layers, made by `pith calibrate`',
    helpValue: 'STATS.safetensors',
    exclusive: ['dataset'],
    helpGroup: 'STATISTICS',
  }),
  dataset: Flags.string({ description: 'text that they are taken on now: plain, or JSON Lines', helpValue: 'FILE', helpGroup: 'STATISTICS' }),
  ...windowFlags,
  save: Flags.option({ options: ['factors', 'dense'] as const, default: 'factors' as const, description: 'two layers in place of one, or their product' })(),
  'shard-size': Flags.custom<number>({ description: 'size of a shard (default 5GB)', helpValue: 'SIZE', parse: async (text) => parseSize(text) })(),
};

interface Parsed {
  readonly method: string;
  readonly set: readonly string[];
  readonly ratio: number | undefined;
  readonly rank: number | undefined;
  readonly energy: number | undefined;
  readonly allocation: Allocation;
  readonly stats: string | undefined;
  readonly dataset: string | undefined;
  readonly rows: string | undefined;
  readonly template: string | undefined;
  readonly nsamples: number;
  readonly seqlen: number | undefined;
  readonly seed: number;
  readonly save: FactorizeOptions['save'];
  readonly 'shard-size': number | undefined;
}

export function factorizeOptions(f: Parsed): Pick<FactorizeOptions, 'method' | 'target' | 'stats' | 'data' | 'save' | 'shardBytes'> {
  const { dataset, rows, template, nsamples, seqlen, seed } = f;
  return {
    method: { name: f.method, params: parseSettings(f.set) },
    target: targetOf(f),
    save: f.save,
    ...(f.stats === undefined ? {} : { stats: f.stats }),
    ...(dataset === undefined ? {} : { data: { windows: windows({ ...f, dataset }), identity: { dataset, rows, template, nsamples, seqlen, seed } } }),
    ...(f['shard-size'] === undefined ? {} : { shardBytes: f['shard-size'] }),
  };
}

/** USAGE (64) when nothing says how much is kept. */
function targetOf({ ratio, rank, energy, allocation }: Parsed): RankTarget {
  if (allocation !== 'uniform' && ratio === undefined) throw new PithError('USAGE', { message: `--allocation ${allocation} shares a --ratio` });
  if (rank !== undefined) return { rank };
  if (energy !== undefined) return { energy };
  if (ratio !== undefined) return { ratio, allocation };
  throw new PithError('USAGE', { message: 'give --ratio, --rank or --energy' });
}
