/** What every published method states about itself; the registry (`index.ts`) maps names to files. */
import type { z } from 'zod';
import type { Device } from '../core/device.js';
import type { Rng } from '../core/rng.js';

export type Kind = 'delta' | 'prune' | 'factor' | 'quant' | 'adapter' | 'recipe';

/** What a method may use of its surroundings: no files, no threads, no clock. */
export interface Ctx {
  readonly device: Device;
  readonly rng: Rng;
  /** BLAS threads this task may use. */
  readonly blasThreads: number;
  /** Bytes of host memory this task may hold beyond its inputs' panels. */
  readonly memoryBytes: number;
  /** Adds to the job's progress. */
  report(bytes: number): void;
  /** Throws CANCELLED when the user has cancelled; called between panels. */
  checkpointCancel(): void;
}

export interface Method<K extends Kind, Impl> {
  readonly kind: K;
  readonly name: string;
  readonly title: string;
  readonly paper: { readonly cite: string; readonly url: string };
  readonly params: z.ZodType;
  /** Parameters that differ from the defaults when a size is asked for: finer factors are worth less than more of them, say. */
  readonly budgetParams?: Readonly<Record<string, unknown>>;
  /** Parses the parameters once (BAD_PARAMS, exit 64) and closes over them. */
  create(rawParams: unknown): Impl;
}
