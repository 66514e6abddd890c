/**
 * Pre-tokenizers of tokenizer.json: text -> the words that the model sees, one after another, so that a long text needs no list of them.
 * Rules of Hugging Face tokenizers 0.23 (tokenizers/src/pre_tokenizers and tokenizer/normalizer.rs).
 */
import { toByteLetters } from './byte-level.js';
import { toRegExp } from './regex.js';
import type { PreTokenizerConfig, SplitBehavior } from './schema.js';
import { PUNCTUATION, SPACE, WORD } from './unicode.js';

/** `first`: it begins where the whole text begins. */
export type Emit = (word: string, first: boolean) => void;
export type PreTokenize = (text: string, first: boolean, emit: Emit) => void;

const expression = (source: string): RegExp => new RegExp(source, 'gu');

/** GPT-2's expression (encoder.py), with the space of Oniguruma. */
const GPT2 = expression(`'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${SPACE}\\p{L}\\p{N}]+|${SPACE}+(?!\\P{White_Space})|${SPACE}+`);
const SPACES = expression(SPACE);
const PUNCTUATIONS = expression(`[${PUNCTUATION}]`);
const WORDS = expression(`[${WORD}]+|[^${WORD}${SPACE}]+`);
const NUMERALS = expression('\\p{N}');

type Join = (begin: number, end: number, match: boolean) => void;

/** Joins parts, given in order, as `behavior` says; `flush` ends them. */
function joiner(behavior: SplitBehavior, out: (begin: number, end: number) => void): { add: Join; flush: () => void } {
  if (behavior === 'Isolated') return { add: out, flush: () => undefined };
  if (behavior === 'Removed') {
    return {
      add: (begin, end, match) => {
        if (!match) out(begin, end);
      },
      flush: () => undefined,
    };
  }
  let held: { begin: number; end: number; match: boolean } | undefined;
  const joins = (before: boolean, match: boolean): boolean => {
    if (behavior === 'Contiguous') return before === match;
    return behavior === 'MergedWithPrevious' ? match && !before : before && !match;
  };
  const flush = (): void => {
    if (held !== undefined) out(held.begin, held.end);
    held = undefined;
  };
  return {
    flush,
    add: (begin, end, match) => {
      if (held !== undefined && joins(held.match, match)) {
        held.end = end;
        if (behavior !== 'Contiguous') {
          flush();
          // a match right after a joined one stands alone, and so does what follows a joined text
          held = behavior === 'MergedWithPrevious' ? { begin: end, end, match } : undefined;
        }
        return;
      }
      flush();
      held = { begin, end, match };
    },
  };
}

/** The parts of the text at matches and between them. Empty parts vanish. */
function split(pattern: RegExp, behavior: SplitBehavior, invert = false): PreTokenize {
  return (text, first, emit) => {
    const parts = joiner(behavior, (begin, end) => {
      if (end > begin) emit(text.slice(begin, end), first && begin === 0);
    });
    let at = 0;
    for (const m of text.matchAll(pattern)) {
      const end = m.index + m[0].length;
      if (m.index > at) parts.add(at, m.index, invert);
      if (end > m.index) parts.add(m.index, end, !invert);
      at = end;
    }
    if (at < text.length) parts.add(at, text.length, invert);
    parts.flush();
  };
}

const then =
  (a: PreTokenize, b: PreTokenize): PreTokenize =>
  (text, first, emit) =>
    a(text, first, (word, f) => b(word, f, emit));

const mapped =
  (a: PreTokenize, change: (word: string) => string): PreTokenize =>
  (text, first, emit) =>
    a(text, first, (word, f) => emit(change(word), f));

const WHOLE: PreTokenize = (text, first, emit) => {
  if (text !== '') emit(text, first);
};

function byteLevel(prefixSpace: boolean, useRegex: boolean): PreTokenize {
  const words = mapped(useRegex ? split(GPT2, 'Isolated') : WHOLE, toByteLetters);
  return prefixSpace ? (text, first, emit) => words(text === '' || text.startsWith(' ') ? text : ` ${text}`, first, emit) : words;
}

function metaspace(config: Extract<PreTokenizerConfig, { type: 'Metaspace' }>): PreTokenize {
  const mark = config.replacement;
  const scheme = config.add_prefix_space === false ? 'never' : (config.prepend_scheme ?? 'always');
  const words = config.split ? split(toRegExp({ String: mark }, ''), 'MergedWithNext') : WHOLE;
  return (text, first, emit) => {
    const t = text.replaceAll(' ', mark);
    const prepend = t !== '' && !t.startsWith(mark) && (scheme === 'always' || (scheme === 'first' && first));
    words(prepend ? mark + t : t, first, emit);
  };
}

/** Text in chunks of `length` characters. */
function chunks(length: number): PreTokenize {
  return (text, first, emit) => {
    const characters = Array.from(text);
    for (let i = 0; i < characters.length; i += length) emit(characters.slice(i, i + length).join(''), first && i === 0);
  };
}

export function createPreTokenizer(config: PreTokenizerConfig, file: string): PreTokenize {
  switch (config.type) {
    case 'Sequence':
      return config.pretokenizers.map((p) => createPreTokenizer(p, file)).reduce(then, WHOLE);
    case 'ByteLevel':
      return byteLevel(config.add_prefix_space, config.use_regex);
    case 'Metaspace':
      return metaspace(config);
    case 'Split':
      return split(toRegExp(config.pattern, file), config.behavior, config.invert);
    case 'Digits':
      return split(NUMERALS, config.individual_digits ? 'Isolated' : 'Contiguous');
    case 'Punctuation':
      return split(PUNCTUATIONS, config.behavior);
    case 'CharDelimiterSplit':
      return split(toRegExp({ String: config.delimiter }, file), 'Removed');
    case 'FixedLength':
      return chunks(config.length);
    case 'BertPreTokenizer':
      return then(split(SPACES, 'Removed'), split(PUNCTUATIONS, 'Isolated'));
    case 'Whitespace':
      return split(WORDS, 'Removed', true);
    case 'WhitespaceSplit':
      return split(SPACES, 'Removed');
  }
}

export const wholeText = WHOLE;
