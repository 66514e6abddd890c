/** What a store writes down, version 1: `docs/formats/store.md` is the normative text. */
import * as z from 'zod';
import { isDType, type DType } from '../../core/dtype.js';
import type { TensorInfo } from '../../core/tensor.js';

export const STORE_VERSION = 1;
/** Objects that must be decoded to get one, itself not counted. */
export const MAX_DEPTH = 8;

/** What goes into an object's hash before its bytes: type and shape belong to the content, the name does not. */
export const contentPrefix = (t: Pick<TensorInfo, 'dtype' | 'shape'>): string => `${t.dtype}\t[${t.shape.join(',')}]\n`;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.int().nonnegative();
const relativePath = z
  .string()
  .min(1)
  // eslint-disable-next-line no-control-regex
  .refine((p) => !/[\\\u0000]|^\/|^[A-Za-z]:/.test(p) && p.split('/').every((c) => c !== '' && c !== '.' && c !== '..'), 'leaves the folder');

export const storeFile = z.object({ format: z.literal('pith-store'), version: z.int().positive(), generator: z.string() });

/** `__metadata__` of an object, its JSON strings parsed. */
export const objectHead = z.strictObject({
  dtype: z.custom<DType>((v) => typeof v === 'string' && isDType(v), 'unknown dtype'),
  shape: z.array(count).max(64),
  coding: z.enum(['lossless', 'deflate']),
  /** Coded against another object; with `rows` only the first rows are common, the others are in `extra.residual`. */
  base: z.strictObject({ object: sha256, rows: count.optional() }).nullable(),
  depth: count.max(MAX_DEPTH),
  /** part name -> SHA-256 of its stored bytes. */
  parts: z.record(z.string(), sha256),
});
export type ObjectHead = z.infer<typeof objectHead>;

/** Names are file names: nothing that a shell or a file system takes for something else. */
export const MODEL_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

export const modelFile = z.strictObject({
  format: z.literal('pith-store-model'),
  version: z.int().positive(),
  generator: z.string(),
  name: z.string().regex(MODEL_NAME),
  /** A bare `.safetensors` file was added, not a folder. */
  single: z.boolean(),
  files: z.array(
    z.strictObject({
      name: relativePath,
      bytes: count,
      headerBytes: count,
      /** Object (U8) of the raw first `headerBytes` bytes. */
      header: sha256,
      /** In the order of the data. */
      tensors: z.array(z.strictObject({ name: z.string(), object: sha256 })),
    }),
  ),
  sideFiles: z.array(z.strictObject({ name: relativePath, bytes: count, object: sha256 })),
});
export type StoredModel = z.infer<typeof modelFile>;
