/** Manifest <-> the `__metadata__` strings of the file, and the seal that covers the header itself. */
import { createHash } from 'node:crypto';
import type * as z from 'zod';
import { PithError } from '../../core/errors.js';
import { elementCount, sameShape } from '../../core/shape.js';
import { parseJson } from '../json.js';
import { deflated, type Blob } from './blob.js';
import {
  DELTA_FORMAT,
  DELTA_VERSION,
  EXACT_FORMAT,
  exactEntry,
  manifestFields,
  ONE_LAYER_VERSION,
  storedList,
  TENSORS_KEY,
  TWO_LAYERS_VERSION,
  type DeltaManifest,
  type ExactEntry,
  type TensorEntry,
} from './schema.js';

const [FORMAT_KEY, VERSION_KEY, SEAL_KEY, EXACT_FIELD] = ['pith.format', 'pith.version', 'pith.seal', 'exact'] as const;
const UNSEALED = '0'.repeat(64);

/** The metadata map of a file of one layer, unsealed (`seal` completes the header that is built from it), and the stored list of tensors. */
export function manifestToMetadata(manifest: DeltaManifest): { metadata: Record<string, string>; tensors: Blob } {
  const text = Buffer.from(JSON.stringify(manifest.tensors), 'utf8');
  const tensors = deflated(text);
  const metadata = {
    [FORMAT_KEY]: DELTA_FORMAT,
    [VERSION_KEY]: String(ONE_LAYER_VERSION),
    [SEAL_KEY]: UNSEALED,
    generator: manifest.generator,
    base: JSON.stringify(manifest.base),
    tuned: JSON.stringify(manifest.tuned),
    methods: JSON.stringify(manifest.methods),
    tensors: JSON.stringify({ sha256: tensors.sha256, bytes: text.length }),
  };
  return { metadata, tensors };
}

/** The same metadata, unsealed, of the file with an exact layer behind it, or without the one it has. */
export function withExact(metadata: ReadonlyMap<string, string>, exact: ExactEntry | undefined): Record<string, string> {
  const out = Object.fromEntries([...metadata].filter(([key]) => key !== EXACT_FIELD));
  const layer = exact === undefined ? {} : { [EXACT_FIELD]: JSON.stringify(exact) };
  return { ...out, ...layer, [VERSION_KEY]: String(exact === undefined ? ONE_LAYER_VERSION : TWO_LAYERS_VERSION), [SEAL_KEY]: UNSEALED };
}

/** Metadata of a file that holds the exact layer alone. */
export function exactFileMetadata(generator: string, joined: object): Record<string, string> {
  return { [FORMAT_KEY]: EXACT_FORMAT, [VERSION_KEY]: String(TWO_LAYERS_VERSION), [SEAL_KEY]: UNSEALED, generator, joined: JSON.stringify(joined) };
}

/** What of the metadata is the same with an exact layer and without it. */
export function lossyMetadata(metadata: ReadonlyMap<string, string>): Map<string, string> {
  const layers: ReadonlySet<string> = new Set([VERSION_KEY, SEAL_KEY, EXACT_FIELD]);
  return new Map([...metadata].filter(([key]) => !layers.has(key)));
}

/** Position of the seal's 64 hex digits; a quote inside any JSON string is escaped, so the pattern is the key itself. */
function sealPosition(rawHeader: Uint8Array): number {
  const bytes = Buffer.from(rawHeader.buffer, rawHeader.byteOffset, rawHeader.byteLength);
  const pattern = `"${SEAL_KEY}":"`;
  const at = bytes.indexOf(pattern, 8, 'latin1');
  return at < 0 ? -1 : at + pattern.length;
}

function sealOf(rawHeader: Uint8Array, position: number): string {
  return createHash('sha256')
    .update(rawHeader.subarray(0, position))
    .update(UNSEALED)
    .update(rawHeader.subarray(position + 64))
    .digest('hex');
}

/** Writes the SHA-256 of the whole header (with the seal as zeros) into it, in place. */
export function seal(rawHeader: Uint8Array): void {
  const position = sealPosition(rawHeader);
  if (position < 0) throw new PithError('INTERNAL', { message: 'a header without a seal field' });
  rawHeader.set(Buffer.from(sealOf(rawHeader, position), 'latin1'), position);
}

/** DELTA_MALFORMED when any byte of the header differs from what was sealed. */
export function checkSeal(rawHeader: Uint8Array, file: string): void {
  const position = sealPosition(rawHeader);
  const got = position < 0 ? 'none' : Buffer.from(rawHeader.subarray(position, position + 64)).toString('latin1');
  const expected = position < 0 ? 'a seal' : sealOf(rawHeader, position);
  if (got !== expected) throw new PithError('DELTA_MALFORMED', { file, message: `header hash: expected ${expected}, got ${got}` });
}

