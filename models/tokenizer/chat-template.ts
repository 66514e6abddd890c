/**
 * Chat templates as transformers 5 renders them (utils/chat_template_utils.py): Jinja with trim_blocks and lstrip_blocks, loop controls, `tojson`,
 * `raise_exception`, `strftime_now`, the special tokens by name, and `{% generation %}` around what the assistant says.
 */
import { PithError } from '../../core/errors.js';
import type { Message } from '../../core/text-row.js';
import { JinjaTemplate, type Span } from './jinja.js';

export interface RenderOptions {
  /** Ends with the header of an assistant's turn; false by default. */
  readonly addGenerationPrompt?: boolean;
  /** More variables for the template: `tools`, `documents`, `enable_thinking`, ... */
  readonly variables?: Readonly<Record<string, unknown>>;
  /** What `strftime_now` shows; the time of the call by default. */
  readonly now?: Date;
}

export interface RenderedChat {
  readonly text: string;
  /** What the template calls generated; empty when it does not say. */
  readonly spans: readonly Span[];
}

export class ChatTemplate {
  readonly #template: JinjaTemplate;

  /** CHAT_TEMPLATE (65) when it is not valid. `special`: the template's variables `bos_token`, `eos_token`, ... */
  constructor(
    source: string,
    private readonly special: Readonly<Record<string, string>>,
    private readonly file: string,
  ) {
    this.#template = this.#attempt(() => new JinjaTemplate(source));
  }

  get marksGeneration(): boolean {
    return this.#template.marksGeneration;
  }

  #attempt<T>(run: () => T): T {
    try {
      return run();
    } catch (cause) {
      throw new PithError('CHAT_TEMPLATE', { file: this.file, message: cause instanceof Error ? cause.message : String(cause) }, { cause });
    }
  }

  /** The conversation as text. CHAT_TEMPLATE (65) when the template refuses it. */
  render(messages: readonly Message[], options: RenderOptions = {}): RenderedChat {
    const { addGenerationPrompt = false, variables = {}, now = new Date() } = options;
    const values = {
      tools: null,
      documents: null,
      ...this.special,
      ...(wellFormed(variables) as Record<string, unknown>),
      messages: messages.map(templateMessage),
      add_generation_prompt: addGenerationPrompt,
    };
    return this.#attempt(() => this.#template.render(values, now));
  }
}

const REASONING = ['reasoning_content', 'thinking', 'reasoning'];

/** Fields that are null are left out, and reasoning goes by all the names that templates read, as in transformers. */
function templateMessage(message: Message): Record<string, unknown> {
  const kept = Object.fromEntries(Object.entries(wellFormed(message) as Record<string, unknown>).filter(([, v]) => v !== null));
  const reasoning = REASONING.map((name) => kept[name]).find((v) => v !== undefined);
  return reasoning === undefined ? kept : { thinking: reasoning, ...kept, reasoning_content: reasoning };
}

function wellFormed(value: unknown): unknown {
  if (typeof value === 'string') return value.toWellFormed();
  if (Array.isArray(value)) return value.map(wellFormed);
  if (typeof value === 'object' && value !== null) return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, wellFormed(v)]));
  return value;
}
