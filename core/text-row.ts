/** Rows of text data, as the readers of files hand them to what makes tokens of them. */

/** One turn of a conversation; what else it holds (tool calls, a name) is for the chat template. */
export interface Message {
  readonly role: string;
  readonly [key: string]: unknown;
}

export type RowBody =
  | { readonly kind: 'text'; readonly text: string }
  /** What follows the prompt is what a model learns. */
  | { readonly kind: 'completion'; readonly prompt: string; readonly completion: string }
  | { readonly kind: 'chat'; readonly messages: readonly Message[] }
  /** One choice is right; each is scored as it would follow the query. */
  | { readonly kind: 'choices'; readonly query: string; readonly choices: readonly string[]; readonly gold: number };

/** The place of a plain text file's only row. */
export const WHOLE_TEXT = 'the text';

export interface TextRow {
  readonly file: string;
  /** Where the row is, for messages: `line 12`, `row 3` or WHOLE_TEXT. */
  readonly place: string;
  readonly body: RowBody;
  /** What stands between this row and the next when rows are joined to one text. */
  readonly separator: string;
  /** The row as it was read: `id`, `weight`, `token_weights`, `tools` and whatever else a recipe takes. */
  readonly fields: Readonly<Record<string, unknown>>;
}
