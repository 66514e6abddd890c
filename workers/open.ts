/** Any checkpoint argument -> reader: safetensors (factorized ones too), GGUF, a delta made without a base. `BASE+DELTA_FILE`, `BASE+ADAPTER_DIR`: the base with that applied; BASE may be such a chain itself. */
import { basename, resolve } from 'node:path';
import { isAdapterFolder } from '../formats/adapter/adapter.js';
import type { BitDeltaDiff } from '../formats/bitdelta.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { isFactorized } from '../formats/factorized.js';
import { ggufPath } from '../formats/gguf/find.js';
import { standalonePath } from '../formats/delta/standalone.js';
import * as io from '../formats/io.js';
import { openCheckpoint } from '../formats/open-checkpoint.js';
import type { OpenOptions } from './adapted-reader.js';

export async function openAny(argument: string, options: OpenOptions = {}): Promise<CheckpointReader> {
  const composed = split(argument);
  if (composed === undefined) {
    const gguf = ggufPath(argument);
    if (gguf !== undefined) return (await import('./gguf-reader.js')).GgufReader.open(argument, gguf);
    return openPlain(argument, options);
  }
  const base = await openAny(composed.base, options);
  if (composed.kind === 'adapter') return (await import('./adapted-reader.js')).openAdapted(argument, base, composed.change, options);
  const [{ ChainedReader }, { BitDeltaDiff }] = await Promise.all([import('./chained.js'), import('../formats/bitdelta.js')]);
  try {
    const diff = BitDeltaDiff.open(composed.change);
    if (diff !== undefined) return await applied(argument, base, diff);
    return ChainedReader.open(argument, base, composed.change);
  } catch (error) {
    await base[Symbol.asyncDispose]();
    throw error;
  }
}

/** Two linear layers in place of one are read as the one that they make. */
async function openPlain(argument: string, options: OpenOptions): Promise<CheckpointReader> {
  const alone = standalonePath(argument);
  const stored = alone === undefined ? await openCheckpoint(argument) : (await import('./chained.js')).ChainedReader.openAlone(argument, alone);
  return isFactorized(stored.infos) ? (await import('./factorized-reader.js')).openFactorized(stored, options) : stored;
}

async function applied(argument: string, base: CheckpointReader, diff: BitDeltaDiff): Promise<CheckpointReader> {
  const { BitDeltaReader } = await import('./bitdelta-reader.js');
  try {
    return new BitDeltaReader(argument, base, diff);
  } catch (error) {
    diff[Symbol.dispose]();
    throw error;
  }
}

interface Composed {
  readonly base: string;
  /** A delta file or an adapter's folder. */
  readonly change: string;
  readonly kind: 'delta' | 'adapter';
}

/** A path that exists is taken as it is, so that names may hold a `+`; else the last `+` with something on both sides divides. */
function split(argument: string): Composed | undefined {
  if (!argument.includes('+') || io.stat(argument) !== undefined) return undefined;
  for (let at = argument.lastIndexOf('+'); at > 0; at = argument.lastIndexOf('+', at - 1)) {
    const [base, change] = [argument.slice(0, at), argument.slice(at + 1)];
    const kind = change === '' ? undefined : io.stat(change)?.isFile === true ? 'delta' : isAdapterFolder(change) ? 'adapter' : undefined;
    if (kind !== undefined && (io.stat(base) !== undefined || split(base) !== undefined)) return { base, change, kind };
  }
  return undefined;
}

/** The same checkpoint from any folder. */
export function resolveCheckpoint(argument: string): string {
  const composed = split(argument);
  return composed === undefined ? resolve(argument) : `${resolveCheckpoint(composed.base)}+${resolve(composed.change)}`;
}

/** What a delta calls its base: file names without their folders, a chain's joined by `+`. */
export function checkpointName(argument: string): string {
  const composed = split(argument);
  return composed === undefined ? basename(resolve(argument)) : `${checkpointName(composed.base)}+${basename(composed.change)}`;
}
