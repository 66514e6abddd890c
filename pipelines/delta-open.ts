/** What restore and verify share: an opened delta, its base checked against the manifest, and the tasks that decode it. */
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { PithError } from '../core/errors.js';
import { byteLength } from '../core/shape.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import type { Quality, TensorEntry } from '../formats/delta/schema.js';
import { isRemote } from '../formats/remote/ranges.js';
import { checkpointStamp } from '../formats/stamp.js';
import type { DecodeTask } from '../workers/messages/delta.js';
import type { CheckpointRef } from '../workers/messages/refs.js';
import { checkBaseShape } from '../workers/chained.js';
import { openAny, resolveCheckpoint } from '../workers/open.js';
import { locateDelta, type LocatedDelta, type RemoteAccess } from './delta-locate.js';
import { runSettings, type RunOptions } from './run-options.js';
import type { Job } from './schedule.js';

export interface OpenedDelta extends LocatedDelta {
  /** What is restored. */
  readonly quality: Quality;
  readonly base: CheckpointReader | undefined;
  readonly basePath: string | undefined;
  readonly baseRef: CheckpointRef | undefined;
}

/** Decoding holds a segment of base and tuned and the coder's scratch. */
const DECODE_MEMORY_BYTES = 90 << 20;

export interface OpenOptions extends RemoteAccess {
  readonly signal: AbortSignal;
  /** The best that the file holds by default. */
  readonly quality?: Quality;
  readonly folder?: string;
}

/** SHAPE_MISMATCH, TENSOR_MISSING, NO_EXACT_LAYER (65) or BASE_NOT_FOUND (66) before any work. */
export async function openDelta(deltaPath: string, base: string | undefined, o: OpenOptions): Promise<OpenedDelta> {
  const located = await locateDelta(deltaPath, { ...o, exact: o.quality !== 'lossy' });
  const { delta } = located;
  try {
    const quality = delta.quality(o.quality);
    const named = delta.manifest.base;
    if (named === null) return { ...located, quality, base: undefined, basePath: undefined, baseRef: undefined };
    const basePath = base ?? findBase(deltaPath, named.name);
    const reader = await openAny(basePath);
    for (const t of delta.manifest.tensors) checkBaseShape(t, reader, delta.path);
    return { ...located, quality, base: reader, basePath, baseRef: { path: resolveCheckpoint(basePath), stamp: checkpointStamp(reader) } };
  } catch (error) {
    located[Symbol.dispose]();
    throw error;
  }
}

/** The base that the delta names, beside the delta or in the current folder. */
function findBase(deltaPath: string, name: string): string {
  const folders = [...(isRemote(deltaPath) ? [] : [dirname(resolve(deltaPath))]), process.cwd()];
  // a chain's name is that of its parts
  const chains = folders.map((d) => name.split('+').map((part) => join(d, part)));
  const found = folders.map((d) => join(d, name)).find((p) => existsSync(p)) ?? chains.find((parts) => parts.every((p) => existsSync(p)))?.join('+');
  if (found === undefined) throw new PithError('BASE_NOT_FOUND', { file: deltaPath, base: name });
  return found;
}

/** One task a tensor; `target` says where its bytes go. */
export function decodeJobs(o: RunOptions, opened: OpenedDelta, target: (t: TensorEntry) => DecodeTask['target']): Job<DecodeTask>[] {
  const settings = runSettings(o, 'cpu');
  return opened.delta.manifest.tensors.map((t) => {
    const to = target(t);
    return {
      label: t.name,
      bytes: byteLength(t.dtype, t.shape),
      memoryBytes: DECODE_MEMORY_BYTES,
      task: {
        type: 'decode',
        settings,
        delta: resolve(opened.delta.location),
        ...(opened.mirror === undefined ? {} : { deltaName: opened.delta.path }),
        quality: opened.quality,
        tensor: t.name,
        ...(t.base === undefined || opened.baseRef === undefined ? {} : { base: { checkpoint: opened.baseRef, name: t.name } }),
        ...(to === undefined ? {} : { target: to }),
      },
    };
  });
}
