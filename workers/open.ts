/** Any checkpoint argument -> reader. `BASE+DELTA_FILE` is the base with the delta applied; BASE may be such a chain itself. */
import { basename, resolve } from 'node:path';
import type { CheckpointReader } from '../formats/checkpoint.js';
import * as io from '../formats/io.js';
import { openCheckpoint } from '../formats/open-checkpoint.js';

export async function openAny(argument: string): Promise<CheckpointReader> {
  const composed = split(argument);
  if (composed === undefined) return openCheckpoint(argument);
  const { ChainedReader } = await import('./chained.js');
  const base = await openAny(composed.base);
  try {
    return ChainedReader.open(argument, base, composed.delta);
  } catch (error) {
    await base[Symbol.asyncDispose]();
    throw error;
  }
}

/** A path that exists is taken as it is, so that names may hold a `+`; else the last `+` with something on both sides divides. */
function split(argument: string): { readonly base: string; readonly delta: string } | undefined {
  if (!argument.includes('+') || io.stat(argument) !== undefined) return undefined;
  for (let at = argument.lastIndexOf('+'); at > 0; at = argument.lastIndexOf('+', at - 1)) {
    const [base, delta] = [argument.slice(0, at), argument.slice(at + 1)];
    if (delta !== '' && io.stat(delta)?.isFile === true && (io.stat(base) !== undefined || split(base) !== undefined)) return { base, delta };
  }
  return undefined;
}

/** The same checkpoint from any folder. */
export function resolveCheckpoint(argument: string): string {
  const composed = split(argument);
  return composed === undefined ? resolve(argument) : `${resolveCheckpoint(composed.base)}+${resolve(composed.delta)}`;
}

/** What a delta calls its base: file names without their folders, a chain's joined by `+`. */
export function checkpointName(argument: string): string {
  const composed = split(argument);
  return composed === undefined ? basename(resolve(argument)) : `${checkpointName(composed.base)}+${basename(composed.delta)}`;
}
