/** Decoders of tokenizer.json: tokens -> text; rules of Hugging Face tokenizers 0.23 (tokenizers/src/decoders). */
import { fromByteLetters, utf8Text } from './byte-level.js';
import { toRegExp } from './regex.js';
import type { DecoderConfig } from './schema.js';

/** Tokens -> parts of the text, to be joined. */
export type Decode = (tokens: readonly string[]) => readonly string[];

const TIDY: readonly (readonly [string, string])[] = [
  [' .', '.'],
  [' ?', '?'],
  [' !', '!'],
  [' ,', ','],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [' do not', " don't"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
];
const tidy = (text: string): string => TIDY.reduce((t, [from, to]) => t.replaceAll(from, to), text);

function byteFallback(tokens: readonly string[]): readonly string[] {
  const out: string[] = [];
  let bytes: number[] = [];
  const flush = (): void => {
    if (bytes.length > 0) out.push(...(utf8Text(bytes) === undefined ? bytes.map(() => '\ufffd') : [utf8Text(bytes)!]));
    bytes = [];
  };
  for (const token of tokens) {
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
    if (byte !== undefined) bytes.push(Number.parseInt(byte, 16));
    else {
      flush();
      out.push(token);
    }
  }
  flush();
  return out;
}

/** Up to `start` and `stop` times `content` off the two ends. */
function strip(token: string, content: string, start: number, stop: number): string {
  const characters = Array.from(token);
  let begin = 0;
  while (begin < start && characters[begin] === content) begin++;
  let end = characters.length;
  while (characters.length - end < stop && end > begin && characters[end - 1] === content) end--;
  return characters.slice(begin, end).join('');
}

export function createDecoder(config: DecoderConfig, file: string): Decode {
  switch (config.type) {
    case 'Sequence': {
      const parts = config.decoders.map((d) => createDecoder(d, file));
      return (tokens) => parts.reduce((all, f) => f(all), tokens);
    }
    case 'ByteLevel':
      return (tokens) => [fromByteLetters(tokens)];
    case 'ByteFallback':
      return byteFallback;
    case 'Fuse':
      return (tokens) => [tokens.join('')];
    case 'Metaspace': {
      const { replacement } = config;
      const prepended = config.add_prefix_space !== false && config.prepend_scheme !== 'never';
      return (tokens) => tokens.map((t, i) => t.replaceAll(replacement, i === 0 && prepended ? '' : ' '));
    }
    case 'WordPiece':
      return (tokens) =>
        tokens.map((t, i) => {
          const text = i === 0 ? t : t.startsWith(config.prefix) ? t.slice(config.prefix.length) : ` ${t}`;
          return config.cleanup ? tidy(text) : text;
        });
    case 'BPEDecoder':
      return (tokens) => tokens.map((t, i) => t.replaceAll(config.suffix, i === tokens.length - 1 ? '' : ' '));
    case 'Strip':
      return (tokens) => tokens.map((t) => strip(t, config.content, config.start, config.stop));
    case 'Replace': {
      const pattern = toRegExp(config.pattern, file);
      return (tokens) => tokens.map((t) => t.replace(pattern, () => config.content));
    }
  }
}
