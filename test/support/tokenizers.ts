/** Tokenizers for tests: the shipped model's, and those of the goldens. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer } from '../../models/tokenizer/tokenizer.js';
import { ROOT, TINY } from './files.js';

export const GOLDEN_TOKENIZERS = join(ROOT, 'test', 'golden', 'tokenizer');

export interface GoldenTokenizer {
  readonly folder?: string;
  readonly tokenizer?: unknown;
  readonly config?: unknown;
  readonly specialTokensMap?: unknown;
  readonly special: Readonly<Record<string, number>>;
  readonly vocabSize: number;
  /** What is left out equals the one before it. */
  readonly cases: readonly {
    readonly text: string;
    readonly ids: readonly number[];
    readonly plain?: readonly number[];
    readonly asText?: readonly number[];
    readonly decoded?: string;
    readonly skipped?: string;
  }[];
}

const json = (...path: string[]): unknown => JSON.parse(readFileSync(join(...path), 'utf8'));

export function tinyTokenizer(chatTemplate?: string): Tokenizer {
  const folder = join(TINY, 'base');
  const files = { source: 'tiny', tokenizer: json(folder, 'tokenizer.json'), config: json(folder, 'tokenizer_config.json') };
  return new Tokenizer(chatTemplate === undefined ? files : { ...files, chatTemplate });
}

export const readGolden = (name: string): GoldenTokenizer => json(GOLDEN_TOKENIZERS, `${name}.json`) as GoldenTokenizer;

export function goldenTokenizer(name: string): Tokenizer {
  const { folder, tokenizer, config, specialTokensMap } = readGolden(name);
  if (folder === undefined) return new Tokenizer({ source: name, tokenizer, config, specialTokensMap });
  return new Tokenizer({ source: name, tokenizer: json(ROOT, folder, 'tokenizer.json'), config: json(ROOT, folder, 'tokenizer_config.json') });
}