/** One metadata field, parsed: DELTA_MALFORMED. */
export function field<T>(schema: z.ZodType<T>, metadata: Readonly<Record<string, string>>, key: string, file: string, stored?: string): T {
  const text = stored ?? metadata[key];
  if (text === undefined) throw new PithError('DELTA_MALFORMED', { file, message: `metadata "${key}" is missing` });
  const value = parseJson(text, (message) => new PithError('DELTA_MALFORMED', { file, message: `metadata "${key}": ${message}` }));
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new PithError('DELTA_MALFORMED', { file, message: `metadata "${key}" at ${issue?.path.join('.') ?? '?'}: ${issue?.message ?? '?'}` });
}

/** Inflates a stored tensor, checked against its hash and length (DELTA_MALFORMED). */
export type ReadStored = (key: string, sha256: string, bytes: number) => Uint8Array;

/** NOT_A_DELTA, DELTA_VERSION or DELTA_MALFORMED; the caller has checked the seal. */
export function manifestFromMetadata(metadata: Readonly<Record<string, string>>, file: string, read: ReadStored): DeltaManifest {
  const version = checkFormat(metadata, DELTA_FORMAT, file);
  const list = version === 1 ? undefined : field(storedList, metadata, 'tensors', file);
  const stored = list === undefined ? undefined : Buffer.from(read(TENSORS_KEY, list.sha256, list.bytes)).toString('utf8');
  const manifest: DeltaManifest = {
    version,
    generator: metadata['generator'] ?? '',
    base: field(manifestFields.base, metadata, 'base', file),
    tuned: field(manifestFields.tuned, metadata, 'tuned', file),
    methods: field(manifestFields.methods, metadata, 'methods', file),
    tensors: field(manifestFields.tensors, metadata, 'tensors', file, stored),
    ...(version < TWO_LAYERS_VERSION ? {} : { exact: field(exactEntry, metadata, EXACT_FIELD, file) }),
  };
  checkManifest(manifest, file);
  return manifest;
}

/** The version. NOT_A_DELTA for another format, DELTA_VERSION for a later version. */
export function checkFormat(metadata: Readonly<Record<string, string>>, expected: string, file: string): number {
  const got = metadata[FORMAT_KEY];
  if (got !== expected) {
    const hint = got === EXACT_FORMAT ? '; it is the exact layer of one, `pith delta join` puts it behind its lossy part' : '';
    throw new PithError('NOT_A_DELTA', { file, message: `expected metadata ${FORMAT_KEY} "${expected}", got "${got ?? 'none'}"${hint}` });
  }
  const version = Number(metadata[VERSION_KEY]);
  if (!Number.isInteger(version) || version < 1) throw new PithError('DELTA_MALFORMED', { file, message: `metadata "${VERSION_KEY}" is not a number` });
  if (version > DELTA_VERSION) throw new PithError('DELTA_VERSION', { file, expected: DELTA_VERSION, got: version });
  return version;
}

/** What the schema cannot say: references inside the manifest hold. */
function checkManifest(manifest: DeltaManifest, file: string): void {
  const bad = (message: string): never => {
    throw new PithError('DELTA_MALFORMED', { file, message });
  };
  const names = new Set<string>();
  for (const t of manifest.tensors) {
    if (names.has(t.name)) bad(`tensor "${t.name}" is listed twice`);
    names.add(t.name);
    if (!Number.isSafeInteger(elementCount(t.shape) * 64)) bad(`tensor "${t.name}": shape overflows`);
    if (t.method !== 'identical' && t.method >= manifest.methods.length)
      bad(`tensor "${t.name}" names method ${String(t.method)} of ${manifest.methods.length}`);
    if (t.base !== undefined && manifest.base === null) bad(`tensor "${t.name}" has a base, the file has none`);
    checkBase(t, bad);
  }
  if (manifest.exact !== undefined && manifest.exact.method >= manifest.methods.length) bad(`the exact layer names method ${manifest.exact.method}`);
  const paths = new Set<string>();
  for (const f of [...manifest.tuned.files, ...manifest.tuned.sideFiles]) {
    if (paths.has(f.name)) bad(`file "${f.name}" is listed twice`);
    paths.add(f.name);
  }
}

function checkBase(t: TensorEntry, bad: (message: string) => never): void {
  if (t.base === undefined) {
    if (t.method === 'identical') bad(`tensor "${t.name}" is identical to no base`);
    return;
  }
  const shape = t.base.shape ?? t.shape;
  const rows = t.base.rows;
  if (rows === undefined) {
    if (!sameShape(shape, t.shape)) bad(`tensor "${t.name}": base shape differs`);
    return;
  }
  const sameTail = shape.length === t.shape.length && shape.length > 0 && sameShape(shape.slice(1), t.shape.slice(1));
  if (!sameTail || rows > shape[0]! || rows > t.shape[0]!) bad(`tensor "${t.name}": ${String(rows)} common rows do not fit`);
}
