/** Special tokens around a text, from tokenizer.json's post-processor; rules of Hugging Face tokenizers 0.23 (tokenizers/src/processors). */
import { PithError } from '../../core/errors.js';
import type { PostProcessorConfig } from './schema.js';

export interface Surround {
  readonly before: readonly number[];
  readonly after: readonly number[];
}

const NOTHING: Surround = { before: [], after: [] };

export function surroundOf(config: PostProcessorConfig, file: string): Surround {
  switch (config.type) {
    case 'ByteLevel':
      return NOTHING;
    case 'BertProcessing':
    case 'RobertaProcessing':
      return { before: [config.cls[1]], after: [config.sep[1]] };
    case 'TemplateProcessing':
      return template(config, file);
    case 'Sequence':
      return config.processors
        .map((p) => surroundOf(p, file))
        .reduce((inner, outer) => ({ before: [...outer.before, ...inner.before], after: [...inner.after, ...outer.after] }), NOTHING);
  }
}

function template({ single, special_tokens }: Extract<PostProcessorConfig, { type: 'TemplateProcessing' }>, file: string): Surround {
  const text = single.findIndex((p) => 'Sequence' in p);
  if (single.filter((p) => 'Sequence' in p).length !== 1) {
    throw new PithError('TOKENIZER_UNSUPPORTED', { file, message: 'a post-processor that does not have the text once' });
  }
  const ids = (pieces: typeof single): number[] =>
    pieces.flatMap((p) => {
      const token = 'SpecialToken' in p ? special_tokens[p.SpecialToken.id] : undefined;
      if (token === undefined) throw new PithError('TOKENIZER_MALFORMED', { file, message: `post_processor: ${JSON.stringify(p)} has no ids` });
      return token.ids;
    });
  return { before: ids(single.slice(0, text)), after: ids(single.slice(text + 1)) };
}
