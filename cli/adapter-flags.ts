/** Flags of the adapter commands; those of mergekit-extract-lora keep its names, in kebab case or with underscores. */
import { Flags } from '@oclif/core';
import { PithError } from '../core/errors.js';
import { parseSize } from './sizes.js';
import { runFlags } from './flags.js';

const DTYPES = { bf16: 'BF16', f16: 'F16', f32: 'F32' } as const;
export type FloatName = keyof typeof DTYPES;

/** `--dtype` as a storage type, or nothing. */
export const storageType = (name: FloatName | undefined): { dtype?: 'BF16' | 'F16' | 'F32' } => (name === undefined ? {} : { dtype: DTYPES[name] });

export const dtypeFlag = (description: string) => Flags.option({ options: ['bf16', 'f16', 'f32'] as const, description })();

export const energyFlag = (description: string) =>
  Flags.custom<number>({
    description,
    helpValue: '0..1',
    parse: async (text) => {
      const v = Number(text);
      if (!(v > 0 && v <= 1)) throw new PithError('USAGE', { message: `--energy ${text}: give a share above 0, at most 1` });
      return v;
    },
  })();

/** Flags that every adapter command that runs tasks and writes has. */
export const adapterWriteFlags = {
  force: Flags.boolean({ description: 'replace an existing output' }),
  'dry-run': Flags.boolean({ description: 'check the plan and predict the result; write nothing' }),
  ...runFlags,
};

export const extractFlags = {
  model: Flags.string({ required: true, description: 'fine-tuned checkpoint', helpValue: 'CKPT' }),
  'base-model': Flags.string({ required: true, aliases: ['base_model', 'base'], description: 'base checkpoint', helpValue: 'CKPT' }),
  'out-path': Flags.string({ required: true, aliases: ['out_path', 'out'], description: 'folder of the adapter', helpValue: 'DIR' }),
  'max-rank': Flags.integer({ min: 1, default: 128, aliases: ['max_rank', 'rank'], description: 'largest rank of a module' }),
  'sv-epsilon': Flags.custom<number>({
    aliases: ['sv_epsilon'],
    description: 'drop singular values at or below it',
    parse: async (text) => {
      const v = Number(text);
      if (!(v >= 0)) throw new PithError('USAGE', { message: `--sv-epsilon ${text}: give a number of at least 0` });
      return v;
    },
  })(),
  energy: energyFlag('the least rank of every module that keeps this share of its squared difference, at most --max-rank'),
  'target-size': Flags.custom<number>({
    description: 'size of adapter_model.safetensors, shared over all modules',
    aliases: ['target_size'],
    helpValue: 'SIZE',
    exclusive: ['energy', 'sv-epsilon'],
    parse: async (text) => parseSize(text),
  })(),
  'distribute-scale': Flags.boolean({
    allowNo: true,
    default: true,
    aliases: ['distribute_scale'],
    description: 'singular values by their roots in both factors, else all in A',
  }),
  'embed-lora': Flags.boolean({ allowNo: true, default: false, aliases: ['embed_lora'], description: 'factors for embeddings too, else they are saved whole' }),
  'save-module': Flags.string({
    multiple: true,
    default: [],
    aliases: ['save_module'],
    description: 'save this module whole, by path or last part',
    helpValue: 'NAME',
  }),
  'include-regex': Flags.string({
    char: 'i',
    multiple: true,
    default: [],
    aliases: ['include_regex'],
    description: 'only modules in whose path this is found',
    helpValue: 'REGEX',
  }),
  'exclude-regex': Flags.string({
    char: 'e',
    multiple: true,
    default: [],
    aliases: ['exclude_regex'],
    description: 'not modules in whose path this is found',
    helpValue: 'REGEX',
  }),
  'skip-undecomposable': Flags.boolean({
    aliases: ['skip_undecomposable'],
    description: 'leave out norms and other modules that have no factors, else they are saved whole',
  }),
};
