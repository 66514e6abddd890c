/** `pith inspect`: what a checkpoint holds, from headers alone. */
import { byteLength, elementCount } from '../core/shape.js';
import { placeOf, type Place } from '../models/place.js';
import { openAny } from '../workers/open.js';

export interface InspectedTensor {
  readonly name: string;
  /** As it is stored: a GGUF's own types too. */
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly place: Place;
  /** Of a container that keeps tensors in another form: the name there, and the dtype that is read from it. */
  readonly storedName?: string;
  readonly readAs?: string;
}

export interface InspectReport {
  readonly source: string;
  readonly format: 'safetensors' | 'gguf' | 'factorized';
  /** What a GGUF says of its model: architecture, fileType, contextLength, quantizationVersion, tokenizer, name; how a factorized one was made. */
  readonly facts?: Readonly<Record<string, string | number>>;
  readonly warnings: readonly string[];
  readonly files: readonly { readonly name: string; readonly bytes: number; readonly tensors: number }[];
  readonly totalBytes: number;
  readonly parameters: number;
  readonly dtypes: Readonly<Record<string, { readonly tensors: number; readonly bytes: number }>>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: readonly InspectedTensor[];
}

export async function inspectCheckpoint(path: string): Promise<InspectReport> {
  await using reader = await openAny(path);
  const { stored } = reader;
  const tensors = [...reader.infos.values()].map((t): InspectedTensor => {
    const kept = stored?.tensors.get(t.name);
    const form = kept === undefined ? { bytes: byteLength(t.dtype, t.shape) } : { dtype: kept.type, bytes: kept.bytes, storedName: kept.name, readAs: t.dtype };
    return { ...t, ...form, place: placeOf(t.name) };
  });
  const dtypes: Record<string, { tensors: number; bytes: number }> = {};
  for (const t of tensors) {
    const d = (dtypes[t.dtype] ??= { tensors: 0, bytes: 0 });
    d.tensors++;
    d.bytes += t.bytes;
  }
  return {
    source: path,
    format: stored?.format ?? 'safetensors',
    ...(stored === undefined ? {} : { facts: stored.facts }),
    warnings: reader.warnings ?? [],
    files: stored?.files ?? reader.files.map((f) => ({ name: f.name, bytes: f.bytes, tensors: f.order.length })),
    totalBytes: tensors.reduce((sum, t) => sum + t.bytes, 0),
    parameters: tensors.reduce((sum, t) => sum + elementCount(t.shape), 0),
    dtypes,
    metadata: reader.metadata,
    tensors,
  };
}
