/** Singular values of the matrices of a checkpoint, or of what a fine-tune added to them: for `inspect` and `diff`. */
import type { Pipeline } from '../core/events.js';
import type { SpectrumResult, SpectrumTask } from '../workers/messages/matrices.js';
import { eachMatrix, type MatrixOptions } from './matrix-jobs.js';

/** With a base: the spectra of checkpoint - base. */
export type SpectrumOptions = MatrixOptions;

/** What is known of one matrix; `values` are its leading singular values, falling. */
export type Spectrum = SpectrumResult;

/** By tensor name. */
export function spectra(o: SpectrumOptions): Pipeline<ReadonlyMap<string, Spectrum>> {
  return eachMatrix<SpectrumTask>(o, {
    job: 'spectrum',
    memoryBytes: (m, n) => 4 * m * n + 16 * Math.min(m, n) ** 2 + (64 << 20),
    task: (settings, tensor, base) => ({ type: 'spectrum', settings, tensor, ...(base === undefined ? {} : { base }) }),
  });
}
