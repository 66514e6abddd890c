/** What `pith factorize` says of its result. */
import type { LinearLayer } from '../linear-layers.js';
import { factorParameters } from './ranks.js';
import type { FactorizeResult } from '../../workers/messages/layers.js';

export interface FactorizedLayer {
  readonly name: string;
  readonly m: number;
  readonly n: number;
  /** Absent: the layer stays as it is, its factors would be no smaller. */
  readonly rank?: number;
  /** Share of its parameters. */
  readonly kept: number;
  /** What the rank leaves in the method's metric. */
  readonly error: number;
  /** ||What - W||_F / ||W||_F */
  readonly weightError: number;
  /** sqrt(tr(D G D^T) / tr(W G W^T)), G = X^T X, where the statistics have it. */
  readonly outputError?: number;
  readonly facts: Readonly<Record<string, number | string>>;
}

export interface FactorizePrediction {
  readonly bytes: number;
  readonly peakBytes: number;
}

export interface FactorizeReport {
  readonly out: string;
  readonly method: string;
  readonly save: 'factors' | 'dense';
  readonly bytes: number;
  /** Of the checkpoint's tensors. */
  readonly rawBytes: number;
  readonly device: 'cpu';
  /** Of the chosen layers: share of their parameters that the ranks keep. */
  readonly kept: number;
  /** Of the whole model as the ranks have it. */
  readonly parameters: number;
  readonly rawParameters: number;
  /** Content hash of the checkpoint that was factorized; absent in a dry run. */
  readonly source?: string;
  readonly layers: readonly FactorizedLayer[];
  readonly plan?: FactorizePrediction;
}

export function layerReport(l: LinearLayer, rank: number | undefined, r: FactorizeResult | undefined): FactorizedLayer {
  const { module: name, m, n } = l;
  const kept = rank === undefined ? 1 : factorParameters(l, rank) / (m * n);
  const { error = 0, weightError = 0, outputError, facts = {} } = r ?? {};
  return { name, m, n, ...(rank === undefined ? {} : { rank }), kept, error, weightError, ...(outputError === undefined ? {} : { outputError }), facts };
}

/** Share of the layers' parameters. */
export function keptShare(layers: readonly FactorizedLayer[]): number {
  const whole = layers.reduce((sum, l) => sum + l.m * l.n, 0);
  return whole > 0 ? layers.reduce((sum, l) => sum + l.kept * l.m * l.n, 0) / whole : 1;
}
