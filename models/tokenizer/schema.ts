/**
 * What of tokenizer.json and tokenizer_config.json is read, as Hugging Face's tokenizers 0.23 and transformers 5 write them.
 * The vocabulary itself is left to the model: it is too long to be checked entry by entry.
 */
import { z } from 'zod';
import { PithError } from '../../core/errors.js';

const pattern = z.union([z.strictObject({ String: z.string() }), z.strictObject({ Regex: z.string() })]);
export type SplitPattern = z.infer<typeof pattern>;

const BEHAVIORS = ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'] as const;
export type SplitBehavior = (typeof BEHAVIORS)[number];
const behavior = z.enum(BEHAVIORS);

const part = <T extends string, S extends z.ZodRawShape>(type: T, shape: S) => z.object({ type: z.literal(type), ...shape });

export type NormalizerConfig = z.infer<typeof normalizerPart> | { type: 'Sequence'; normalizers: NormalizerConfig[] };
const normalizerPart = z.discriminatedUnion('type', [
  part('BertNormalizer', {
    clean_text: z.boolean().default(true),
    handle_chinese_chars: z.boolean().default(true),
    strip_accents: z.boolean().nullable().default(null),
    lowercase: z.boolean().default(true),
  }),
  part('NFC', {}),
  part('NFD', {}),
  part('NFKC', {}),
  part('NFKD', {}),
  part('Nmt', {}),
  part('Lowercase', {}),
  part('StripAccents', {}),
  part('ByteLevel', {}),
  part('Strip', { strip_left: z.boolean().default(true), strip_right: z.boolean().default(true) }),
  part('Prepend', { prepend: z.string() }),
  part('Replace', { pattern, content: z.string() }),
  part('Precompiled', { precompiled_charsmap: z.string().nullable().default(null) }),
]);
const normalizer: z.ZodType<NormalizerConfig> = z.lazy(() =>
  z.discriminatedUnion('type', [part('Sequence', { normalizers: z.array(normalizer) }), ...normalizerPart.options]),
);

export type PreTokenizerConfig = z.infer<typeof preTokenizerPart> | { type: 'Sequence'; pretokenizers: PreTokenizerConfig[] };
const metaspace = {
  replacement: z.string().length(1).default('\u2581'),
  prepend_scheme: z.enum(['first', 'never', 'always']).optional(),
  add_prefix_space: z.boolean().optional(),
  split: z.boolean().default(true),
};
const preTokenizerPart = z.discriminatedUnion('type', [
  part('ByteLevel', { add_prefix_space: z.boolean().default(true), use_regex: z.boolean().default(true) }),
  part('Metaspace', metaspace),
  part('Split', { pattern, behavior, invert: z.boolean().default(false) }),
  part('Digits', { individual_digits: z.boolean().default(false) }),
  part('Punctuation', { behavior: behavior.default('Isolated') }),
  part('CharDelimiterSplit', { delimiter: z.string() }),
  part('FixedLength', { length: z.int().positive().default(5) }),
  part('BertPreTokenizer', {}),
  part('Whitespace', {}),
  part('WhitespaceSplit', {}),
]);
const preTokenizer: z.ZodType<PreTokenizerConfig> = z.lazy(() =>
  z.discriminatedUnion('type', [part('Sequence', { pretokenizers: z.array(preTokenizer) }), ...preTokenizerPart.options]),
);

export type DecoderConfig = z.infer<typeof decoderPart> | { type: 'Sequence'; decoders: DecoderConfig[] };
const decoderPart = z.discriminatedUnion('type', [
  part('ByteLevel', {}),
  part('Metaspace', metaspace),
  part('WordPiece', { prefix: z.string().default('##'), cleanup: z.boolean().default(true) }),
  part('BPEDecoder', { suffix: z.string().default('</w>') }),
  part('Replace', { pattern, content: z.string() }),
  part('Strip', { content: z.string(), start: z.int().min(0), stop: z.int().min(0) }),
  part('ByteFallback', {}),
  part('Fuse', {}),
]);
const decoder: z.ZodType<DecoderConfig> = z.lazy(() =>
  z.discriminatedUnion('type', [part('Sequence', { decoders: z.array(decoder) }), ...decoderPart.options]),
);

