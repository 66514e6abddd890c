/** `pith delta info`: what a delta file says of itself; reads its header and its lists only. */
import { byteLength } from '../core/shape.js';
import type { DeltaFile } from '../formats/delta/file.js';
import { locateDelta, type RemoteAccess } from './delta-locate.js';
import { partKey, type BaseEntry, type MethodEntry, type TensorEntry } from '../formats/delta/schema.js';

export interface InfoTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly method: string;
  readonly bytes: number;
  /** Of `bytes`, those of the exact layer. */
  readonly exactBytes?: number;
  readonly rawBytes: number;
  readonly facts: Readonly<Record<string, number | string>>;
}

export interface InfoReport {
  readonly path: string;
  readonly version: number;
  readonly generator: string;
  readonly base: BaseEntry;
  readonly tuned: { readonly name: string; readonly contentHash: string; readonly restoredContentHash: string };
  /** A restore gives the original. */
  readonly exact: boolean;
  /** Of a file of two layers, bytes of each; `lossy` counts the header. */
  readonly layers?: { readonly lossy: number; readonly exact: number };
  readonly bytes: number;
  readonly rawBytes: number;
  readonly ratio: number;
  readonly methods: readonly MethodEntry[];
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
  readonly sideFiles: readonly { readonly name: string; readonly bytes: number; readonly coding: string }[];
  readonly removed: readonly string[];
  readonly tensors: readonly InfoTensor[];
}

/** `path`: a file, or a URL. */
export async function deltaInfo(path: string, o: RemoteAccess & { readonly signal?: AbortSignal } = {}): Promise<InfoReport> {
  using located = await locateDelta(path, { ...o, signal: o.signal ?? new AbortController().signal, exact: true });
  const { delta } = located;
  const { manifest, file } = delta;
  const tensors = manifest.tensors.map((t) => infoTensor(delta, t));
  const rawBytes = tensors.reduce((sum, t) => sum + t.rawBytes, 0);
  const { tuned } = manifest;
  return {
    path: delta.path,
    version: manifest.version ?? 0,
    generator: manifest.generator,
    base: manifest.base,
    tuned: { name: tuned.name, contentHash: tuned.contentHash, restoredContentHash: tuned.restoredContentHash },
    exact: delta.quality() === 'exact',
    ...(manifest.exact === undefined ? {} : { layers: { lossy: delta.lossyBytes, exact: file.bytes - delta.lossyBytes } }),
    bytes: file.bytes,
    rawBytes,
    ratio: rawBytes === 0 ? 0 : file.bytes / rawBytes,
    methods: manifest.methods,
    files: tuned.files.map((f) => ({ name: f.name, bytes: f.bytes })),
    sideFiles: tuned.sideFiles.map((f) => ({ name: f.name, bytes: f.bytes, coding: f.coding })),
    removed: tuned.removed,
    tensors,
  };
}

function infoTensor(delta: DeltaFile, t: TensorEntry): InfoTensor {
  const bytes = Object.keys(t.parts).reduce(
    (sum, part) => {
      const { begin, end } = delta.file.entry(partKey(t.name, part));
      return sum + end - begin;
    },
    delta.exact?.bytes(t.name) ?? 0,
  );
  const exact = delta.exact?.has(t.name) === true ? { exactBytes: delta.exact.bytes(t.name) } : {};
  const method = t.method === 'identical' ? t.method : delta.manifest.methods[t.method]!.name;
  return { name: t.name, dtype: t.dtype, shape: t.shape, method, bytes, ...exact, rawBytes: byteLength(t.dtype, t.shape), facts: t.facts ?? {} };
}
