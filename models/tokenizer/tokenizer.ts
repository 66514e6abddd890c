/**
 * A model's tokenizer from its tokenizer.json and what stands beside it: text -> ids as transformers' fast tokenizers give them, and back.
 *
 * The steps (added tokens, normalizer, pre-tokenizer, model, post-processor, decoder) follow Hugging Face tokenizers 0.23; the models and the
 * translation of expressions are those of @huggingface/tokenizers. The other steps are here because that package's differ from the Rust ones
 * where text is out of the ordinary (digits and spaces of other scripts, CJK beyond the first plane, unknown characters, broken UTF-8).
 * tokenizer.json decides over `add_bos_token`, `add_eos_token` and the tokenizer's class, as in transformers 5.
 */
import { PithError } from '../../core/errors.js';
import type { Message } from '../../core/text-row.js';
import { AddedTokenMatcher } from './added-tokens.js';
import { ChatTemplate, type RenderOptions } from './chat-template.js';
import { createDecoder, type Decode } from './decoders.js';
import { createNormalizer, type Normalize } from './normalizers.js';
import { surroundOf, type Surround } from './post-processor.js';
import { createPreTokenizer, wholeText, type PreTokenize } from './pre-tokenizers.js';
import { parseTokenizerConfig, parseTokenizerJson, type TokenizerConfigJson } from './schema.js';
import { addedTokens, specialTokens, SPECIAL_NAMES, type SpecialName, type SpecialTokens } from './special-tokens.js';
import { createWordModel, type WordModel } from './word-model.js';

/** Parsed JSON of a model's folder; what is missing there is left out. */
export interface TokenizerFiles {
  /** The folder or file that errors name. */
  readonly source: string;
  readonly tokenizer: unknown;
  readonly config?: unknown;
  readonly specialTokensMap?: unknown;
  readonly generationConfig?: unknown;
  /** chat_template.jinja; it comes before the configuration's. */
  readonly chatTemplate?: string;
}

export interface EncodeOptions {
  /** Adds what the post-processor adds around a text (BOS, CLS, ...); true by default. */
  readonly addSpecial?: boolean;
  /** False: special tokens written out in the text are text, as llama.cpp's perplexity reads it; true by default. */
  readonly parseSpecial?: boolean;
}

export type SpecialIds = Readonly<Partial<Record<SpecialName, number>>>;

export class Tokenizer {
  readonly source: string;
  /** Ids of the named special tokens, as far as the model has them. */
  readonly special: SpecialIds;
  readonly specialText: SpecialTokens['named'];
  /** Ids that end a generation: generation_config.json's, or the tokenizer's. */
  readonly eosIds: readonly number[];
  /** Tokens of the model and added ones: transformers' len(tokenizer). */
  readonly vocabSize: number;
  /** The largest id; a model's embedding has at least `maxId + 1` rows. */
  readonly maxId: number;
  /** Ids that `addSpecial` puts before and after a text. */
  readonly surround: Surround;

  readonly #model: WordModel;
  readonly #normalize: Normalize | undefined;
  readonly #preTokenize: PreTokenize;
  readonly #decode: Decode | undefined;
  readonly #tidy: boolean;
  /** Tokens as they are decoded, by id. */
  readonly #added = new Map<number, string>();
  readonly #addedIds = new Map<string, number>();
  readonly #specialIds = new Set<number>();
  readonly #raw: AddedTokenMatcher;
  readonly #normalized: AddedTokenMatcher;
  readonly #templates: Readonly<Record<string, string>>;
  readonly #chats = new Map<string, ChatTemplate>();

