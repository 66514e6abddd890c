/** Patterns of tokenizer.json, written for Oniguruma, as JavaScript expressions; the translation is that of @huggingface/tokenizers. */
import { PithError } from '../../core/errors.js';
import { SplitPreTokenizer } from './hf-tokenizers.js';
import type { SplitPattern } from './schema.js';

/** Global, so that it can be used with matchAll and replaceAll. TOKENIZER_UNSUPPORTED (65) where JavaScript cannot say it. */
export function toRegExp(pattern: SplitPattern, file: string): RegExp {
  if ('String' in pattern) return new RegExp(pattern.String.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&'), 'gu');
  try {
    const { pattern: translated } = new SplitPreTokenizer({ type: 'Split', pattern: { Regex: pattern.Regex }, behavior: 'isolated', invert: false });
    if (translated !== null) return translated;
  } catch (cause) {
    throw new PithError('TOKENIZER_UNSUPPORTED', { file, message: `pattern ${pattern.Regex}: ${cause instanceof Error ? cause.message : ''}` }, { cause });
  }
  throw new PithError('TOKENIZER_UNSUPPORTED', { file, message: `pattern ${pattern.Regex}` });
}
