/**
 * `tokenizer.ggml.pre` -> the pre-tokenizer of tokenizer.json. How text falls apart before the merges is llama.cpp's (`llama-vocab.cpp`,
 * `llm_tokenizer_bpe`): every expression splits the pieces that the one before has left. transformers knows only some of these ids and
 * takes GPT-2's rule for the others, which is wrong for smollm (digits stand alone), falcon or default.
 */

/** One entry of `pretokenizers`. */
export type PreTokenizer = Readonly<Record<string, unknown>>;

interface Rule {
  readonly pieces: readonly PreTokenizer[];
  /** A word that is a token is taken whole, whatever the merges say. */
  readonly ignoreMerges?: true;
  /** A text begins with the BOS token unless the file says otherwise. */
  readonly addBos?: true;
}

const byteLevel = (regex: boolean): PreTokenizer => ({ type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: regex });
const split = (regex: string): PreTokenizer => ({ type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false });
const splits = (...regexes: string[]): Rule => ({ pieces: [...regexes.map(split), byteLevel(false)] });

const CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
const SPACES = '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const words = (numbers: string): string => `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${numbers}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACES}`;
const UPPER = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
const LOWER = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
/** Words that break where lower case turns into upper case. */
const cased = (end: string, numbers: string): string =>
  `[^\\r\\n\\p{L}\\p{N}]?${UPPER}*${LOWER}+${end}|[^\\r\\n\\p{L}\\p{N}]?${UPPER}+${LOWER}*${end}|${numbers}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`;

const gpt2: Rule = { pieces: [byteLevel(true)] };
/** `Digits` of the tokenizers library says the same, but its JavaScript version looks at ASCII digits alone. */
const digits: Rule = { pieces: [split('\\p{N}'), byteLevel(true)] };
const llama3 = splits(words('\\p{N}{1,3}'));
const llama3Bos: Rule = { ...llama3, ignoreMerges: true, addBos: true };
const qwen2 = splits(words('\\p{N}'));
const gpt4o = splits(cased(`${CONTRACTIONS}?`, '\\p{N}{1,3}'));
const deepseek3 = splits(
  '\\p{N}{1,3}',
  '[一-龥\\u3040-\\u309f\\u30a0-\\u30ff]+',
  '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+',
);

/** The rule of several ids. */
const all = (rule: Rule, ids: string): [string, Rule][] => ids.split(' ').map((id) => [id, rule]);

const RULES: ReadonlyMap<string, Rule> = new Map([
  ...all(gpt2, 'gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe gigachat a.x-4.0 mellum modern-bert exaone4'),
  ...all(gpt2, 'mpt olmo jais trillion granite-docling'),
  ...all(digits, 'starcoder refact command-r smollm codeshell exaone minerva-7b mellum2'),
  ...all(llama3Bos, 'llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano'),
  ...all(llama3, 'dbrx smaug-bpe glm4 chatglm-bpe'),
  ...all(qwen2, 'qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez hunyuan solar-open grok-2'),
  ['qwen35', splits(`${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${SPACES}`)],
  ['tekken', { ...splits(cased('', '\\p{N}')), ignoreMerges: true, addBos: true }],
  ...all(gpt4o, 'gpt-4o llama4 kanana2 talkie minimax-m2'),
  ...all(deepseek3, 'deepseek-v3 hunyuan-dense joyai-llm'),
  ['deepseek-coder', splits('[\\r\\n]', '\\s?\\p{L}+', '\\s?\\p{P}+', '[一-龥\\u0800-一\\uac00-\\ud7ff]+', '\\p{N}')],
  ['falcon', splits('[\\p{P}\\$\\+<=>\\^~\\|`]+', GPT2, '[0-9][0-9][0-9]')],
  ['default', splits('[\\p{P}\\$\\+<=>\\^~\\|]+', GPT2, '\\p{N}+', '[0-9][0-9][0-9]')],
]);

/** What a file without the key has. */
export const DEFAULT_PRE = 'default';

/** undefined for an id that is not known: a guess would give wrong tokens without a word. */
export function preTokenizerRule(id: string): (Rule & { readonly json: PreTokenizer }) | undefined {
  const rule = RULES.get(id);
  if (rule === undefined) return undefined;
  const [only] = rule.pieces;
  return { ...rule, json: rule.pieces.length === 1 ? only! : { type: 'Sequence', pretokenizers: rule.pieces } };
}

/** For a test that compares each with llama.cpp. */
export const PRE_TOKENIZER_IDS: readonly string[] = [...RULES.keys()];
