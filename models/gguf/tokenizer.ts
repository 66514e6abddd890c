/**
 * The vocabulary of a GGUF -> tokenizer.json and tokenizer_config.json. Which tokens text becomes is what llama.cpp makes of it; the form
 * is that of the tokenizers library. Four kinds by `tokenizer.ggml.model`: "gpt2" byte-level BPE, "llama" SentencePiece, "bert" WordPiece.
 */
import { required, type GgufMetadata } from './metadata.js';
import { DEFAULT_PRE, preTokenizerRule, type PreTokenizer } from './pre-tokenizers.js';
import { PithError } from '../../core/errors.js';

type Json = Readonly<Record<string, unknown>>;

/** `tokenizer.ggml.token_type`. */
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;

const KEY = 'tokenizer.ggml.';
/** Words of SentencePiece begin with it. */
const SPACE = '\u2581';
/** Longer tokens take part in no merge: to look for their parts takes the square of their length. */
const MAX_MERGED = 256;

/** Why there is no tokenizer.json for this file, or undefined when there is one. Looks at the kind alone. */
export function tokenizerProblem(meta: GgufMetadata): string | undefined {
  const model = meta.string(`${KEY}model`);
  if (model === undefined) return 'it holds no tokenizer';
  if (model !== 'gpt2' && model !== 'llama' && model !== 'bert') return `its tokenizer is of a kind that is not known: "${model}"`;
  const pre = meta.string(`${KEY}pre`) ?? DEFAULT_PRE;
  return model === 'gpt2' && preTokenizerRule(pre) === undefined ? `its pre-tokenizer is not known: "${pre}"` : undefined;
}

interface Vocabulary {
  readonly tokens: readonly string[];
  readonly types: readonly number[];
  readonly ids: ReadonlyMap<string, number>;
}

/** GGUF_FIELD (65) when the tokens or their types cannot be a vocabulary. */
function vocabulary(meta: GgufMetadata, spell: (token: string, type: number) => string): Vocabulary {
  const key = `${KEY}tokens`;
  const stored = required(meta, key, meta.strings(key), 'an array of strings');
  const types = meta.numbers(`${KEY}token_type`) ?? stored.map(() => 1);
  if (types.length < stored.length) {
    throw new PithError('GGUF_FIELD', { file: meta.path, key: `${KEY}token_type`, expected: `${stored.length} numbers`, got: types.length });
  }
  const tokens = stored.map((t, i) => spell(t === '' ? `[EMPTY_${i}]` : t, types[i]!));
  const ids = new Map(tokens.map((t, i) => [t, i]));
  if (ids.size < tokens.length) {
    const twice = tokens.find((t, i) => ids.get(t) !== i)!;
    throw new PithError('GGUF_FIELD', { file: meta.path, key, expected: 'each token once', got: `"${twice}" twice` });
  }
  return { tokens, types, ids };
}

/** undefined when `tokenizerProblem` has a reason. */
export function tokenizerOf(meta: GgufMetadata): Json | undefined {
  if (tokenizerProblem(meta) !== undefined) return undefined;
  switch (meta.string(`${KEY}model`)) {
    case 'gpt2':
      return byteLevelBpe(meta);
    case 'llama':
      return sentencePiece(meta);
    default:
      return wordPiece(meta);
  }
}

/** An object for JSON whose keys may be anything, `__proto__` too. */
function idsObject(ids: ReadonlyMap<string, number>): Record<string, number> {
  const out = Object.create(null) as Record<string, number>;
  for (const [token, id] of ids) out[token] = id;
  return out;
}

const addedToken = (id: number, content: string, special: boolean): Json => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special,
});

/** Control and unknown tokens are special; user-defined ones are whole words of the text. */
function addedTokens({ tokens, types }: Vocabulary, userDefined: (token: string) => boolean = () => true): Json[] {
  return tokens.flatMap((content, id) => {
    const type = types[id];
    if (type === CONTROL || type === UNKNOWN) return [addedToken(id, content, true)];
    return type === USER_DEFINED && userDefined(content) ? [addedToken(id, content, false)] : [];
  });
}

function assemble(parts: {
  readonly added: readonly Json[];
  readonly normalizer: Json | null;
  readonly pre: PreTokenizer | null;
  readonly post: Json | null;
  readonly decoder: Json;
  readonly model: Json;
}): Json {
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: parts.added,
    normalizer: parts.normalizer,
    pre_tokenizer: parts.pre,
    post_processor: parts.post,
    decoder: parts.decoder,
    model: parts.model,
  };
}

