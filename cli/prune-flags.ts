/** Flags of `pith prune`: what goes, by what, and what becomes of the weights that stay. */
import { Flags } from '@oclif/core';
import { PithError } from '../core/errors.js';
import type { PruneChoice, PruneOptions, PruneTarget } from '../pipelines/prune/plan.js';
import { windowFlags, windows } from './calibration-flags.js';
import { parseSettings } from './flags.js';

const usage = (message: string): PithError => new PithError('USAGE', { message });

const sparsity = Flags.custom<number>({
  description: 'share of the weights that goes, from 0 to below 1',
  aliases: ['sparsity-ratio', 'sparsity_ratio'],
  helpValue: '0..1',
  helpGroup: 'WHAT GOES',
  parse: async (text) => {
    const v = Number(text);
    if (text.trim() === '' || !(v >= 0 && v < 1)) throw usage(`--sparsity ${text}: not from 0 to below 1`);
    return v;
  },
})();

export const pruneFlags = {
  method: Flags.string({
    aliases: ['prune-method', 'prune_method'],
    description: 'pruner (`pith methods list --kind prune`); wanda unless masks are given',
    helpValue: 'NAME',
    helpGroup: 'WHAT GOES',
  }),
  set: Flags.string({ multiple: true, default: [], description: 'method parameter', helpValue: 'KEY=VALUE', helpGroup: 'WHAT GOES' }),
  sparsity,
  pattern: Flags.string({
    aliases: ['sparsity-type', 'sparsity_type'],
    description: 'keep N of every M consecutive inputs, as 2:4; or unstructured',
    helpValue: 'N:M',
    helpGroup: 'WHAT GOES',
  }),
  group: Flags.option({
    options: ['layer', 'row', 'global'] as const,
    description: "weights that compete: those of a layer, of a row (an output), of all layers; the method's own if nothing is said",
    helpGroup: 'WHAT GOES',
  })(),
  mask: Flags.string({
    multiple: true,
    default: [],
    description: 'keep what this file has (masks, or a checkpoint that is pruned already) instead of choosing',
    helpValue: 'FILE',
    helpGroup: 'WHAT GOES',
  }),
  combine: Flags.option({ options: ['and', 'or'] as const, description: 'of several masks: kept by all, or by any (default and)', helpGroup: 'WHAT GOES' })(),
  base: Flags.string({ description: 'the checkpoint before fine-tuning, for methods that look at what it changed', helpValue: 'CKPT', helpGroup: 'WHAT GOES' }),
  update: Flags.string({
    default: 'none',
    description: 'set the kept weights anew: a method that has such an update (admm, sparsegpt), or none',
    helpValue: 'NAME',
    helpGroup: 'WHAT STAYS',
  }),
  'update-set': Flags.string({ multiple: true, default: [], description: 'parameter of the update', helpValue: 'KEY=VALUE', helpGroup: 'WHAT STAYS' }),
  save: Flags.option({
    options: ['dense', 'sparse'] as const,
    default: 'dense',
    description: 'the checkpoint as it was, with zeros; or one small file that every command reads as that checkpoint',
  })(),
  'save-mask': Flags.string({ description: 'write the masks too, a byte a weight', helpValue: 'FILE.safetensors' }),
  stats: Flags.string({
    description: 'statistics of the layers of this model, made by `pith calibrate`',
    helpValue: 'STATS.safetensors',
    exclusive: ['dataset'],
    helpGroup: 'STATISTICS',
  }),
  dataset: Flags.string({
    description: 'text that they are taken on now, block by block on what is pruned so far: plain, or JSON Lines',
    helpValue: 'FILE',
    helpGroup: 'STATISTICS',
  }),
  'one-shot': Flags.boolean({ description: 'take them all at once, on the model as it is', dependsOn: ['dataset'], helpGroup: 'STATISTICS' }),
  'true-sequential': Flags.boolean({
    description: 'inside a block too: layers that share an input, then the next ones on what those give',
    dependsOn: ['dataset'],
    exclusive: ['one-shot'],
    helpGroup: 'STATISTICS',
  }),
  ...windowFlags,
};

