/** Flags of `eval`, and the options they make. */
import { Flags, type Interfaces } from '@oclif/core';
import { PithError } from '../core/errors.js';
import { PROTOCOLS } from '../pipelines/eval-data.js';
import type { EvalOptions } from '../pipelines/eval.js';
import { dataFlags, datasetSpec, rowTemplate } from './data-flags.js';

const checkpoint = (description: string) => Flags.string({ description, helpValue: 'CKPT' });

export const evalFlags = {
  dataset: Flags.string({ description: 'text: plain, JSON Lines or a JSON list', helpValue: 'FILE' }),
  protocol: Flags.option({ options: PROTOCOLS, default: 'gptq' as const, description: 'whose perplexity: how windows are cut and which tokens count' })(),
  seqlen: Flags.integer({ min: 2, description: "tokens of a window (default: the smaller of 2048 and the model's positions)" }),
  'max-tokens': Flags.integer({ min: 2, description: 'take no more tokens than these from the start of the data' }),
  ...dataFlags,
  wikitext: Flags.boolean({ description: "the text is WikiText's raw file: documents as lm-eval's wikitext task makes them" }),
  reference: checkpoint('another model of the same vocabulary: how far the distributions are from its'),
  base: checkpoint('with --tuned: what share of the way from the base to the fine-tune the model keeps'),
  tuned: checkpoint('the fine-tune that --base became'),
  choices: Flags.string({ description: 'questions with choices, JSON Lines', helpValue: 'FILE' }),
  sample: Flags.string({ description: 'a text for the model to continue', helpValue: 'PROMPT' }),
  'sample-tokens': Flags.integer({ min: 1, default: 64, description: 'tokens of the continuation' }),
  temperature: Flags.custom<number>({
    description: 'of the continuation; 0: always the likeliest token',
    default: 0,
    helpValue: 'T',
    parse: async (text) => {
      const t = Number(text);
      if (text.trim() === '' || !(t >= 0 && t < Infinity)) throw new PithError('USAGE', { message: `--temperature ${text}: a number from 0 on expected` });
      return t;
    },
  })(),
};

type EvalFlags = Interfaces.InferredFlags<typeof evalFlags>;
type DataOptions = Pick<EvalOptions, 'dataset' | 'reference' | 'base' | 'tuned' | 'choices' | 'sample'>;

/** USAGE (64) for flags that need one that is not there. */
export function evalOptions(f: EvalFlags): DataOptions {
  const { dataset, protocol, reference, base, tuned, rows, template, seqlen, wikitext } = f;
  const maxTokens = f['max-tokens'];
  const file = dataset ?? f.choices;
  if (file === undefined && (rows ?? template) !== undefined) throw new PithError('USAGE', { message: '--rows and --template need --dataset or --choices' });
  // the two flags are the data set's where there is one
  const ofChoices = dataset === undefined ? { rows, template } : { rows: undefined, template: undefined };
  return {
    ...(dataset === undefined
      ? {}
      : {
          dataset: {
            spec: datasetSpec(dataset, rows),
            ...rowTemplate(template),
            protocol,
            wikitext,
            ...(seqlen === undefined ? {} : { seqlen }),
            ...(maxTokens === undefined ? {} : { maxTokens }),
          },
        }),
    ...(reference === undefined ? {} : { reference }),
    ...(base === undefined ? {} : { base }),
    ...(tuned === undefined ? {} : { tuned }),
    ...(f.choices === undefined ? {} : { choices: { spec: datasetSpec(f.choices, ofChoices.rows), ...rowTemplate(ofChoices.template) } }),
    ...(f.sample === undefined ? {} : { sample: { prompt: f.sample, tokens: f['sample-tokens'], temperature: f.temperature } }),
  };
}