const sequenceA = { Sequence: { id: 'A', type_id: 0 } };
const sequenceB = (type: number): Json => ({ Sequence: { id: 'B', type_id: type } });

/** Tokens around a text, and around each of two; null when there are none. */
function template(
  meta: GgufMetadata,
  { tokens }: Vocabulary,
  defaults: { readonly bos: boolean; readonly bosId?: number; readonly eosId?: number },
): Json | null {
  const named = (id: number | undefined): readonly string[] => (id !== undefined && tokens[id] !== undefined ? [tokens[id]] : []);
  const begin = (meta.boolean(`${KEY}add_bos_token`) ?? defaults.bos) ? named(meta.number(`${KEY}bos_token_id`) ?? defaults.bosId) : [];
  const end = (meta.boolean(`${KEY}add_eos_token`) ?? false) ? named(meta.number(`${KEY}eos_token_id`) ?? defaults.eosId) : [];
  if (begin.length + end.length === 0) return null;
  const of = (type: number, names: readonly string[]): Json[] => names.map((id) => ({ SpecialToken: { id, type_id: type } }));
  const single = [...of(0, begin), sequenceA, ...of(0, end)];
  return {
    type: 'TemplateProcessing',
    single,
    pair: [...single, ...of(1, begin), sequenceB(1), ...of(1, end)],
    special_tokens: specialTokens([...begin, ...end], tokens),
  };
}

function specialTokens(names: readonly string[], tokens: readonly string[]): Json {
  const out = Object.create(null) as Record<string, Json>;
  for (const id of names) out[id] = { id, ids: [tokens.indexOf(id)], tokens: [id] };
  return out;
}

/** `a b` at the first space that does not begin it; a merge of tokens that are not there would make the whole file unreadable for the library. */
function mergePairs(merges: readonly string[], ids: ReadonlyMap<string, number>): [string, string][] {
  return merges.flatMap((m): [string, string][] => {
    const at = m.indexOf(' ', 1);
    const [a, b] = [m.slice(0, at), m.slice(at + 1)];
    return at > 0 && ids.has(a) && ids.has(b) && ids.has(a + b) ? [[a, b]] : [];
  });
}

function byteLevelBpe(meta: GgufMetadata): Json {
  const vocab = vocabulary(meta, (t) => t);
  const rule = preTokenizerRule(meta.string(`${KEY}pre`) ?? DEFAULT_PRE)!;
  const key = `${KEY}merges`;
  return assemble({
    added: addedTokens(vocab),
    normalizer: null,
    pre: rule.json,
    post: template(meta, vocab, { bos: rule.addBos === true }),
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: '',
      end_of_word_suffix: '',
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: rule.ignoreMerges === true,
      vocab: idsObject(vocab.ids),
      merges: mergePairs(required(meta, key, meta.strings(key), 'an array of strings'), vocab.ids),
    },
  });
}

/**
 * The merges that a SentencePiece vocabulary implies: a token may come of any two tokens that make it, the best score first
 * (transformers, `generate_merges`).
 */
function impliedMerges({ tokens, ids }: Vocabulary, score: (id: number) => number): [string, string][] {
  const found: { readonly a: string; readonly b: string; readonly score: number; readonly la: number; readonly lb: number }[] = [];
  tokens.forEach((token, id) => {
    // as many UTF-16 units at most, so that a long token costs nothing
    if (token.length > MAX_MERGED) return;
    const characters = Array.from(token);
    const local: (typeof found)[number][] = [];
    for (let n = 1, at = 0; n < characters.length; n++) {
      at += characters[n - 1]!.length;
      const [a, b] = [token.slice(0, at), token.slice(at)];
      if (ids.has(a) && ids.has(b)) local.push({ a, b, score: score(id), la: n, lb: characters.length - n });
    }
    local.sort((x, y) => ids.get(x.a)! - ids.get(y.a)! || ids.get(x.b)! - ids.get(y.b)!);
    found.push(...local);
  });
  found.sort((x, y) => y.score - x.score || y.la - x.la || y.lb - x.lb);
  return found.map(({ a, b }) => [a, b]);
}

/** Architectures whose tokens of several spaces are stored as spaces, and whose merges follow the order of the tokens, not their scores. */
const GEMMA = /^gemma\d?$/;
const SPACES = /^ {2,}$/;

