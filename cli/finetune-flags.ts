/** Flags of `pith finetune`, and the options they make. */
import { Flags } from '@oclif/core';
import { PithError } from '../core/errors.js';
import { OPTIMIZERS } from '../kernels/optim/optimizers.js';
import { SCHEDULES } from '../kernels/optim/schedules.js';
import type { FinetuneOptions } from '../pipelines/finetune/finetune.js';
import { SAVE_KINDS, type SaveKind } from '../pipelines/finetune/save.js';
import { dataFlags, datasetSpec, rowTemplate } from './data-flags.js';
import { parseSettings } from './flags.js';

const from =
  (least: number) =>
  async (text: string): Promise<string> => {
    const v = Number(text);
    if (text.trim() === '' || !Number.isFinite(v) || v < least) throw new PithError('USAGE', { message: `${text}: a number from ${least} on expected` });
    return text;
  };
const optional = (description: string) => Flags.string({ description, parse: from(0) });
const number = (description: string, value: number) => Flags.string({ description, default: String(value), parse: from(0) });

export const finetuneFlags = {
  data: Flags.string({ required: true, description: 'text, JSON Lines of text, prompt and completion, or messages', helpValue: 'FILE' }),
  ...dataFlags,
  method: Flags.string({ default: 'lora', description: 'adapter; `pith methods list --kind adapter`', helpValue: 'NAME' }),
  set: Flags.string({ multiple: true, default: [], description: "one of the method's parameters", helpValue: 'KEY=VALUE' }),
  rank: Flags.integer({ min: 1, description: "the method's rank" }),
  alpha: optional("the method's alpha (default: twice the rank)"),
  dropout: optional("the method's dropout"),
  target: Flags.string({ multiple: true, description: 'layers: all-linear, names (q_proj,v_proj), or re:EXPRESSION over whole paths', helpValue: 'NAME' }),
  recipe: Flags.string({ default: 'sft', description: 'how tokens and samples count; `pith methods list --kind recipe`' }),
  steps: Flags.integer({ min: 1, description: 'steps of the optimizer (default: as --epochs says)' }),
  epochs: number('passes over the data', 1),
  'batch-size': Flags.integer({ min: 1, default: 4, description: 'sequences of a pass' }),
  'grad-accumulation': Flags.integer({ min: 1, default: 1, description: 'passes of a step' }),
  seqlen: Flags.integer({ min: 2, description: 'tokens of a sequence at most (default: 2048, or what the model has)' }),
  packing: Flags.boolean({ description: 'short rows share a sequence, without seeing each other' }),
  'train-on-inputs': Flags.boolean({ description: 'prompts are learnt too' }),
  'val-split': number('rows kept for validation: a share, or a number from 1 on', 0),
  'eval-every': Flags.integer({ min: 0, default: 0, description: 'steps between losses on the validation rows; 0: none' }),
  patience: Flags.integer({ min: 0, default: 0, description: 'end after so many of them without a better one; 0: never' }),
  'learning-rate': number('of the optimizer', 2e-4),
  schedule: Flags.option({ options: SCHEDULES, default: 'cosine' as const, description: 'of the learning rate' })(),
  'min-learning-rate': number('where cosine and linear end', 0),
  warmup: number('steps of warm-up, or a share of all below 1', 0.03),
  optimizer: Flags.option({ options: OPTIMIZERS, default: 'adamw' as const, description: 'what makes steps of gradients' })(),
  'weight-decay': number('of the optimizer', 0),
  clip: number('largest norm of the gradients; 0: any', 1),
  'save-every': Flags.integer({ min: 0, default: 50, description: 'steps between states that a stopped run goes on from; 0: only the last' }),
  save: Flags.string({ default: 'adapter', description: `what is written: ${SAVE_KINDS.join(', ')}`, helpValue: 'LIST' }),
  eval: Flags.boolean({ description: "loss of the checkpoint before and after, on the validation rows or some of the data's" }),
  prompt: Flags.string({ description: 'a text that the result continues at the end', helpValue: 'TEXT' }),
  report: Flags.string({ description: 'write the curves as one page', helpValue: 'FILE.html' }),
  out: Flags.string({ required: true, char: 'o', description: 'folder of the result', helpValue: 'DIR' }),
};

