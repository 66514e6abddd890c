/**
 * Cuts a long word where no token can lie across, so that encoding the parts one by one gives the ids of the whole.
 *
 * A merge of BPE, or a piece of Unigram, is a token of the vocabulary. If two neighbouring characters `ab` are next to each other in no token,
 * no merge ever joins them and no piece spans them: the two sides do not see each other, and a cut between `a` and `b` changes nothing. Both
 * must be tokens themselves, so that no unknown characters, which are fused, meet at the cut. Tokenizers without a pre-tokenizer (Llama 2,
 * Gemma) hand the model a whole text as one word; its time and memory then grow with the parts, not with the text.
 */

/** Words up to this many UTF-16 units stay whole. */
const WHOLE = 1024;

export class WordCutter {
  #pairs: Set<string> | undefined;

  constructor(
    private readonly ids: ReadonlyMap<string, number>,
    private readonly whole = WHOLE,
  ) {}

  /** Every two characters that stand side by side in some token; made at the first long word. */
  #neighbours(): Set<string> {
    if (this.#pairs === undefined) {
      this.#pairs = new Set();
      for (const token of this.ids.keys()) {
        let before: string | undefined;
        for (const c of token) {
          if (before !== undefined) this.#pairs.add(before + c);
          before = c;
        }
      }
    }
    return this.#pairs;
  }

  cut(word: string): string[] {
    if (word.length <= this.whole) return [word];
    const pairs = this.#neighbours();
    const parts: string[] = [];
    let begin = 0;
    let at = 0;
    let before = '';
    for (const c of word) {
      if (at - begin >= this.whole && !pairs.has(before + c) && this.ids.has(before) && this.ids.has(c)) {
        parts.push(word.slice(begin, at));
        begin = at;
      }
      at += c.length;
      before = c;
    }
    parts.push(word.slice(begin));
    return parts;
  }
}
