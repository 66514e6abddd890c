/** The tokens that a model's files name: which they are, and which of them the tokenizer must find in text; as transformers 5 resolves them. */
import type { AddedTokenConfig, TokenizerConfigJson } from './schema.js';
import { tokenText } from './schema.js';

export const SPECIAL_NAMES = ['bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask'] as const;
export type SpecialName = (typeof SPECIAL_NAMES)[number];

export interface SpecialTokens {
  /** Token texts by name: `bos` of `bos_token`. */
  readonly named: Readonly<Partial<Record<SpecialName, string>>>;
  readonly extra: readonly string[];
}

/** special_tokens_map.json counts only beside a tokenizer_config.json without added_tokens_decoder, and then before it. */
export function specialTokens(config: TokenizerConfigJson, map: Readonly<Record<string, unknown>> | undefined): SpecialTokens {
  const all: Readonly<Record<string, unknown>> = config.added_tokens_decoder === undefined ? { ...config, ...map } : config;
  const named: Partial<Record<SpecialName, string>> = {};
  for (const name of SPECIAL_NAMES) {
    const text = tokenText(all[`${name}_token`]);
    if (text !== undefined && text !== '') named[name] = text;
  }
  const list = all['extra_special_tokens'] ?? all['additional_special_tokens'];
  const entries: readonly unknown[] = typeof list === 'object' && list !== null ? Object.values(list) : [];
  return { named, extra: entries.map(tokenText).filter((t) => t !== undefined) };
}

/**
 * tokenizer.json's added tokens with those that the configuration changes or adds: `added_tokens_decoder` first, then the special ones.
 * A token that no vocabulary has gets the next free id.
 */
export function addedTokens(
  own: readonly AddedTokenConfig[],
  config: TokenizerConfigJson,
  special: SpecialTokens,
  ids: ReadonlyMap<string, number>,
): AddedTokenConfig[] {
  const byContent = new Map(own.map((t) => [t.content, t]));
  const put = (token: Omit<AddedTokenConfig, 'id'>): void => {
    const id = byContent.get(token.content)?.id ?? ids.get(token.content) ?? nextId(byContent, ids.size);
    byContent.set(token.content, { ...token, id });
  };
  const declared = Object.entries(config.added_tokens_decoder ?? {}).sort(([a], [b]) => Number(a) - Number(b));
  for (const [, token] of declared) put(asToken(token));
  for (const content of [...SPECIAL_NAMES.map((name) => special.named[name]), ...special.extra]) {
    if (content === undefined) continue;
    const known = byContent.get(content);
    put(known === undefined ? { ...PLAIN, content, special: true } : { ...known, special: true });
  }
  return [...byContent.values()];
}

const PLAIN = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: false };

function asToken(token: Readonly<Record<string, unknown>> & { content: string }): Omit<AddedTokenConfig, 'id'> {
  const special = token['special'] === true;
  return {
    content: token.content,
    special,
    single_word: token['single_word'] === true,
    lstrip: token['lstrip'] === true,
    rstrip: token['rstrip'] === true,
    normalized: typeof token['normalized'] === 'boolean' ? token['normalized'] : !special,
  };
}

function nextId(tokens: ReadonlyMap<string, AddedTokenConfig>, modelSize: number): number {
  const last = Math.max(-1, ...[...tokens.values()].map((t) => t.id));
  return Math.max(last + 1, modelSize);
}
