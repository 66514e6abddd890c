/**
 * Rows as a model is trained on them: ids, and which of them are targets. A completion is what its prompt does not hold, a conversation is what
 * the assistant says (tokenizer/encode-chat.ts), a text is all of it. Texts and completions end with EOS, as TRL's SFTTrainer has them.
 */
import { PithError } from '../../core/errors.js';
import type { TextRow } from '../../core/text-row.js';
import { encodeChat, tokensBefore } from '../tokenizer/encode-chat.js';
import type { Tokenizer } from '../tokenizer/tokenizer.js';

export interface TrainingOptions {
  /** `completion`: prompts, user and system turns are read but not learnt; the default. `all`: every token is a target. */
  readonly trainOn?: 'completion' | 'all';
  /** EOS after texts and completions, where the model has one and it is not there; true by default. A chat template writes its own. */
  readonly appendEos?: boolean;
}

export interface TrainingRow {
  readonly ids: Int32Array;
  /** (ids) 1 where the token is a target. */
  readonly train: Uint8Array;
  readonly row: TextRow;
}

/** CHAT_TEMPLATE (65) for a conversation that the model has no template for. */
export function encodeTrainingRow(row: TextRow, tokenizer: Tokenizer, options: TrainingOptions = {}): TrainingRow {
  const { trainOn = 'completion', appendEos = true } = options;
  const { ids, train } = encodeBody(row, tokenizer);
  const { eos } = tokenizer.special;
  const ends = row.body.kind !== 'chat' && appendEos && eos !== undefined && ids.at(-1) !== eos;
  const out = {
    ids: ends ? Int32Array.from([...ids, eos]) : ids,
    train: ends ? Uint8Array.from([...train, 1]) : train,
    row,
  };
  if (trainOn === 'all') out.train.fill(1);
  return out;
}

function encodeBody(row: TextRow, tokenizer: Tokenizer): { ids: Int32Array; train: Uint8Array } {
  const { body } = row;
  switch (body.kind) {
    case 'text': {
      const ids = tokenizer.encode(body.text);
      return { ids, train: new Uint8Array(ids.length).fill(1) };
    }
    case 'completion':
      return encodeCompletion(tokenizer, body.prompt, body.completion);
    case 'choices':
      return encodeCompletion(tokenizer, body.query, ` ${body.choices[body.gold]!}`);
    case 'chat': {
      const { tools } = row.fields;
      try {
        return encodeChat(tokenizer, body.messages, tools === undefined ? {} : { variables: { tools } });
      } catch (error) {
        if (!(error instanceof PithError) || error.code !== 'CHAT_TEMPLATE') throw error;
        // the row is what the user can look at
        throw new PithError(
          'CHAT_TEMPLATE',
          { file: tokenizer.source, message: `${row.file}, ${row.place}: ${String(error.details['message'])}` },
          { cause: error },
        );
      }
    }
  }
}

/** Encoded as one text, as it will be read later. A token that holds the prompt's end and the completion's beginning is a target. */
function encodeCompletion(tokenizer: Tokenizer, prompt: string, completion: string): { ids: Int32Array; train: Uint8Array } {
  const text = prompt + completion;
  const ids = tokenizer.encode(text);
  const { count } = tokensBefore(tokenizer, text, ids, prompt.length, true);
  return { ids, train: new Uint8Array(ids.length).fill(1, count) };
}

/** A row as plain text, for perplexity and calibration. */
export function rowText(row: TextRow, tokenizer: Tokenizer): string {
  const { body } = row;
  switch (body.kind) {
    case 'text':
      return body.text;
    case 'completion':
      return body.prompt + body.completion;
    case 'choices':
      return `${body.query} ${body.choices[body.gold]!}`;
    case 'chat':
      return tokenizer.applyChatTemplate(body.messages, row.fields['tools'] === undefined ? {} : { variables: { tools: row.fields['tools'] } });
  }
}

/** All rows as one text, by their own separators or by one for all. */
export function joinRows(rows: Iterable<TextRow>, tokenizer: Tokenizer, separator?: string): string {
  const parts: string[] = [];
  for (const row of rows) parts.push(rowText(row, tokenizer), separator ?? row.separator);
  return parts.slice(0, -1).join('');
}
