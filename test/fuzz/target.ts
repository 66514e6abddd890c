/** What the fuzz targets share. */
import { join } from 'node:path';
import type { Pipeline } from '../../core/events.js';
import type { Rng } from '../../core/rng.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import { ROOT } from '../support/files.js';

export interface Target {
  readonly name: string;
  /** Relative frequency. */
  readonly weight: number;
  /** Answers the size of the hostile file; throws what the code under test throws, or a plain Error when a property fails. */
  readonly run: (rng: Rng) => Promise<{ readonly fileBytes: number; readonly error?: unknown }>;
}

export const FIXTURES = join(ROOT, 'test', 'fixtures');
export const RUN = { threads: 1, maxMemoryBytes: 1e9, seed: 0, device: 'cpu' as const, signal: new AbortController().signal };
export const CONTROL = { report: () => undefined, checkpointCancel: () => undefined };

export const pick = <T>(rng: Rng, from: readonly T[]): T => from[rng.integer(from.length)]!;
export const broken = (what: string): never => {
  throw new Error(`property: ${what}`);
};

export async function attempt(fileBytes: number, call: () => Promise<unknown>): Promise<{ fileBytes: number; error?: unknown }> {
  try {
    await call();
    return { fileBytes };
  } catch (error) {
    return { fileBytes, error };
  }
}

export async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}

/** Opens and reads every tensor, whole and by rows. */
export async function readAll(open: () => Promise<CheckpointReader>): Promise<void> {
  await using reader = await open();
  for (const info of reader.infos.values()) {
    const view = await reader.read(info.name);
    const rows = info.shape[0];
    if (rows !== undefined && rows > 0) {
      const part = await reader.read(info.name, [0, 1]);
      if (Buffer.compare(part.bytes, view.bytes.subarray(0, part.bytes.length)) !== 0) broken('a row read differs from the whole');
    }
  }
}
