/** config.json -> checked values: the schemas' parts and the one error, which names file, key, expected and got. */
import * as z from 'zod';
import { PithError } from '../../core/errors.js';
import { activationKind, ACTIVATION_NAMES, type ActivationKind } from '../../kernels/nn/activations.js';

/** A config document, and where it came from. */
export interface ConfigSource {
  readonly file: string;
  readonly document: Readonly<Record<string, unknown>>;
  /** Keys that lead to `document` inside the file, each with a dot after it. */
  readonly at: string;
}

const GOT_LENGTH = 80;

/** MODEL_CONFIG about a key of the source; `got` is what the file has there unless it is given. */
export function configError(source: ConfigSource, key: string, expected: string, got: unknown = valueAt(source.document, key.split('.'))): PithError {
  const text = got === undefined ? 'nothing' : JSON.stringify(got);
  return new PithError('MODEL_CONFIG', {
    file: source.file,
    key: source.at + key,
    expected,
    got: text.length > GOT_LENGTH ? `${text.slice(0, GOT_LENGTH)}...` : text,
  });
}

function valueAt(document: unknown, path: readonly PropertyKey[]): unknown {
  let value = document;
  for (const key of path) value = typeof value === 'object' && value !== null ? (value as Record<PropertyKey, unknown>)[key] : undefined;
  return value;
}

/** The document under a schema whose messages say what is expected. */
export function readConfig<T>(source: ConfigSource, schema: z.ZodType<T>): T {
  const parsed = schema.safeParse(source.document);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw configError(source, issue.path.join('.'), issue.message, valueAt(source.document, issue.path));
}

// The messages are what an error says is expected.
const positiveInteger = 'a positive integer';
const finiteNumber = 'a number';
const positiveNumber = 'a positive number';

export const size = z.int(positiveInteger).positive(positiveInteger);
export const count = z.int('an integer from 0 on').nonnegative('an integer from 0 on');
export const number = z.number(finiteNumber);
export const positive = z.number(positiveNumber).positive(positiveNumber);
export const flag = z.boolean('true or false');
export const text = z.string('a string');
export const activation = z
  .string(`an activation: ${ACTIVATION_NAMES.join(', ')}`)
  .refine((name) => activationKind(name) !== undefined, `an activation: ${ACTIVATION_NAMES.join(', ')}`)
  .transform((name): ActivationKind => activationKind(name)!);
export const dictionary = z.record(z.string(), z.unknown(), 'an object');

/** Keys that every config has, under the names of both generations. */
export const commonKeys = {
  architectures: z.array(text, 'a list of strings').nullish(),
  dtype: z.unknown().optional(),
  torch_dtype: z.unknown().optional(),
  tie_word_embeddings: flag.nullish(),
};

type Common = z.infer<z.ZodObject<typeof commonKeys>>;

/** Fields of BaseConfig that come from the common keys. */
export function commonFields(c: Common): { architecture?: string; dtype?: string } {
  const dtype = c.dtype ?? c.torch_dtype;
  const architecture = c.architectures?.[0];
  return {
    ...(architecture === undefined ? {} : { architecture }),
    // some files write torch.float16
    ...(typeof dtype === 'string' ? { dtype: dtype.replace(/^torch\./, '') } : {}),
  };
}

/** Channels of a head where heads share the width evenly. */
export function evenHeads(source: ConfigSource, hidden: number, heads: number, key: string): number {
  if (hidden % heads !== 0) throw configError(source, key, `a divisor of the width ${hidden}`);
  return hidden / heads;
}

/** Keys of what is not built here: any other value than those named would give a different graph. */
export function refuse(source: ConfigSource, key: string, expected: string, allowed: readonly unknown[]): void {
  const value = source.document[key];
  if (value !== undefined && value !== null && !allowed.includes(value)) throw configError(source, key, expected);
}
