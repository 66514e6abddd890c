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

/** Heads of the queries and of the keys and values of every layer. */
export function headCounts(meta: GgufMetadata, architecture: string): { readonly heads: number; readonly kvHeads: number } {
  const heads = requiredNumber(meta, `${architecture}.attention.head_count`);
  const kvHeads = meta.number(`${architecture}.attention.head_count_kv`) ?? heads;
  for (const [key, n] of [
    ['head_count', heads],
    ['head_count_kv', kvHeads],
  ] as const) {
    if (!Number.isInteger(n) || n < 1)
      throw new PithError('GGUF_FIELD', { file: meta.path, key: `${architecture}.attention.${key}`, expected: 'a count', got: n });
  }
  return { heads, kvHeads };
}

/** An f32 value as the shortest decimal that gives it: 1e-5, not 9.999999747378752e-6. */
export function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return short;
  }
  return value;
}
