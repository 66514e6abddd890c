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
  if (rng.integer(2) === 0) mutateParts(rng, metadata, parts);
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
