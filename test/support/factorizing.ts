/** Running factorize in tests. */
import { factorize } from '../../pipelines/factorize/factorize.js';
import type { FactorizeOptions } from '../../pipelines/factorize/plan.js';
import type { FactorizeReport } from '../../pipelines/factorize/report.js';
import { drain, RUN } from './adapters.js';
import { dataOf, runCalibrate } from './calibration.js';

export const IDS = Array.from({ length: 12 }, (_, s) => Array.from({ length: 24 }, (_, i) => (i * 7 + s * 11 + ((i * s) % 5)) % 48));

export function optionsOf(checkpoint: string, out: string, more: Partial<FactorizeOptions> & { readonly name?: string } = {}): FactorizeOptions {
  const { name = 'svd', ...rest } = more;
  const plain = { target: { ratio: 0.6, allocation: 'uniform' }, save: 'factors', selects: () => true, force: false, dryRun: false, resume: true } as const;
  return { ...RUN, checkpoint, out, method: { name, params: {} }, ...plain, ...rest };
}

export const runFactorize = (checkpoint: string, out: string, more: Parameters<typeof optionsOf>[2] = {}): Promise<FactorizeReport> =>
  drain(factorize(optionsOf(checkpoint, out, more)));

/** All statistics of a small model. */
export async function statsOf(checkpoint: string, out: string, more: Parameters<typeof runCalibrate>[3] = {}): Promise<string> {
  await runCalibrate(checkpoint, out, dataOf(IDS), { fisher: ['fisherRow', 'fisherA', 'fisherB'], ...more });
  return out;
}
