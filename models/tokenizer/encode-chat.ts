/** A conversation as ids, with a mask of what the assistant says, for training. */
import { PithError } from '../../core/errors.js';
import type { Message } from '../../core/text-row.js';
import type { RenderOptions } from './chat-template.js';
import type { Span } from './jinja.js';
import type { Tokenizer } from './tokenizer.js';

export interface EncodedChat {
  readonly text: string;
  readonly ids: Int32Array;
  /** 1 for tokens that hold any of the assistant's text, its end token among them; 0 for the rest. */
  readonly train: Uint8Array;
}

/**
 * Where the template has `{% generation %}`, that is the assistant's text. Elsewhere it is what an assistant's turn adds to the conversation
 * before it with a generation prompt; CHAT_TEMPLATE (65) when the template renders earlier turns differently later, so that this cannot be told.
 */
export function encodeChat(tokenizer: Tokenizer, messages: readonly Message[], options: RenderOptions = {}): EncodedChat {
  const template = tokenizer.chat();
  const { text, spans } = template.render(messages, options);
  // the template writes the special tokens itself
  const ids = tokenizer.encode(text, { addSpecial: false });
  const train = new Uint8Array(ids.length);
  const found = template.marksGeneration ? spans : turnSpans(tokenizer, messages, text, options);
  for (const [begin, end] of found) {
    if (end > begin) train.fill(1, tokensBefore(tokenizer, text, ids, begin).count, tokensUpTo(tokenizer, text, ids, end));
  }
  return { text, ids, train };
}

function turnSpans(tokenizer: Tokenizer, messages: readonly Message[], text: string, options: RenderOptions): Span[] {
  const template = tokenizer.chat();
  const spans: Span[] = [];
  for (const [i, message] of messages.entries()) {
    if (message.role !== 'assistant') continue;
    if (i === 0) throw unclear(tokenizer, 'the conversation begins with the assistant');
    const before = template.render(messages.slice(0, i), { ...options, addGenerationPrompt: true }).text;
    const after = template.render(messages.slice(0, i + 1), { ...options, addGenerationPrompt: false }).text;
    if (!after.startsWith(before) || !text.startsWith(after)) throw unclear(tokenizer, `turn ${i + 1} changes how the turns before it are rendered`);
    spans.push([before.length, after.length]);
  }
  return spans;
}

const unclear = (tokenizer: Tokenizer, why: string): PithError =>
  new PithError('CHAT_TEMPLATE', { file: tokenizer.source, message: `the assistant's text cannot be told: ${why}; a template with {% generation %} tells it` });

/** How many tokens of the whole lie before `at`; `clean` when none lies across it. */
export function tokensBefore(
  tokenizer: Tokenizer,
  text: string,
  ids: Int32Array,
  at: number,
  addSpecial = false,
): { readonly count: number; readonly clean: boolean } {
  const { before } = tokenizer.surround;
  const prefix = [...(addSpecial ? before : []), ...tokenizer.encode(text.slice(0, at), { addSpecial: false })];
  let count = 0;
  while (count < prefix.length && prefix[count] === ids[count]) count++;
  return { count, clean: count === prefix.length };
}

function tokensUpTo(tokenizer: Tokenizer, text: string, ids: Int32Array, at: number): number {
  const { count, clean } = tokensBefore(tokenizer, text, ids, at);
  return clean ? count : count + 1;
}
