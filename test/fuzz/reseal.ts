/** A delta as an attacker would make it: any field or part changed, then every hash that covers it made right again. */
import { createHash } from 'node:crypto';
import { deflateSync, inflateSync } from 'node:zlib';
import type { Rng } from '../../core/rng.js';
import { seal } from '../../formats/delta/manifest.js';
import { mutateBytes, mutateJson, splitFile } from './mutate.js';

interface Stored {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}
type Header = Record<string, Stored | Record<string, string>>;

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const LIST = '__pith__::tensors';
/** Of a file of two layers: the remainders and their list. */
const [REMAINDERS, REMAINDER_LIST, WHOLE_HEADER] = ['__pith__::exact', '__pith__::exactTensors', '__pith__::header'] as const;

/** Half of the results have a mutated manifest, half a mutated part with the right hashes. */
export function resealed(rng: Rng, file: Uint8Array): Uint8Array {
  const { json, data } = splitFile(file);
  const header = JSON.parse(json) as Header;
  const metadata = header['__metadata__'] as Record<string, string>;
  const parts = new Map<string, Uint8Array>();
  const list = data.subarray(...((header[LIST] as Stored | undefined)?.data_offsets ?? [0, 0]));
  // version 2: the list of tensors is a stored blob; here it is worked on where version 1 has it
  if (LIST in header) metadata['tensors'] = inflateSync(list).toString('utf8');
  for (const [key, t] of Object.entries(header)) if (key !== '__metadata__' && key !== LIST) parts.set(key, data.subarray(...(t as Stored).data_offsets));
  if (parts.has(REMAINDER_LIST) && rng.integer(2) === 0) mutateLayer(rng, metadata, parts);
  else if (rng.integer(2) === 0) mutateParts(rng, metadata, parts);
  else {
    const fields = ['base', 'tuned', 'methods', 'tensors', 'tensors', 'tuned', 'pith.version'];
    const field = fields[rng.integer(fields.length)]!;
    metadata[field] = mutateJson(rng, metadata[field]!);
  }
  if (LIST in header) {
    const text = Buffer.from(metadata['tensors']!);
    const stored = deflateSync(text);
    parts.set(LIST, stored);
    metadata['tensors'] = JSON.stringify({ sha256: sha(stored), bytes: rng.integer(8) === 0 ? rng.integer(4 * text.length) : text.length });
  }
  return build(header, metadata, parts);
}

interface RemainderRow {
  name: string;
  sha256: string;
  bytes: number;
}

/** A remainder, the list of them, or what the metadata say of it. */
function mutateLayer(rng: Rng, metadata: Record<string, string>, parts: Map<string, Uint8Array>): void {
  let text = inflateSync(parts.get(REMAINDER_LIST)!).toString('utf8');
  const what = rng.integer(3);
  if (what === 0) {
    const list = JSON.parse(text) as RemainderRow[];
    const blob = parts.get(REMAINDERS)!;
    let at = 0;
    const pieces = list.map((r) => blob.subarray(at, (at += r.bytes)));
    const n = rng.integer(list.length);
    pieces[n] = mutateBytes(rng, pieces[n]!);
    list[n] = { ...list[n]!, sha256: sha(pieces[n]), bytes: pieces[n].length };
    parts.set(REMAINDERS, Buffer.concat(pieces));
    text = JSON.stringify(list);
  } else if (what === 1) text = mutateJson(rng, text);
  const stored = deflateSync(Buffer.from(text));
  parts.set(REMAINDER_LIST, stored);
  const field = { ...(JSON.parse(metadata['exact']!) as object), sha256: sha(stored), bytes: Buffer.byteLength(text) };
  metadata['exact'] = what === 2 ? mutateJson(rng, JSON.stringify(field)) : JSON.stringify(field);
}

/** The file of an exact layer with its header of the whole file, or another field, changed and all hashes made right. */
export function resealedLayer(rng: Rng, file: Uint8Array): Uint8Array {
  const { json, data } = splitFile(file);
  const header = JSON.parse(json) as Header;
  const metadata = header['__metadata__'] as Record<string, string>;
  const parts = new Map<string, Uint8Array>();
  for (const [key, t] of Object.entries(header)) if (key !== '__metadata__') parts.set(key, data.subarray(...(t as Stored).data_offsets));
  const raw = inflateSync(parts.get(WHOLE_HEADER)!);
  const inner = JSON.parse(raw.toString('utf8', 8)) as Header;
  const text = rng.integer(2) === 0 ? mutateJson(rng, JSON.stringify(inner)) : raw.toString('utf8', 8);
  const body = Buffer.from(text, 'utf8');
  const changed = Buffer.concat([raw.subarray(0, 8), body, Buffer.alloc(Math.max(0, raw.length - 8 - body.length), 0x20)]);
  if (changed.includes('"pith.seal":"')) seal(changed);
  const stored = deflateSync(changed);
  parts.set(WHOLE_HEADER, stored);
  const joined = { ...(JSON.parse(metadata['joined']!) as object), sha256: sha(stored), headerBytes: changed.length };
  metadata['joined'] = rng.integer(2) === 0 ? mutateJson(rng, JSON.stringify(joined)) : JSON.stringify(joined);
  if (rng.integer(4) === 0) parts.set(REMAINDERS, mutateBytes(rng, parts.get(REMAINDERS)!));
  return build(header, metadata, parts);
}

function mutateParts(rng: Rng, metadata: Record<string, string>, parts: Map<string, Uint8Array>): void {
  const keys = [...parts.keys()];
  for (let n = 1 + rng.integer(3); n > 0; n--) {
    const key = keys[rng.integer(keys.length)]!;
    // the head and the tables of a coded segment lie at its begin
    const old = parts.get(key)!;
    const from = rng.integer(3) === 0 ? 0 : Math.min(old.length, 400);
    const bytes = rng.integer(2) === 0 ? mutateBytes(rng, old) : Buffer.concat([mutateBytes(rng, old.subarray(0, from)), old.subarray(from)]);
    const [was, is] = [sha(old), sha(bytes)];
    for (const field of ['tensors', 'tuned']) metadata[field] = metadata[field]!.replaceAll(was, is);
    parts.set(key, bytes);
  }
}

function build(header: Header, metadata: Record<string, string>, parts: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const out: Header = { __metadata__: { ...metadata, 'pith.seal': '0'.repeat(64) } };
  let at = 0;
  for (const [key, bytes] of parts) {
    const old = header[key] as Stored;
    const same = bytes.length === old.data_offsets[1] - old.data_offsets[0];
    out[key] = { dtype: same ? old.dtype : 'U8', shape: same ? old.shape : [bytes.length], data_offsets: [at, (at += bytes.length)] };
  }
  const json = Buffer.from(JSON.stringify(out), 'utf8');
  const total = Math.ceil((8 + json.length) / 8) * 8;
  const head = new Uint8Array(total).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(total - 8), true);
  head.set(json, 8);
  seal(head);
  return Buffer.concat([head, ...parts.values()]);
}
