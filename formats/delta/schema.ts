/** The delta file's metadata, versions 1 to 3: `docs/formats/delta.md` is the normative text. */
import * as z from 'zod';
import { isDType, type DType } from '../../core/dtype.js';

/** The latest version that is read, as is every earlier one. */
export const DELTA_VERSION = 3;
/** What files of one layer and of two are written as. */
export const [ONE_LAYER_VERSION, TWO_LAYERS_VERSION] = [2, 3] as const;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const dtype = z.custom<DType>((v) => typeof v === 'string' && isDType(v), 'unknown dtype');
const shape = z.array(z.int().nonnegative()).max(64);
const count = z.int().nonnegative();
/** A path inside the restored folder: `/`-separated, never absolute, never leaving it. */
const relativePath = z
  .string()
  .min(1)
  // eslint-disable-next-line no-control-regex
  .refine((p) => !/[\\\u0000]|^\/|^[A-Za-z]:/.test(p) && p.split('/').every((c) => c !== '' && c !== '.' && c !== '..'), 'leaves the folder');

export const methodEntry = z.strictObject({
  name: z.string(),
  version: z.int().positive(),
  params: z.record(z.string(), z.unknown()),
});

export const tensorEntry = z.strictObject({
  name: z.string(),
  dtype,
  shape,
  /** Index into `methods`, or `identical`: nothing stored, the base's bytes. */
  method: z.union([count, z.literal('identical')]),
  /** What it was coded against; absent: standalone. `rows` is set when only the first rows are common (a grown vocabulary). */
  base: z.strictObject({ sha256, shape: shape.optional(), rows: count.optional() }).optional(),
  /** Of the tuned tensor as it was given. */
  sha256,
  /** Of what restore yields, where that differs (a lossy method). */
  restored: sha256.optional(),
  /** part name -> SHA-256 of its stored bytes. */
  parts: z.record(z.string(), sha256),
  facts: z.record(z.string(), z.union([z.number(), z.string()])).optional(),
});

export const fileEntry = z.strictObject({ name: relativePath, bytes: count, headerBytes: count });

export const sideFileEntry = z.strictObject({
  name: relativePath,
  bytes: count,
  sha256,
  /** `base`: the base folder holds the same file; `deflate`: stored, zlib format. */
  coding: z.enum(['base', 'deflate']),
  /** Stored bytes, for `deflate`. */
  stored: count.optional(),
});

export const baseEntry = z.strictObject({ name: z.string(), contentHash: sha256 }).nullable();

export const tunedEntry = z.strictObject({
  name: z.string(),
  contentHash: sha256,
  /** Content hash of what restore yields; equal to `contentHash` for a lossless delta. */
  restoredContentHash: sha256,
  files: z.array(fileEntry),
  /** SHA-256 of the stored (deflated) concatenation of the files' raw headers. */
  headers: sha256.optional(),
  sideFiles: z.array(sideFileEntry),
  sideFilesHash: sha256.optional(),
  /** Names of base tensors that the tuned checkpoint does not have. */
  removed: z.array(z.string()),
});

/** Version 3: where the exact layer's list is described. `bytes`: of the JSON text; `method`: the lossless one that coded the remainders. */
export const exactEntry = z.strictObject({ sha256, bytes: count, method: count });

/** One tensor's remainder: so many bytes of the stored tensor EXACT_KEY, after those of the entries before it. */
export const remainderEntry = z.strictObject({ name: z.string(), sha256, bytes: count });

/** Metadata `joined` of a file that holds an exact layer alone: hash of the stored header, lengths of header and file. */
export const joinedEntry = z.strictObject({ sha256, headerBytes: count, fileBytes: count });

export type ExactEntry = z.infer<typeof exactEntry>;
export type RemainderEntry = z.infer<typeof remainderEntry>;
export type MethodEntry = z.infer<typeof methodEntry>;
export type TensorEntry = z.infer<typeof tensorEntry>;
export type FileEntry = z.infer<typeof fileEntry>;
export type SideFileEntry = z.infer<typeof sideFileEntry>;
export type TunedEntry = z.infer<typeof tunedEntry>;
export type BaseEntry = z.infer<typeof baseEntry>;

export interface DeltaManifest {
  /** Of the file that it was read from. */
  readonly version?: number;
  readonly generator: string;
  readonly base: BaseEntry;
  readonly tuned: TunedEntry;
  readonly methods: readonly MethodEntry[];
  readonly tensors: readonly TensorEntry[];
  /** Present in a file of two layers. */
  readonly exact?: ExactEntry;
}

/** Version 2: metadata `tensors` names the stored tensor that holds the list. `bytes`: of the JSON text. */
export const storedList = z.strictObject({ sha256, bytes: count });

export const remainderList = z.array(remainderEntry);

export const manifestFields = { base: baseEntry, tuned: tunedEntry, methods: z.array(methodEntry), tensors: z.array(tensorEntry) } as const;

/** Stored tensor of one part. Names of parts hold no `::`, so the last one splits. */
export const partKey = (tensor: string, part: string): string => `${tensor}::${part}`;
/** Version 2: the list of tensors, JSON, deflated. */
export const TENSORS_KEY = '__pith__::tensors';
/** Raw headers of the tuned files, concatenated and deflated. */
export const HEADERS_KEY = '__pith__::headers';
/** Side files that the base does not hold, each deflated, concatenated in the order of the list. */
export const SIDE_FILES_KEY = '__pith__::sideFiles';
/** The exact layer: the remainders of all tensors, concatenated, and their list, JSON, deflated. */
export const EXACT_KEY = '__pith__::exact';
export const EXACT_TENSORS_KEY = '__pith__::exactTensors';
/** In a file that holds an exact layer alone: the raw header of the whole file, deflated. */
export const JOINED_HEADER_KEY = '__pith__::header';

/** Metadata `pith.format` of a delta, and of a file that holds the exact layer of one. */
export const [DELTA_FORMAT, EXACT_FORMAT] = ['delta', 'delta-exact'] as const;

/** Which result of a delta is wanted. In a file of one layer both are the same. */
export type Quality = 'lossy' | 'exact';
