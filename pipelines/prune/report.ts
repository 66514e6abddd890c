/** What `pith prune` says of its result. */
import type { PruneResult } from '../../workers/messages/layers.js';
import type { LinearLayer } from '../linear-layers.js';

export interface PrunedTensor {
  readonly name: string;
  readonly m: number;
  readonly n: number;
  /** Share of zeros. */
  readonly sparsity: number;
  /** What the layer's output loses, as a share. */
  readonly error: number;
  /** Of the whole output; of its diagonal form, from square norms alone; of the weight, where nothing is known of the inputs. */
  readonly errorOf: PruneResult['errorOf'];
  readonly ms: number;
  readonly facts: Readonly<Record<string, number | string>>;
}

export interface PrunePrediction {
  readonly bytes: number;
  /** Disk beside the result while it is made. */
  readonly spoolBytes: number;
  readonly peakBytes: number;
}

export interface PruneReport {
  readonly out: string;
  /** "mask" where masks were given. */
  readonly method: string;
  readonly update?: string;
  readonly structure: string;
  /** Share of zeros that was asked for, of the chosen layers' weights. */
  readonly target?: number;
  readonly sparsity: number;
  /** "weights", "stats", "one-shot", "sequential" or "true-sequential". */
  readonly mode: string;
  readonly bytes: number;
  readonly rawBytes: number;
  readonly device: string;
  /** Content hash of the checkpoint; absent in a dry run. */
  readonly source?: string;
  readonly mask?: string;
  /** Layers that are pruned. */
  readonly layers: number;
  readonly tensors: readonly PrunedTensor[];
  readonly warnings: readonly string[];
  readonly plan?: PrunePrediction;
}

export function tensorReport({ weight, m, n }: LinearLayer, r: PruneResult): PrunedTensor {
  const { zeros, values, error, errorOf, ms, facts } = r;
  return { name: weight.name, m, n, sparsity: values === 0 ? 0 : zeros / values, error, errorOf, ms: Math.round(ms), facts };
}

/** Zeros of all layers together. */
export function achieved(results: Iterable<PruneResult>): number {
  let [zeros, values] = [0, 0];
  for (const r of results) [zeros, values] = [zeros + r.zeros, values + r.values];
  return values === 0 ? 0 : zeros / values;
}

/** A layer that loses more of its output than that is seldom of use to the layers behind it. */
const SHARP = 0.5;

/** Doubts about the result, in words. */
export function doubts(tensors: readonly PrunedTensor[]): string[] {
  const lost = tensors.filter((t) => t.error > SHARP);
  if (lost.length === 0) return [];
  const worst = lost.reduce((a, b) => (a.error >= b.error ? a : b));
  const what = worst.errorOf === 'weight' ? 'their weight' : 'their output';
  return [
    `${lost.length} of ${tensors.length} layers lose more than half of ${what}, "${worst.name}" ${(100 * worst.error).toFixed(0)} %: expect a sharp drop in quality`,
  ];
}
