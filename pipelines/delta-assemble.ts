/** Last step of an encode: manifest, side files and spooled parts become one delta file. */
import { pithVersion } from '../core/version.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import type { DeltaManifest, SideFileEntry, TensorEntry } from '../formats/delta/schema.js';
import { deflated } from '../formats/delta/blob.js';
import type { DeltaContent, StoredPart } from '../formats/delta/write.js';
import { hashFile, packFiles } from '../formats/delta/side-files.js';
import { contentHash } from '../formats/hash.js';
import { readerFolder, readerSideFiles } from '../formats/open-checkpoint.js';
import type { EncodeResult } from '../workers/messages/delta.js';
import { checkpointName } from '../workers/open.js';
import type { DeltaPlan, PlannedTensor } from './delta-plan.js';

export interface Assembly {
  readonly paths: { readonly base: string | undefined; readonly tuned: string };
  readonly title?: string;
  readonly plan: DeltaPlan;
  readonly base: CheckpointReader | undefined;
  readonly tuned: CheckpointReader;
  result(tensor: string): EncodeResult;
  /** The plan's method that coded a tensor, unless it declined. */
  method(tensor: PlannedTensor): number;
  /** SHA-256 of a base tensor, whether or not a tuned one was coded against it. */
  baseSha256(tensor: string): string;
  spoolFile(tensor: string, part: string): string;
  /** Where the side files are put together. */
  readonly sideSpool: string;
  /** Bytes that the header leaves free. */
  readonly room?: number;
}

export interface Assembled {
  readonly content: DeltaContent;
  readonly baseHash: string | undefined;
  readonly tunedHash: string;
}

export async function assemble(a: Assembly): Promise<Assembled> {
  const { plan, base, tuned } = a;
  const baseHash = base === undefined ? undefined : contentHash([...base.infos.values()].map((t) => ({ ...t, sha256: a.baseSha256(t.name) })));
  const tunedHash = contentHash(plan.tensors.map((t) => ({ ...t, sha256: a.result(t.name).tunedSha256 })));
  const restoredHash = contentHash(plan.tensors.map((t) => ({ ...t, sha256: a.result(t.name).restoredSha256 })));
  const headers = tuned.files.length === 0 ? undefined : deflated(Buffer.concat(tuned.files.map((f) => f.rawHeader)));
  const side = await sideFiles(a);
  const manifest: DeltaManifest = {
    generator: `pith ${pithVersion()}`,
    base: baseHash === undefined ? null : { name: checkpointName(a.paths.base!), contentHash: baseHash },
    tuned: {
      name: a.title ?? tuned.title ?? checkpointName(a.paths.tuned),
      contentHash: tunedHash,
      restoredContentHash: restoredHash,
      files: tuned.files.map((f) => ({ name: f.name, bytes: f.bytes, headerBytes: f.rawHeader.length })),
      ...(headers === undefined ? {} : { headers: headers.sha256 }),
      sideFiles: side.entries,
      ...(side.blob === undefined ? {} : { sideFilesHash: side.blob.sha256 }),
      removed: [...plan.removed],
    },
    methods: plan.methods.map((m) => ({ name: m.name, version: m.codec.version, params: { ...m.params } })),
    tensors: plan.tensors.map((t) => tensorEntry(t, a.result(t.name), a.method(t), base)),
  };
  const parts = new Map<string, StoredPart[]>();
  for (const t of plan.tensors) {
    parts.set(
      t.name,
      a.result(t.name).parts.map((p) => ({ ...p, file: a.spoolFile(t.name, p.part) })),
    );
  }
  const content = { manifest, parts, headers, sideFiles: side.blob, ...(a.room === undefined ? {} : { room: a.room }) };
  return { content, baseHash, tunedHash };
}

function tensorEntry(t: PlannedTensor, r: EncodeResult, method: number, base: CheckpointReader | undefined): TensorEntry {
  const against = r.baseSha256 === undefined ? undefined : base?.infos.get(t.name);
  const rows = commonRows(t).commonRows;
  return {
    name: t.name,
    dtype: t.dtype,
    shape: [...t.shape],
    method: r.info.identical ? 'identical' : r.byMethod ? method : 0,
    ...(against === undefined ? {} : { base: { sha256: r.baseSha256!, ...(rows === undefined ? {} : { shape: [...against.shape], rows }) } }),
    sha256: r.tunedSha256,
    ...(r.restoredSha256 === r.tunedSha256 ? {} : { restored: r.restoredSha256 }),
    parts: Object.fromEntries(r.parts.map((p) => [p.part, p.sha256])),
    ...(Object.keys(r.info.facts).length === 0 ? {} : { facts: { ...r.info.facts } }),
  };
}

export const commonRows = (t: PlannedTensor): { commonRows?: number } =>
  t.pairing.kind === 'pair' && t.pairing.commonRows !== undefined ? { commonRows: t.pairing.commonRows } : {};

/** The tuned folder's other files; one that the base folder holds too is only named. */
async function sideFiles(a: Assembly): Promise<{ entries: SideFileEntry[]; blob: DeltaContent['sideFiles'] }> {
  if ((await readerFolder(a.tuned)) === undefined) return { entries: [], blob: undefined };
  const inBase = new Map((a.base === undefined ? [] : await readerSideFiles(a.base)).map((f) => [f.name, f]));
  const own: string[] = [];
  const entries: SideFileEntry[] = [];
  for (const f of await readerSideFiles(a.tuned)) {
    const sha256 = await hashFile(f.path, f.bytes);
    const twin = inBase.get(f.name);
    const inBoth = twin?.bytes === f.bytes && (await hashFile(twin.path, twin.bytes)) === sha256;
    if (!inBoth) own.push(f.path);
    entries.push({ name: f.name, bytes: f.bytes, sha256, coding: inBoth ? 'base' : 'deflate' });
  }
  if (own.length === 0) return { entries, blob: undefined };
  const { sizes, ...blob } = await packFiles(own, a.sideSpool);
  let next = 0;
  return { entries: entries.map((e) => (e.coding === 'base' ? e : { ...e, stored: sizes[next++]! })), blob: { ...blob, file: a.sideSpool } };
}
