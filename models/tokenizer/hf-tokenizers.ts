/**
 * What pith uses of @huggingface/tokenizers, with its types: the package's own declarations leave out file extensions, so TypeScript does not
 * find them for an ES module under NodeNext.
 */
import * as hf from '@huggingface/tokenizers';

type Config = Readonly<Record<string, unknown>>;

export interface BpeModel {
  readonly ignore_merges: boolean;
  readonly tokens_to_ids: ReadonlyMap<string, number>;
  /** A word -> its pieces; a character that no token has is a piece of its own. */
  bpe(word: string): readonly string[];
}
export interface WordPieceModel {
  encode(words: readonly string[]): readonly string[];
}
/** Words -> pieces; unknown characters next to each other are one. */
export type UnigramModel = (words: readonly string[]) => readonly string[];

interface Parts {
  readonly BPE: new (config: Config) => BpeModel;
  readonly WordPiece: new (config: Config) => WordPieceModel;
  readonly Unigram: new (config: Config, eosToken: string) => UnigramModel;
  readonly SplitPreTokenizer: new (config: Config) => { readonly pattern: RegExp | null };
}

export const { BPE, WordPiece, Unigram, SplitPreTokenizer } = hf as unknown as Parts;