interface Parsed {
  readonly data: string;
  readonly rows: string | undefined;
  readonly template: string | undefined;
  readonly method: string;
  readonly set: readonly string[];
  readonly rank: number | undefined;
  readonly alpha: string | undefined;
  readonly dropout: string | undefined;
  readonly target: readonly string[] | undefined;
  readonly recipe: string;
  readonly steps: number | undefined;
  readonly epochs: string;
  readonly 'batch-size': number;
  readonly 'grad-accumulation': number;
  readonly seqlen: number | undefined;
  readonly packing: boolean;
  readonly 'train-on-inputs': boolean;
  readonly 'val-split': string;
  readonly 'eval-every': number;
  readonly patience: number;
  readonly 'learning-rate': string;
  readonly schedule: (typeof SCHEDULES)[number];
  readonly 'min-learning-rate': string;
  readonly warmup: string;
  readonly optimizer: (typeof OPTIMIZERS)[number];
  readonly 'weight-decay': string;
  readonly clip: string;
  readonly 'save-every': number;
  readonly save: string;
  readonly eval: boolean;
  readonly prompt: string | undefined;
  readonly out: string;
}

type Options = Omit<FinetuneOptions, 'checkpoint' | 'threads' | 'maxMemoryBytes' | 'seed' | 'device' | 'signal' | 'force' | 'resume'>;

export function finetuneOptions(f: Parsed): Options {
  const params = {
    ...(f.rank === undefined ? {} : { rank: f.rank }),
    ...(f.alpha === undefined ? {} : { alpha: Number(f.alpha) }),
    ...(f.dropout === undefined ? {} : { dropout: Number(f.dropout) }),
    ...parseSettings(f.set),
  };
  return {
    out: f.out,
    data: {
      spec: datasetSpec(f.data, f.rows),
      ...rowTemplate(f.template),
      packing: f.packing,
      trainOnInputs: f['train-on-inputs'],
      validation: Number(f['val-split']),
      batchSize: f['batch-size'],
      accumulation: f['grad-accumulation'],
    },
    seqlen: f.seqlen,
    method: { name: f.method, params },
    recipe: { name: f.recipe, params: {} },
    targets: targets(f.target),
    steps: f.steps,
    epochs: Number(f.epochs),
    schedule: { name: f.schedule, rate: Number(f['learning-rate']), least: Number(f['min-learning-rate']) },
    warmup: Number(f.warmup),
    optimizer: { name: f.optimizer, weightDecay: Number(f['weight-decay']) },
    clip: Number(f.clip),
    saveEvery: f['save-every'],
    evalEvery: f['eval-every'],
    patience: f.patience,
    evaluate: f.eval,
    prompt: f.prompt,
    save: saveKinds(f.save),
  };
}

function targets(given: readonly string[] | undefined): string | string[] | undefined {
  if (given === undefined || given.length === 0) return undefined;
  const [only] = given;
  if (given.length === 1 && only === 'all-linear') return only;
  if (given.length === 1 && only!.startsWith('re:')) return only!.slice('re:'.length);
  return given.flatMap((g) => g.split(',')).map((g) => g.trim());
}

function saveKinds(text: string): SaveKind[] {
  const names = new Set(text.split(',').map((name) => name.trim()));
  for (const name of names) {
    if (!(SAVE_KINDS as readonly string[]).includes(name))
      throw new PithError('USAGE', { message: `--save ${text}: "${name}" is none of ${SAVE_KINDS.join(', ')}` });
  }
  return SAVE_KINDS.filter((k) => names.has(k));
}
