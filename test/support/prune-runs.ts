/** Running prune in tests, and what its outputs hold. */
import { readFileSync } from 'node:fs';
import { decodeF32 } from '../../core/float.js';
import { openCheckpoint } from '../../formats/open-checkpoint.js';
import { prune } from '../../pipelines/prune/prune.js';
import type { PruneOptions, PruneTarget } from '../../pipelines/prune/plan.js';
import type { PruneReport } from '../../pipelines/prune/report.js';
import { drain, RUN } from './adapters.js';
import { dataOf, runCalibrate } from './calibration.js';

export const IDS = Array.from({ length: 6 }, (_, s) => Array.from({ length: 24 }, (_, i) => (i * 7 + s * 11 + ((i * s) % 5)) % 48));

/** The same sequences as a text is. */
export const DATA = { windows: () => Promise.resolve(dataOf(IDS)), identity: { ids: IDS } };

export const HALF: PruneTarget = { group: 'row', ratio: 0.5 };

export function optionsOf(
  checkpoint: string,
  out: string,
  more: Partial<PruneOptions> & { readonly name?: string; readonly target?: PruneTarget; readonly params?: object } = {},
): PruneOptions {
  const { name = 'wanda', target = HALF, params = {}, ...rest } = more;
  const plain = { save: 'dense' as const, oneShot: false, trueSequential: false, selects: () => true, force: false, dryRun: false, resume: true };
  return { ...RUN, checkpoint, out, choose: { method: { name, params }, target }, ...plain, ...rest };
}

export const runPrune = (checkpoint: string, out: string, more: Parameters<typeof optionsOf>[2] = {}): Promise<PruneReport> =>
  drain(prune(optionsOf(checkpoint, out, more)));

export async function statsOf(checkpoint: string, out: string, more: Parameters<typeof runCalibrate>[3] = {}): Promise<string> {
  await runCalibrate(checkpoint, out, dataOf(IDS), more);
  return out;
}

export interface Stored {
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly values: Float32Array;
  readonly bytes: Uint8Array;
}

export async function tensorsOf(path: string): Promise<{ tensors: Map<string, Stored>; metadata: Readonly<Record<string, string>> }> {
  await using reader = await openCheckpoint(path);
  const tensors = new Map<string, Stored>();
  for (const [name, info] of reader.infos) {
    const { bytes } = await reader.read(name);
    tensors.set(name, { ...info, bytes, values: info.dtype === 'BOOL' ? Float32Array.from(bytes) : decodeF32(info.dtype, bytes) });
  }
  return { tensors, metadata: reader.metadata };
}

export const zerosOf = (values: ArrayLike<number>): number => Array.from(values).filter((v) => Object.is(v, 0)).length;

export const sameFile = (a: string, b: string): boolean => readFileSync(a).equals(readFileSync(b));
