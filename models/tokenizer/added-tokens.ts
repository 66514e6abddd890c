/**
 * Added tokens are found in the text before anything else, the longest at the leftmost place; rules of Hugging Face tokenizers 0.23
 * (tokenizers/src/tokenizer/added_vocabulary.rs).
 */
import type { AddedTokenConfig } from './schema.js';
import { SPACE, trimEnd, WORD } from './unicode.js';

/** A token that was found, or text between two. */
export type Section = { readonly id: number } | { readonly text: string; readonly first: boolean };

interface Node {
  token?: AddedTokenConfig;
  readonly next: Map<number, Node>;
}

const STARTS_WITH_WORD = new RegExp(`^[${WORD}]`, 'u');
const ENDS_WITH_WORD = new RegExp(`[${WORD}]$`, 'u');
const LEADING_SPACE = new RegExp(`${SPACE}*`, 'uy');

export class AddedTokenMatcher {
  readonly #root: Node = { next: new Map() };
  readonly size: number;

  /** `patterns`: what stands in the text for each token. */
  constructor(patterns: readonly (readonly [pattern: string, token: AddedTokenConfig])[]) {
    this.size = patterns.length;
    for (const [pattern, token] of patterns) {
      let node = this.#root;
      for (let i = 0; i < pattern.length; i++) {
        const unit = pattern.charCodeAt(i);
        let child = node.next.get(unit);
        if (child === undefined) node.next.set(unit, (child = { next: new Map() }));
        node = child;
      }
      node.token = token;
    }
  }

  /** The longest token at `at`, and where it ends. */
  #match(text: string, at: number): { token: AddedTokenConfig; end: number } | undefined {
    let node = this.#root.next.get(text.charCodeAt(at));
    let found: { token: AddedTokenConfig; end: number } | undefined;
    for (let end = at + 1; node !== undefined; end++) {
      if (node.token !== undefined) found = { token: node.token, end };
      node = end < text.length ? node.next.get(text.charCodeAt(end)) : undefined;
    }
    return found;
  }

  /** `parseSpecial` false: special tokens in the text are text. */
  split(text: string, first: boolean, parseSpecial: boolean): Section[] {
    if (this.size === 0) return [{ text, first }];
    const out: Section[] = [];
    let done = 0;
    const upTo = (end: number): void => {
      if (end > done) out.push({ text: text.slice(done, end), first: first && done === 0 });
    };
    for (let at = 0; at < text.length;) {
      const found = this.#match(text, at);
      if (found === undefined) {
        at++;
        continue;
      }
      const { token, end } = found;
      if ((parseSpecial || !token.special) && (!token.single_word || standsAlone(text, at, end))) {
        upTo(token.lstrip ? Math.max(done, trimEnd(text.slice(done, at)).length + done) : at);
        out.push({ id: token.id });
        done = token.rstrip ? endOfSpace(text, end) : end;
      }
      at = end;
    }
    upTo(text.length);
    return out;
  }
}

function standsAlone(text: string, begin: number, end: number): boolean {
  // two units hold any character
  return !ENDS_WITH_WORD.test(text.slice(Math.max(0, begin - 2), begin)) && !STARTS_WITH_WORD.test(text.slice(end, end + 2));
}

function endOfSpace(text: string, from: number): number {
  LEADING_SPACE.lastIndex = from;
  return from + (LEADING_SPACE.exec(text)?.[0].length ?? 0);
}