  /** TOKENIZER_MALFORMED, TOKENIZER_UNSUPPORTED (65). */
  constructor(files: TokenizerFiles) {
    const file = (this.source = files.source);
    const json = parseTokenizerJson(files.tokenizer, file);
    const config = parseTokenizerConfig(files.config, file);
    const map = typeof files.specialTokensMap === 'object' ? (files.specialTokensMap as Record<string, unknown> | null) : undefined;
    const special = specialTokens(config, map ?? undefined);
    this.#model = createWordModel(json.model, file);
    this.#normalize = json.normalizer ? createNormalizer(json.normalizer, file) : undefined;
    this.#preTokenize = json.pre_tokenizer ? createPreTokenizer(json.pre_tokenizer, file) : wholeText;
    this.#decode = json.decoder ? createDecoder(json.decoder, file) : undefined;
    this.surround = json.post_processor ? surroundOf(json.post_processor, file) : { before: [], after: [] };
    // the tidying is WordPiece's; transformers leaves BPE text alone
    this.#tidy = config.clean_up_tokenization_spaces === true && this.#model.type !== 'BPE';
    const added = addedTokens(json.added_tokens ?? [], config, special, this.#model.ids);
    const patterns = added.map((t) => [t.normalized && this.#normalize ? this.#normalize(t.content) : t.content, t] as const);
    for (const [pattern, t] of patterns) {
      this.#added.set(t.id, pattern);
      this.#addedIds.set(t.content, t.id);
      if (t.special) this.#specialIds.add(t.id);
    }
    this.#raw = new AddedTokenMatcher(patterns.filter(([, t]) => !t.normalized));
    this.#normalized = new AddedTokenMatcher(patterns.filter(([pattern, t]) => t.normalized && pattern !== ''));
    this.specialText = special.named;
    this.special = Object.fromEntries(SPECIAL_NAMES.map((name) => [name, this.idOf(special.named[name] ?? '')] as const).filter(([, id]) => id !== undefined));
    this.#templates = templates(config, files.chatTemplate);
    this.eosIds = eosIds(files.generationConfig) ?? (this.special.eos === undefined ? [] : [this.special.eos]);
    this.vocabSize = this.#model.ids.size + [...this.#addedIds.keys()].filter((t) => !this.#model.ids.has(t)).length;
    this.maxId = Math.max(this.#model.tokens.length - 1, ...this.#added.keys());
  }

  /** Text -> ids. Halves of surrogate pairs become U+FFFD. */
  encode(text: string, options: EncodeOptions = {}): Int32Array {
    const { addSpecial = true, parseSpecial = true } = options;
    const ids: number[] = addSpecial ? [...this.surround.before] : [];
    const word = (w: string): void => {
      for (const id of this.#model.encode(w)) ids.push(id);
    };
    for (const section of this.#raw.split(text.toWellFormed(), true, parseSpecial)) {
      if ('id' in section) {
        ids.push(section.id);
        continue;
      }
      const normal = this.#normalize === undefined ? section.text : this.#normalize(section.text);
      for (const part of this.#normalized.split(normal, section.first, parseSpecial)) {
        if ('id' in part) ids.push(part.id);
        else this.#preTokenize(part.text, part.first, word);
      }
    }
    if (addSpecial) ids.push(...this.surround.after);
    return Int32Array.from(ids);
  }

  /** Ids -> text; ids without a token are left out. */
  decode(ids: Iterable<number>, options: { readonly skipSpecial?: boolean } = {}): string {
    const tokens: string[] = [];
    for (const id of ids) {
      const token = this.#added.get(id) ?? this.#model.tokens[id];
      if (token !== undefined && !(options.skipSpecial === true && this.#specialIds.has(id))) tokens.push(token);
    }
    const text = this.#decode === undefined ? tokens.join(' ') : this.#decode(tokens).join('');
    return this.#tidy ? tidy(text) : text;
  }

  idOf(token: string): number | undefined {
    return this.#addedIds.get(token) ?? this.#model.ids.get(token);
  }

  tokenOf(id: number): string | undefined {
    return this.#added.get(id) ?? this.#model.tokens[id];
  }

  isSpecial(id: number): boolean {
    return this.#specialIds.has(id);
  }

  get hasChatTemplate(): boolean {
    return Object.keys(this.#templates).length > 0;
  }

  /** The chat template of that name; CHAT_TEMPLATE (65) when there is none or it is not valid. */
  chat(name = 'default'): ChatTemplate {
    const known = this.#chats.get(name);
    if (known !== undefined) return known;
    const source = this.#templates[name];
    if (source === undefined)
      throw new PithError('CHAT_TEMPLATE', { file: this.source, message: `the tokenizer has none${name === 'default' ? '' : ` named "${name}"`}` });
    const special = Object.fromEntries(Object.entries(this.specialText).map(([n, text]) => [`${n}_token`, text]));
    const chat = new ChatTemplate(source, special, this.source);
    this.#chats.set(name, chat);
    return chat;
  }

  /** The conversation as the model's chat template writes it; encode it with `addSpecial: false`. */
  applyChatTemplate(messages: readonly Message[], options: RenderOptions = {}): string {
    return this.chat().render(messages, options).text;
  }

  /** The id of a special token that the caller cannot do without: TOKENIZER_TOKEN (65) when the model has none. */
  required(name: SpecialName): number {
    const id = this.special[name];
    if (id === undefined) throw new PithError('TOKENIZER_TOKEN', { file: this.source, token: `${name}_token` });
    return id;
  }
}

function templates(config: TokenizerConfigJson, own: string | undefined): Readonly<Record<string, string>> {
  const declared = config.chat_template ?? [];
  const named = typeof declared === 'string' ? { default: declared } : Object.fromEntries(declared.map((t) => [t.name, t.template]));
  return own === undefined ? named : { ...named, default: own };
}

function eosIds(generationConfig: unknown): readonly number[] | undefined {
  const value = typeof generationConfig === 'object' && generationConfig !== null ? (generationConfig as Record<string, unknown>)['eos_token_id'] : undefined;
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  const ids = list.filter((id) => typeof id === 'number' && Number.isInteger(id)) as number[];
  return ids.length === 0 ? undefined : ids;
}

/** transformers' clean_up_tokenization, one rule after another over the whole text. */
function tidy(text: string): string {
  return [/ (\.)/g, / (\?)/g, / (!)/g, / (,)/g, / (') /g, / (n't)/g, / ('m)/g, / ('s)/g, / ('ve)/g, / ('re)/g].reduce((t, rule) => t.replace(rule, '$1'), text);
}
