/**
 * SentencePiece's normalization rules as its models carry them (`precompiled_charsmap`): a double-array trie of what is replaced, and the
 * replacements one after another, each ended by a zero byte. Layout and look-up: SentencePiece, src/normalizer.cc and third_party/darts_clone;
 * how graphemes are tried first: Hugging Face tokenizers, normalizers/precompiled.rs.
 */
import { PithError } from '../../core/errors.js';

/** Graphemes whose replacement is kept. */
const KNOWN = 4096;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** One unit of the array (Darts-clone): label in bits 0-7 and 31, leaf flag in bit 8, offset in bits 10-30, shifted by bit 9. */
const labelOf = (unit: number): number => unit & ((1 << 31) | 0xff);
const hasLeaf = (unit: number): boolean => ((unit >>> 8) & 1) === 1;
const offsetOf = (unit: number): number => (unit >>> 10) << ((unit & (1 << 9)) >>> 6);
const valueOf = (unit: number): number => unit & 0x7fffffff;

export class CharsMap {
  readonly #units: Uint32Array;
  readonly #replacements: Uint8Array;
  readonly #known = new Map<string, string>();

  constructor(base64: string, file: string) {
    const blob = Buffer.from(base64, 'base64');
    const trieBytes = blob.length >= 4 ? blob.readUInt32LE(0) : blob.length;
    if (trieBytes % 4 !== 0 || trieBytes === 0 || 4 + trieBytes > blob.length) {
      throw new PithError('TOKENIZER_MALFORMED', { file, message: `normalizer.precompiled_charsmap: a trie of ${trieBytes} bytes in ${blob.length}` });
    }
    this.#units = new Uint32Array(trieBytes / 4);
    for (let i = 0; i < this.#units.length; i++) this.#units[i] = blob.readUInt32LE(4 + 4 * i);
    this.#replacements = blob.subarray(4 + trieBytes);
  }

  /** What replaces the shortest prefix of `text` that the rules name (as spm_precompiled does), or undefined. */
  #lookUp(text: string): string | undefined {
    let at = offsetOf(this.#units[0]!);
    for (const byte of encoder.encode(text)) {
      if (byte === 0) break;
      at ^= byte;
      const unit = this.#units[at];
      if (unit === undefined || labelOf(unit) !== byte) return undefined;
      at ^= offsetOf(unit);
      if (!hasLeaf(unit)) continue;
      const begin = valueOf(this.#units[at] ?? 0);
      const end = this.#replacements.indexOf(0, begin);
      return decoder.decode(this.#replacements.subarray(begin, end < 0 ? undefined : end));
    }
    return undefined;
  }

  #grapheme(grapheme: string): string {
    const known = this.#known.get(grapheme);
    if (known !== undefined) return known;
    const whole = encoder.encode(grapheme).length < 6 ? this.#lookUp(grapheme) : undefined;
    const out = whole ?? Array.from(grapheme, (c) => this.#lookUp(c) ?? c).join('');
    if (this.#known.size >= KNOWN) this.#known.clear();
    this.#known.set(grapheme, out);
    return out;
  }

  normalize(text: string): string {
    let out = '';
    for (const grapheme of graphemes(text)) out += this.#grapheme(grapheme);
    return out;
  }
}

/** A run of ASCII, whose graphemes need no look-up, or other text with the ASCII character that it may change. */
// eslint-disable-next-line no-control-regex
const RUNS = /(?<ascii>(?:\r\n|[\0-\x0c\x0e-\x7f]|\r(?!\n))+)(?=[\0-\x7f]|$)|(?:\r\n|[\0-\x7f])?[^\0-\x7f]+/gu;
const JOINLESS = '[\\p{Script=Latin}\\p{Script=Greek}\\p{Script=Cyrillic}\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}]';
/** Between two letters of scripts whose letters never form one grapheme (UAX 29). */
const BETWEEN_LETTERS = new RegExp(`(?<=${JOINLESS})(?<=\\p{L})(?=${JOINLESS})(?=\\p{L})`, 'u');
const segmenter = new Intl.Segmenter('en', { granularity: 'grapheme' });

/** Graphemes of the text. V8's segmenter takes time that grows with the square of the text, so it sees short runs only. */
function* graphemes(text: string): Generator<string> {
  for (const { 0: run, groups } of text.matchAll(RUNS)) {
    if (groups?.['ascii'] !== undefined) for (const [c] of run.matchAll(/\r\n|[^]/g)) yield c;
    else for (const part of run.split(BETWEEN_LETTERS)) for (const { segment } of segmenter.segment(part)) yield segment;
  }
}
