/**
 * Calibration samples as GPTQ draws them from one long text (IST-DASLab/gptq, datautils.py, get_wikitext2): `nsamples` windows of `seqlen` tokens,
 * each begun at a place drawn uniformly and with replacement from the tokens - seqlen first ones. The generator is pith's own, so the places
 * depend on the seed, the number of tokens and `seqlen` alone; the first k of more samples are those of k samples.
 */
import type { Rng } from '../../core/rng.js';
import { requireTokens } from './window.js';

export interface CalibrationOptions {
  readonly nsamples: number;
  readonly seqlen: number;
  /** Seeded by the caller; forked here. */
  readonly rng: Rng;
  readonly source: string;
}

/** (nsamples) windows of (seqlen) ids, views of `ids`. DATASET_SHORT (65) when there is not one window. */
export function calibrationWindows(ids: Int32Array, { nsamples, seqlen, rng, source }: CalibrationOptions): Int32Array[] {
  requireTokens(ids.length, seqlen, source);
  const places = rng.fork('calibration windows');
  // a text of just one window has one place
  const count = Math.max(1, ids.length - seqlen);
  return Array.from({ length: nsamples }, () => {
    const begin = places.integer(count);
    return ids.subarray(begin, begin + seqlen);
  });
}
