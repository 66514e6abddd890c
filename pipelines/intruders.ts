/** Intruder dimensions of what a fine-tune changed (arXiv 2410.21228): for `diff --spectrum`. */
import type { Pipeline } from '../core/events.js';
import type { IntrudersResult, IntrudersTask } from '../workers/messages/matrices.js';
import { eachMatrix, type MatrixOptions } from './matrix-jobs.js';

export interface IntruderOptions extends MatrixOptions {
  readonly base: string;
  /** k: how many leading left singular vectors of the fine-tune are looked at. */
  readonly top: number;
  /** epsilon: a vector whose cosine with every one of the base's is below it is an intruder. */
  readonly cosine: number;
}

export type { IntrudersResult };

/** The published values. */
export const INTRUDER_DEFAULTS = { top: 10, cosine: 0.5 };

/** By tensor name. */
export function intruders(o: IntruderOptions): Pipeline<ReadonlyMap<string, IntrudersResult>> {
  return eachMatrix<IntrudersTask>(o, {
    job: 'intruders',
    // both matrices in f32, one widened to f64; Gram matrix, vectors and LAPACK's work
    memoryBytes: (m, n) => 16 * m * n + 48 * Math.min(m, n) ** 2 + (64 << 20),
    task: (settings, tuned, base) => ({ type: 'intruders', settings, tuned, base: base!, top: o.top, cosine: o.cosine }),
  });
}
