/** A small sentence encoder: the golden BERT with a tokenizer of one token a letter, and sentence-transformers' files. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { modelFolder } from './goldens.js';

const LETTERS = Array.from('abcdefghijklmnopqrstuvwxyz0123456789.,!?');
const SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]'];
/** Ids of the text, letter by letter without spaces, between [CLS] and [SEP]. */
export const letterIds = (text: string): number[] => [2, ...Array.from(text.toLowerCase().replaceAll(' ', ''), (c) => SPECIAL.length + LETTERS.indexOf(c)), 3];

const tokenizer = {
  version: '1.0',
  added_tokens: SPECIAL.map((content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true })),
  normalizer: { type: 'BertNormalizer', clean_text: true, handle_chinese_chars: true, strip_accents: null, lowercase: true },
  // a word of its own for every letter
  pre_tokenizer: {
    type: 'Sequence',
    pretokenizers: [{ type: 'WhitespaceSplit' }, { type: 'Split', pattern: { Regex: '.' }, behavior: 'Isolated', invert: false }],
  },
  post_processor: {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '[CLS]', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }, { SpecialToken: { id: '[SEP]', type_id: 0 } }],
    pair: [],
    special_tokens: Object.fromEntries([2, 3].map((id) => [SPECIAL[id]!, { id: SPECIAL[id]!, ids: [id], tokens: [SPECIAL[id]!] }])),
  },
  decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
  model: {
    type: 'WordPiece',
    unk_token: '[UNK]',
    continuing_subword_prefix: '##',
    max_input_chars_per_word: 100,
    vocab: Object.fromEntries([...SPECIAL, ...LETTERS].map((t, id) => [t, id])),
  },
};

export interface EncoderFiles {
  readonly modules?: unknown;
  readonly pooling?: unknown;
  readonly transformer?: unknown;
  /** Changes of config.json. */
  readonly config?: object;
}

export const module_ = (index: number, type: string, path: string): object => ({
  idx: index,
  name: `${index}`,
  path,
  type: `sentence_transformers.models.${type}`,
});
export const MODULES = [module_(0, 'Transformer', ''), module_(1, 'Pooling', '1_Pooling'), module_(2, 'Normalize', '2_Normalize')];
export const MEAN = { word_embedding_dimension: 32, pooling_mode_cls_token: false, pooling_mode_mean_tokens: true, pooling_mode_max_tokens: false };

/** `null` leaves a file out. */
export function writeEncoder(folder: string, files: EncoderFiles = {}): string {
  cpSync(modelFolder('bert-sentence'), folder, { recursive: true, filter: (path) => !path.includes('golden.') });
  const json = (name: string, document: unknown): void => {
    if (document !== null) writeFileSync(join(folder, name), JSON.stringify(document));
  };
  mkdirSync(join(folder, '1_Pooling'), { recursive: true });
  json('tokenizer.json', tokenizer);
  json('modules.json', files.modules === undefined ? MODULES : files.modules);
  json('1_Pooling/config.json', files.pooling === undefined ? MEAN : files.pooling);
  json('sentence_bert_config.json', files.transformer === undefined ? { max_seq_length: 24, do_lower_case: false } : files.transformer);
  if (files.config !== undefined) json('config.json', { ...(JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as object), ...files.config });
  return folder;
}
