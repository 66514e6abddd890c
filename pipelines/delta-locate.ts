/** Where a delta is: a file, or behind http and https, of which the needed ranges are brought to a local mirror. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ProgressEvent } from '../core/events.js';
import { DeltaFile } from '../formats/delta/file.js';
import { SIDE_FILES_KEY, type Quality, type TensorEntry } from '../formats/delta/schema.js';
import type { Span } from '../formats/delta/stored.js';
import * as io from '../formats/io.js';
import type { Mirror } from '../formats/remote/mirror.js';
import { isRemote, type Fetch, type RemoteOptions } from '../formats/remote/ranges.js';

/** How a delta behind http or https is reached. */
export interface RemoteAccess {
  /** The global one by default. */
  readonly fetch?: Fetch;
  /** How it retries. */
  readonly network?: Pick<RemoteOptions, 'delaysMs' | 'idleMs'>;
}

/** A delta file, or the local mirror of a remote one; disposing of it removes the mirror. */
export interface LocatedDelta extends Disposable {
  readonly delta: DeltaFile;
  /** Of a remote one: what of it is here. */
  readonly mirror?: Mirror;
}

export interface LocateOptions extends RemoteAccess {
  readonly signal: AbortSignal;
  /** The exact layer's list is wanted too, where there is one. */
  readonly exact: boolean;
  /** Folder for the mirror, made when it is missing; the system's temporary one by default. */
  readonly folder?: string;
}

/** Any error of a delta file; of a remote one NOT_FOUND, NETWORK and FILE_CHANGED too. */
export async function locateDelta(path: string, o: LocateOptions): Promise<LocatedDelta> {
  if (!isRemote(path)) {
    const delta = DeltaFile.open(path);
    return { delta, [Symbol.dispose]: () => delta.close() };
  }
  const { openRemoteDelta } = await import('../formats/delta/remote.js');
  // where an open file cannot be removed its folder must not be one that goes when all is done
  const given = process.platform === 'win32' ? undefined : o.folder;
  const own = given ?? mkdtempSync(join(tmpdir(), 'pith-remote-'));
  io.mkdir(own);
  const clean = (): void => io.removeEmptyFolder(own);
  try {
    const options = { signal: o.signal, ...o.network, ...(o.fetch === undefined ? {} : { fetch: o.fetch }) };
    const { delta, mirror, [Symbol.dispose]: close } = await openRemoteDelta(path, io.tempPath(join(own, 'remote')), o.exact, options);
    const dispose = (): void => {
      close();
      clean();
    };
    return { delta, mirror, [Symbol.dispose]: dispose };
  } catch (error) {
    clean();
    throw error;
  }
}

/** Interval of progress events while ranges come, in ms. */
const TICK_MS = 100;

/** Brings ranges of a remote delta here; nothing to do for a local one. */
export async function* fetchSpans({ mirror }: LocatedDelta, spans: readonly Span[]): AsyncGenerator<ProgressEvent, void, void> {
  const totalBytes = mirror?.missingBytes(spans) ?? 0;
  if (mirror === undefined || totalBytes === 0) return;
  let ended = false;
  const fetched = mirror.ensure(spans).finally(() => (ended = true));
  // an error is thrown where it is awaited, below
  fetched.catch(() => undefined);
  while (!ended) {
    await Promise.race([fetched.catch(() => undefined), new Promise((go) => setTimeout(go, TICK_MS))]);
    yield { type: 'progress', job: 'download', doneBytes: totalBytes - mirror.missingBytes(spans), totalBytes };
  }
  await fetched;
}

/** Every range that tensors at that quality, and the side files, are decoded from. */
export function spansOf(delta: DeltaFile, tensors: Iterable<TensorEntry>, quality: Quality): Span[] {
  const side = delta.manifest.tuned.sideFilesHash === undefined ? [] : [delta.span(SIDE_FILES_KEY)];
  return [...side, ...[...tensors].flatMap((t) => delta.spans(t, quality))];
}
