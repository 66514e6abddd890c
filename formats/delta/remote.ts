/** A delta behind http or https: opened from its first bytes, its data fetched when they are asked for. */
import { Mirror } from '../remote/mirror.js';
import type { RemoteOptions } from '../remote/ranges.js';
import { headerLength } from '../safetensors/header.js';
import { SafetensorsFile } from '../safetensors/file.js';
import { DeltaFile } from './file.js';
import { EXACT_TENSORS_KEY, HEADERS_KEY, TENSORS_KEY } from './schema.js';

export interface RemoteDelta extends Disposable {
  /** Open on the mirror; only what was fetched may be read. */
  readonly delta: DeltaFile;
  readonly mirror: Mirror;
}

/** Fetches header, list of tensors and the tuned files' headers; with `exact` the exact layer's list too. All errors of a delta, and of the network. */
export async function openRemoteDelta(url: string, path: string, exact: boolean, options: RemoteOptions): Promise<RemoteDelta> {
  const mirror = await Mirror.open(url, path, options);
  try {
    const { shown, bytes } = mirror.remote;
    const prefix = new Uint8Array(Math.min(8, bytes));
    mirror.readInto(0, prefix);
    await mirror.ensure([[0, 8 + headerLength(prefix, bytes, shown)]]);
    await mirror.ensure(listSpans(path, shown, exact));
    const delta = DeltaFile.open(path, shown);
    const dispose = (): void => {
      delta.close();
      mirror[Symbol.dispose]();
    };
    return { delta, mirror, [Symbol.dispose]: dispose };
  } catch (error) {
    mirror[Symbol.dispose]();
    throw error;
  }
}

function listSpans(path: string, shown: string, exact: boolean): (readonly [number, number])[] {
  using file = SafetensorsFile.open(path, shown);
  const keys = [TENSORS_KEY, HEADERS_KEY, ...(exact ? [EXACT_TENSORS_KEY] : [])];
  return keys.flatMap((key) => {
    const entry = file.entries.get(key);
    return entry === undefined ? [] : [[file.dataStart + entry.begin, file.dataStart + entry.end] as const];
  });
}
