/** What the synthesis of a model's names and files needs of a GGUF's metadata, wherever it comes from. */
import { PithError } from '../../core/errors.js';

/** undefined for an absent key; GGUF_FIELD (65) for a value of another type. */
export interface GgufMetadata {
  /** Names the file in errors. */
  readonly path: string;
  has(key: string): boolean;
  string(key: string): string | undefined;
  number(key: string): number | undefined;
  boolean(key: string): boolean | undefined;
  strings(key: string): string[] | undefined;
  numbers(key: string): number[] | undefined;
}

/** GGUF_FIELD (65) when the key is absent. */
export function required<T>(meta: GgufMetadata, key: string, value: T | undefined, expected: string): T {
  if (value !== undefined) return value;
  throw new PithError('GGUF_FIELD', { file: meta.path, key, expected, got: 'no such key' });
}

export const requiredNumber = (meta: GgufMetadata, key: string): number => required(meta, key, meta.number(key), 'a number');

/** More than any model has: what is made for each layer is made for a number that the file just names. */
const MAX_COUNT = 65_536;

/** A number of layers or heads: GGUF_FIELD (65) when it is none. */
function count(meta: GgufMetadata, key: string, n: number): number {
  if (Number.isInteger(n) && n >= 1 && n <= MAX_COUNT) return n;
  throw new PithError('GGUF_FIELD', { file: meta.path, key, expected: `a whole number from 1 to ${MAX_COUNT}`, got: n });
}

export const layerCount = (meta: GgufMetadata, architecture: string): number =>
  count(meta, `${architecture}.block_count`, requiredNumber(meta, `${architecture}.block_count`));

/** Heads of the queries and of the keys and values of every layer. */
export function headCounts(meta: GgufMetadata, architecture: string): { readonly heads: number; readonly kvHeads: number } {
  const [ofQueries, ofKeys] = [`${architecture}.attention.head_count`, `${architecture}.attention.head_count_kv`];
  const heads = count(meta, ofQueries, requiredNumber(meta, ofQueries));
  return { heads, kvHeads: count(meta, ofKeys, meta.number(ofKeys) ?? heads) };
}

/** An f32 value as the shortest decimal that gives it: 1e-5, not 9.999999747378752e-6. */
export function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return short;
  }
  return value;
}
