/** Normalizers of tokenizer.json as functions of text; rules of Hugging Face tokenizers 0.23 (tokenizers/src/normalizers). */
import { toByteLetters } from './byte-level.js';
import { CharsMap } from './precompiled.js';
import { toRegExp } from './regex.js';
import type { NormalizerConfig } from './schema.js';
import { SPACE, trimEnd, trimStart } from './unicode.js';

export type Normalize = (text: string) => string;

const ANY_SPACE = new RegExp(SPACE, 'gu');
/** Control, format and private-use characters but the ASCII line ends and the tab, NUL and U+FFFD. */
const UNCLEAN = /[\p{Cc}\p{Cf}\p{Co}\ufffd]/gu;
/** CJK ideographs, the ranges of BERT's tokenization.py (U+2B820 left out as in Rust). */
const IDEOGRAPH = /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;
// eslint-disable-next-line no-control-regex
const NMT_DROPPED = /[\u0001-\u0008\u000b\u000e-\u001f\u007f\u008f\u009f]/g;
const NMT_SPACE = /[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]/g;

/** Character by character: a capital sigma at a word's end has no rule of its own here. */
const lowercase = (text: string): string => (text.includes('\u03a3') ? Array.from(text, (c) => c.toLowerCase()).join('') : text.toLowerCase());

function bert(config: Extract<NormalizerConfig, { type: 'BertNormalizer' }>): Normalize {
  const stripAccents = config.strip_accents ?? config.lowercase;
  return (text) => {
    let t = text;
    if (config.clean_text) t = t.replace(UNCLEAN, (c) => (c === '\t' || c === '\n' || c === '\r' ? c : '')).replace(ANY_SPACE, ' ');
    if (config.handle_chinese_chars) t = t.replace(IDEOGRAPH, ' $& ');
    if (stripAccents) t = t.normalize('NFD').replace(/\p{Mn}/gu, '');
    return config.lowercase ? lowercase(t) : t;
  };
}

export function createNormalizer(config: NormalizerConfig, file: string): Normalize {
  switch (config.type) {
    case 'Sequence': {
      const parts = config.normalizers.map((n) => createNormalizer(n, file));
      return (text) => parts.reduce((t, f) => f(t), text);
    }
    case 'BertNormalizer':
      return bert(config);
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD':
      return (text) => text.normalize(config.type);
    case 'Nmt':
      return (text) => text.replace(NMT_DROPPED, '').replace(NMT_SPACE, ' ');
    case 'Lowercase':
      return lowercase;
    case 'StripAccents':
      return (text) => text.replace(/\p{M}/gu, '');
    case 'ByteLevel':
      return toByteLetters;
    case 'Strip':
      return (text) => {
        const t = config.strip_left ? trimStart(text) : text;
        return config.strip_right ? trimEnd(t) : t;
      };
    case 'Prepend':
      return (text) => (text === '' ? text : config.prepend + text);
    case 'Replace': {
      const pattern = toRegExp(config.pattern, file);
      return (text) => text.replace(pattern, () => config.content);
    }
    case 'Precompiled': {
      if (config.precompiled_charsmap === null) return (text) => text;
      const map = new CharsMap(config.precompiled_charsmap, file);
      return (text) => map.normalize(text);
    }
  }
}
