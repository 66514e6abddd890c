/** GPT-2's alphabet (Radford et al. 2019, encoder.py): every byte as a printable character, so that any text is a string over 256 letters. */

const BYTE_TO_CHAR: readonly string[] = (() => {
  const printable = (b: number): boolean => (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : next++));
})();
const CHAR_TO_BYTE = new Map(BYTE_TO_CHAR.map((c, b) => [c, b]));

const encoder = new TextEncoder();
// a byte order mark is a character like any other
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

export function toByteLetters(text: string): string {
  let out = '';
  for (const b of encoder.encode(text)) out += BYTE_TO_CHAR[b]!;
  return out;
}

/** Tokens over the alphabet -> text; a token with any other letter stands for itself. Broken UTF-8 becomes U+FFFD. */
export function fromByteLetters(tokens: readonly string[]): string {
  const bytes: number[] = [];
  for (const token of tokens) {
    const own = Array.from(token, (c) => CHAR_TO_BYTE.get(c));
    for (const b of own.includes(undefined) ? encoder.encode(token) : own) bytes.push(b!);
  }
  return decoder.decode(Uint8Array.from(bytes));
}

/** Bytes of `<0x0A>` tokens -> text, or undefined when they are no UTF-8. */
export function utf8Text(bytes: readonly number[]): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
  } catch {
    return undefined;
  }
}

/** A character as byte tokens, as SentencePiece's byte fallback names them. */
export const byteTokens = (text: string): string[] => Array.from(encoder.encode(text), (b) => `<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`);
