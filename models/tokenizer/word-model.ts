/** The models of tokenizer.json: one word of pre-tokenized text -> ids. BPE, WordPiece and Unigram are those of @huggingface/tokenizers. */
import { PithError } from '../../core/errors.js';
import { byteTokens } from './byte-level.js';
import { BPE, Unigram, WordPiece, type BpeModel } from './hf-tokenizers.js';
import { WordCutter } from './long-words.js';
import type { ModelConfigJson } from './schema.js';

export type ModelType = 'BPE' | 'WordPiece' | 'Unigram' | 'WordLevel';

export interface WordModel {
  readonly type: ModelType;
  /** id -> token; ids that no token has are holes. */
  readonly tokens: readonly (string | undefined)[];
  readonly ids: ReadonlyMap<string, number>;
  encode(word: string): readonly number[];
}

const CACHED_WORDS = 1 << 16;
const CACHED_LENGTH = 256;

/** Types that old files leave out follow from what the model has. */
function typeOf(m: ModelConfigJson): ModelType {
  if (m.type !== undefined) return m.type;
  if (Array.isArray(m.vocab)) return 'Unigram';
  if (m.merges !== undefined) return 'BPE';
  return m.continuing_subword_prefix === undefined ? 'WordLevel' : 'WordPiece';
}

/** TOKENIZER_MALFORMED or TOKENIZER_UNSUPPORTED (65). */
export function createWordModel(m: ModelConfigJson, file: string): WordModel {
  const type = typeOf(m);
  const malformed = (message: string): PithError => new PithError('TOKENIZER_MALFORMED', { file, message: `model.${message}` });
  const entries = vocabulary(m, malformed);
  const ids = new Map(entries);
  const tokens: (string | undefined)[] = [];
  for (const [token, id] of ids) tokens[id] = token;
  const unkToken = m.unk_token ?? undefined;
  const unk = type === 'Unigram' ? (m.unk_id ?? undefined) : unkToken === undefined ? undefined : ids.get(unkToken);
  if (unkToken !== undefined && unk === undefined) throw malformed(`unk_token: "${unkToken}" is not in the vocabulary`);
  if (type === 'Unigram' && unk !== undefined && tokens[unk] === undefined) throw malformed(`unk_id: ${unk} is not in the vocabulary`);
  const pieces = piecesOf(type, m, unk, malformed, file);
  const fallback = (piece: string): readonly number[] => {
    const bytes = m.byte_fallback === true ? byteTokens(piece).map((b) => ids.get(b)) : [undefined];
    if (!bytes.includes(undefined)) return bytes as number[];
    return unk === undefined ? [] : [unk];
  };
  const encodePieces = (word: string): number[] => pieces(word).flatMap((piece) => ids.get(piece) ?? fallback(piece));
  return { type, tokens, ids, encode: cached(cut(type, m, ids, encodePieces)) };
}

function vocabulary(m: ModelConfigJson, malformed: (message: string) => PithError): [string, number][] {
  const list: readonly unknown[] | undefined = Array.isArray(m.vocab) ? (m.vocab as readonly unknown[]) : undefined;
  if (list === undefined) {
    const entries = Object.entries(m.vocab as Readonly<Record<string, number>>);
    const bad = entries.find(([, id]) => !Number.isInteger(id) || id < 0);
    if (bad !== undefined) throw malformed(`vocab: "${bad[0]}" has the id ${String(bad[1])}`);
    return entries;
  }
  return list.map((entry, id) => {
    if (!Array.isArray(entry) || typeof entry[0] !== 'string' || typeof entry[1] !== 'number') throw malformed(`vocab: entry ${id} is no [token, score]`);
    return [entry[0], id];
  });
}

type Pieces = (word: string) => readonly string[];

function piecesOf(type: ModelType, m: ModelConfigJson, unk: number | undefined, malformed: (message: string) => PithError, file: string): Pieces {
  switch (type) {
    case 'WordLevel':
      return (word) => [word];
    case 'WordPiece': {
      if (m.unk_token === undefined || m.unk_token === null) throw malformed('unk_token is missing');
      const prefix = m.continuing_subword_prefix ?? '##';
      const model = new WordPiece({ ...m, type, continuing_subword_prefix: prefix, max_input_chars_per_word: m.max_input_chars_per_word ?? 100 });
      return (word) => model.encode([word]);
    }
    case 'Unigram': {
      if (unk === undefined) throw new PithError('TOKENIZER_UNSUPPORTED', { file, message: 'a Unigram model without unk_id' });
      // fuse_unk: the model joins unknown characters to one piece
      const model = new Unigram({ ...m, type }, '');
      return (word) => model([word]);
    }
    case 'BPE': {
      if ((m.continuing_subword_prefix ?? '') !== '') {
        throw new PithError('TOKENIZER_UNSUPPORTED', { file, message: 'a BPE model with continuing_subword_prefix' });
      }
      if (m.merges === undefined) throw malformed('merges is missing');
      const model = new BPE({ ...m, type, fuse_unk: false });
      // pieces that no token has come from single characters: the caller's fallback knows what to make of them
      return m.fuse_unk === true ? (word) => fuseUnknown(split(model, word), model.tokens_to_ids, m.byte_fallback === true) : (word) => split(model, word);
    }
  }
}

function split(model: BpeModel, word: string): readonly string[] {
  return model.ignore_merges && model.tokens_to_ids.has(word) ? [word] : model.bpe(word);
}

/** Neighbouring characters without a token as one piece, which then is one unknown token; where bytes stand in for them each is its own. */
function fuseUnknown(pieces: readonly string[], ids: ReadonlyMap<string, number>, byteFallback: boolean): readonly string[] {
  const known = (p: string): boolean => ids.has(p) || (byteFallback && byteTokens(p).every((b) => ids.has(b)));
  const out: string[] = [];
  let open = false;
  for (const p of pieces) {
    const unknown = !known(p);
    if (unknown && open) out.push(`${out.pop()!}${p}`);
    else out.push(p);
    open = unknown;
  }
  return out;
}

/** Long words in independent parts, where the model has rules that allow it. */
function cut(type: ModelType, m: ModelConfigJson, ids: ReadonlyMap<string, number>, encode: (word: string) => number[]): (word: string) => readonly number[] {
  if ((type !== 'BPE' && type !== 'Unigram') || (m.end_of_word_suffix ?? '') !== '') return encode;
  const cutter = new WordCutter(ids);
  return (word) => {
    const parts = cutter.cut(word);
    return parts.length === 1 ? encode(word) : parts.flatMap(encode);
  };
}

function cached(encode: (word: string) => readonly number[]): (word: string) => readonly number[] {
  const cache = new Map<string, readonly number[]>();
  return (word) => {
    const known = cache.get(word);
    if (known !== undefined) return known;
    const ids = encode(word);
    if (word.length <= CACHED_LENGTH) {
      if (cache.size >= CACHED_WORDS) cache.clear();
      cache.set(word, ids);
    }
    return ids;
  };
}
