/** Encoding and restoring from file to file, for tests of the delta codecs. */
import { join } from 'node:path';
import type { Pipeline } from '../../core/events.js';
import { decodeF32, encodeAs } from '../../core/float.js';
import type { TensorView } from '../../core/tensor.js';
import type { DenseDType } from '../../kernels/lowrank/panel.js';
import { deltaEncode, type EncodeOptions, type EncodeReport } from '../../pipelines/delta-encode.js';
import type { RestoreReport } from '../../pipelines/delta-reports.js';
import { deltaRestore } from '../../pipelines/delta-restore.js';
import { openAny } from '../../workers/open.js';
import { TINY, writeSafetensors } from './files.js';

export const RUN = { threads: 2, maxMemoryBytes: 1e9, seed: 0, device: 'cpu' as const, signal: new AbortController().signal };
export const WRITE = { force: false, dryRun: false, resume: true };
export const [BASE, TUNED] = [join(TINY, 'base'), join(TINY, 'tuned')];

export async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}

export interface Pair {
  readonly base: string;
  readonly tuned: string;
}

export function encodePair(pair: Pair, out: string, method: string, params: object = {}, more: Partial<EncodeOptions> = {}): Promise<EncodeReport> {
  return drain(deltaEncode({ ...RUN, ...WRITE, ...pair, out, method, params: { ...params }, selects: () => true, ...more }));
}

export const restoreTo = (base: string, delta: string, out: string): Promise<RestoreReport> => drain(deltaRestore({ ...RUN, ...WRITE, base, delta, out }));

export const view = (name: string, dtype: DenseDType, shape: number[], values: Float32Array): TensorView => ({
  name,
  dtype,
  shape,
  bytes: encodeAs(dtype, values),
});

/** A pair of one matrix `w`: files b and t in the folder. */
export function matrixPair(folder: string, dtype: DenseDType, shape: number[], w0: Float32Array, delta: Float32Array): Pair {
  const pair = { base: join(folder, 'b.safetensors'), tuned: join(folder, 't.safetensors') };
  writeSafetensors(pair.base, [view('w', dtype, shape, w0)]);
  writeSafetensors(pair.tuned, [view('w', dtype, shape, w0.map((v, i) => v + delta[i]!))]); // prettier-ignore
  return pair;
}

/** Stored bytes of every tensor. */
export async function loadBytes(path: string): Promise<Map<string, Uint8Array>> {
  await using reader = await openAny(path);
  const out = new Map<string, Uint8Array>();
  for (const name of reader.infos.keys()) out.set(name, (await reader.read(name)).bytes.slice());
  return out;
}

/** Values of every float tensor. */
export async function loadValues(path: string): Promise<Map<string, Float32Array>> {
  await using reader = await openAny(path);
  const out = new Map<string, Float32Array>();
  for (const [name, info] of reader.infos) out.set(name, Float32Array.from(decodeF32(info.dtype, (await reader.read(name)).bytes)));
  return out;
}