function sentencePiece(meta: GgufMetadata): Json {
  const gemma = GEMMA.test(meta.string('general.architecture') ?? '');
  const vocab = vocabulary(meta, (t) => (gemma && SPACES.test(t) ? SPACE.repeat(t.length) : t));
  const scores = meta.numbers(`${KEY}scores`) ?? [];
  if (scores.length < vocab.tokens.length && !meta.has(`${KEY}merges`)) {
    throw new PithError('GGUF_FIELD', { file: meta.path, key: `${KEY}scores`, expected: `${vocab.tokens.length} numbers`, got: scores.length });
  }
  const merges = meta.strings(`${KEY}merges`);
  const unknown = vocab.tokens[meta.number(`${KEY}unknown_token_id`) ?? 0] ?? null;
  const prefix = meta.boolean(`${KEY}add_space_prefix`) ?? !gemma;
  const replace = { type: 'Replace', pattern: { String: ' ' }, content: SPACE };
  const decoders = [{ type: 'Replace', pattern: { String: SPACE }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }];
  return assemble({
    added: addedTokens(vocab, (t) => !(gemma && t.startsWith(SPACE + SPACE))),
    normalizer: prefix ? { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: SPACE }, replace] } : replace,
    pre: null,
    post: template(meta, vocab, { bos: true, bosId: 1, eosId: 2 }),
    decoder: { type: 'Sequence', decoders: prefix ? [...decoders, { type: 'Strip', content: ' ', start: 1, stop: 0 }] : decoders },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: unknown,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: idsObject(vocab.ids),
      merges: merges === undefined ? impliedMerges(vocab, (id) => (gemma ? -id : scores[id]!)) : mergePairs(merges, vocab.ids),
    },
  });
}

/** Words begin with the space mark in the file and continue without; transformers writes it the other way: `##` for what continues. */
function wordPiece(meta: GgufMetadata): Json {
  const vocab = vocabulary(meta, (t, type) => (type === CONTROL || type === UNKNOWN ? t : t.startsWith(SPACE) ? t.slice(1) : `##${t}`));
  const { tokens, types } = vocab;
  const id = (name: string, otherwise: number): number => meta.number(`${KEY}${name}_token_id`) ?? otherwise;
  // llama.cpp's own numbers where the file has none
  const [begin, end, unknown] = [id('bos', 101), id('seperator', 102), id('unknown', 100)].map((i) => tokens[i]);
  // capitals are in no word of a vocabulary whose text is lower-cased
  const cased = tokens.some((t, i) => types[i] !== CONTROL && /^(##)?[A-Z]/.test(t));
  const special = (name: string, type: number): Json => ({ SpecialToken: { id: name, type_id: type } });
  const post =
    begin === undefined || end === undefined
      ? null
      : {
          type: 'TemplateProcessing',
          single: [special(begin, 0), sequenceA, special(end, 0)],
          pair: [special(begin, 0), sequenceA, special(end, 0), sequenceB(1), special(end, 1)],
          special_tokens: specialTokens([begin, end], tokens),
        };
  return assemble({
    added: addedTokens(vocab),
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: meta.boolean(`${KEY}normalizer.strip_accents`) ?? null,
      lowercase: meta.boolean(`${KEY}normalizer.lowercase`) ?? !cased,
    },
    pre: { type: 'BertPreTokenizer' },
    post,
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    model: { type: 'WordPiece', unk_token: unknown ?? '[UNK]', continuing_subword_prefix: '##', max_input_chars_per_word: 100, vocab: idsObject(vocab.ids) },
  });
}

/** tokenizer_config.json. */
export function tokenizerConfigOf(meta: GgufMetadata): Json {
  const bert = meta.string(`${KEY}model`) === 'bert';
  const tokens = meta.strings(`${KEY}tokens`) ?? [];
  const named = (field: string, key: string): Json => {
    const id = meta.number(`${KEY}${key}_token_id`);
    const token = id === undefined ? undefined : tokens[id];
    return token === undefined ? {} : { [field]: token };
  };
  const flag = (key: string): Json => {
    const value = meta.boolean(`${KEY}${key}`);
    return value === undefined ? {} : { [key]: value };
  };
  const chat = meta.string('tokenizer.chat_template');
  const length = meta.number(`${meta.string('general.architecture') ?? ''}.context_length`);
  return {
    tokenizer_class: bert ? 'BertTokenizer' : 'PreTrainedTokenizerFast',
    ...(bert ? named('cls_token', 'bos') : named('bos_token', 'bos')),
    ...(bert ? named('sep_token', 'seperator') : named('eos_token', 'eos')),
    ...named('unk_token', 'unknown'),
    ...named('pad_token', 'padding'),
    ...named('mask_token', 'mask'),
    ...flag('add_bos_token'),
    ...flag('add_eos_token'),
    clean_up_tokenization_spaces: false,
    ...(length === undefined ? {} : { model_max_length: length }),
    ...(chat === undefined ? {} : { chat_template: chat }),
  };
}