const piece = z.union([z.object({ Sequence: z.object({ id: z.enum(['A', 'B']) }) }), z.object({ SpecialToken: z.object({ id: z.string() }) })]);
const cornered = { sep: z.tuple([z.string(), z.int()]), cls: z.tuple([z.string(), z.int()]) };
export type PostProcessorConfig = z.infer<typeof postProcessorPart> | { type: 'Sequence'; processors: PostProcessorConfig[] };
const postProcessorPart = z.discriminatedUnion('type', [
  part('ByteLevel', {}),
  part('BertProcessing', cornered),
  part('RobertaProcessing', cornered),
  part('TemplateProcessing', {
    single: z.array(piece),
    special_tokens: z.record(z.string(), z.object({ ids: z.array(z.int().min(0)) })),
  }),
]);
const postProcessor: z.ZodType<PostProcessorConfig> = z.lazy(() =>
  z.discriminatedUnion('type', [part('Sequence', { processors: z.array(postProcessor) }), ...postProcessorPart.options]),
);

const addedToken = z.object({
  id: z.int().min(0),
  content: z.string().min(1),
  single_word: z.boolean().default(false),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
  normalized: z.boolean().default(true),
  special: z.boolean().default(false),
});
export type AddedTokenConfig = z.infer<typeof addedToken>;

const model = z.looseObject({
  type: z.enum(['BPE', 'WordPiece', 'Unigram', 'WordLevel']).optional(),
  vocab: z.custom<Readonly<Record<string, number>> | readonly (readonly [string, number])[]>((v) => typeof v === 'object' && v !== null),
  merges: z.custom<readonly string[] | readonly (readonly [string, string])[]>((v) => Array.isArray(v)).optional(),
  unk_token: z.string().nullable().optional(),
  unk_id: z.int().min(0).nullable().optional(),
  continuing_subword_prefix: z.string().nullable().optional(),
  end_of_word_suffix: z.string().nullable().optional(),
  max_input_chars_per_word: z.int().positive().optional(),
  fuse_unk: z.boolean().optional(),
  byte_fallback: z.boolean().optional(),
  ignore_merges: z.boolean().optional(),
});
export type ModelConfigJson = z.infer<typeof model>;

const tokenizerJson = z.object({
  added_tokens: z.array(addedToken).nullish(),
  normalizer: normalizer.nullish(),
  pre_tokenizer: preTokenizer.nullish(),
  post_processor: postProcessor.nullish(),
  decoder: decoder.nullish(),
  model,
});
export type TokenizerJson = z.infer<typeof tokenizerJson>;

const token = z.union([z.string(), z.object({ content: z.string() }).transform((t) => t.content)]);
const namedTemplates = z.array(z.object({ name: z.string(), template: z.string() }));
const tokenizerConfig = z.looseObject({
  chat_template: z.union([z.string(), namedTemplates]).nullish(),
  clean_up_tokenization_spaces: z.boolean().nullish(),
  added_tokens_decoder: z.record(z.string(), z.object({ content: z.string() }).loose()).nullish(),
  additional_special_tokens: z.array(token).nullish(),
  extra_special_tokens: z.union([z.array(token), z.record(z.string(), token)]).nullish(),
});
export type TokenizerConfigJson = z.infer<typeof tokenizerConfig>;

/** TOKENIZER_MALFORMED (65) with the first field that is wrong, TOKENIZER_UNSUPPORTED (65) with the first part of a kind that is not known. */
function parse<T>(schema: z.ZodType<T>, value: unknown, file: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field = issue.path.join('.') || 'document';
  if (issue.code === 'invalid_union' && 'discriminator' in issue) throw new PithError('TOKENIZER_UNSUPPORTED', { file, message: `${field} is not known` });
  throw new PithError('TOKENIZER_MALFORMED', { file, message: `${field}: ${issue.message}` });
}

export const parseTokenizerJson = (value: unknown, file: string): TokenizerJson => parse(tokenizerJson, value, file);
export const parseTokenizerConfig = (value: unknown, file: string): TokenizerConfigJson => parse(tokenizerConfig, value ?? {}, file);
export const tokenText = (value: unknown): string | undefined => token.safeParse(value).data;