interface Parsed {
  readonly out: string;
  readonly method: string | undefined;
  readonly set: readonly string[];
  readonly sparsity: number | undefined;
  readonly pattern: string | undefined;
  readonly group: 'layer' | 'row' | 'global' | undefined;
  readonly mask: readonly string[];
  readonly combine: 'and' | 'or' | undefined;
  readonly base: string | undefined;
  readonly update: string;
  readonly 'update-set': readonly string[];
  readonly save: 'dense' | 'sparse';
  readonly 'save-mask': string | undefined;
  readonly stats: string | undefined;
  readonly dataset: string | undefined;
  readonly 'one-shot': boolean;
  readonly 'true-sequential': boolean;
  readonly rows: string | undefined;
  readonly template: string | undefined;
  readonly nsamples: number;
  readonly seqlen: number | undefined;
  readonly seed: number;
}

type Chosen = Pick<PruneOptions, 'choose' | 'update' | 'base' | 'stats' | 'data' | 'save' | 'oneShot' | 'trueSequential' | 'saveMask'>;

/** USAGE (64) for what contradicts itself or is missing. */
export function pruneOptions(f: Parsed): Chosen {
  const { dataset, rows, template, nsamples, seqlen, seed, base, stats } = f;
  const saveMask = f['save-mask'];
  if (f.save === 'sparse' && !f.out.endsWith('.safetensors')) throw usage(`--out ${f.out}: --save sparse writes one .safetensors file`);
  if (f.update === 'none' && f['update-set'].length > 0) throw usage('--update-set: --update is missing');
  return {
    choose: choiceOf(f),
    ...(f.update === 'none' ? {} : { update: { name: f.update, params: parseSettings(f['update-set']) } }),
    ...(base === undefined ? {} : { base }),
    ...(stats === undefined ? {} : { stats }),
    ...(dataset === undefined ? {} : { data: { windows: windows({ ...f, dataset }), identity: { dataset, rows, template, nsamples, seqlen, seed } } }),
    save: f.save,
    oneShot: f['one-shot'],
    trueSequential: f['true-sequential'],
    ...(saveMask === undefined ? {} : { saveMask }),
  };
}

function choiceOf(f: Parsed): PruneChoice {
  if (f.mask.length === 0) {
    if (f.combine !== undefined) throw usage('--combine: it needs --mask');
    return { method: { name: f.method ?? 'wanda', params: parseSettings(f.set) }, target: targetOf(f) };
  }
  const other = (['method', 'sparsity', 'pattern', 'group'] as const).find((name) => f[name] !== undefined) ?? (f.set.length > 0 ? 'set' : undefined);
  if (other !== undefined) throw usage(`--mask says what goes; --${other} has no say then`);
  return { masks: f.mask, combine: f.combine ?? 'and' };
}

function targetOf({ sparsity: ratio, pattern, group }: Parsed): PruneTarget {
  if (pattern === undefined || pattern === 'unstructured') {
    if (ratio === undefined) throw usage('give --sparsity, --pattern or --mask');
    return { group: group ?? 'usual', ratio };
  }
  const [, keep, of] = /^(\d+):(\d+)$/.exec(pattern)?.map(Number) ?? [];
  if (keep === undefined || of === undefined) throw usage(`--pattern ${pattern}: write N:M, as 2:4, or unstructured`);
  if (keep < 1 || keep > of) throw usage(`--pattern ${pattern}: ${keep} of ${of} inputs cannot be kept`);
  if (ratio !== undefined && ratio !== 1 - keep / of) throw usage(`--pattern ${pattern} is a sparsity of ${1 - keep / of}, --sparsity says ${ratio}`);
  if (group !== undefined) throw usage(`--pattern ${pattern} has groups of its own; --group ${group} has no say then`);
  return { group: 'n:m', keep, of };
}
