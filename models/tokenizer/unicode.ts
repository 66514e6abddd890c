/** Classes of characters as Rust and Oniguruma know them, which JavaScript's \s, \w and \d are not. */

/** Rust's char::is_whitespace: U+0085 is in it, U+FEFF is not. */
export const SPACE = '\\p{White_Space}';
/** Python's str.isspace(), for a class: the separators of ASCII are in it. */
export const PYTHON_WHITESPACE = `${SPACE}\\u001c-\\u001f`;
/** Word characters of the regex crate (UTS 18, Annex C). */
export const WORD = '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}';
/** Punctuation as BERT has it: ASCII symbols count. */
export const PUNCTUATION = '\\p{P}!-\\/:-@\\[-`\\{-~';

const LEADING_SPACE = new RegExp(`^${SPACE}+`, 'u');
const TRAILING_SPACE = new RegExp(`${SPACE}$`, 'u');

export const trimStart = (text: string): string => text.replace(LEADING_SPACE, '');

/** Backwards by hand: an expression that looks for trailing space starts anew at every space of the text. */
export function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && TRAILING_SPACE.test(text[end - 1]!)) end--;
  return text.slice(0, end);
}
