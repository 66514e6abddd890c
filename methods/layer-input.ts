/** What a pruner is given, checked: values that are finite, statistics that are there and fit the layer. */
import { PithError } from '../core/errors.js';
import { tailOf } from '../kernels/sparse/sparsity.js';
import type { FactorStat, FactorStats, LayerWeight, Sparsity } from './kinds.js';

/** NOT_FINITE (exit 65) names the layer and what of it. */
export function requireFinite(layer: LayerWeight, what: string, values: Float32Array): void {
  for (let i = 0; i < values.length; i++) {
    if (values[i]! - values[i]! !== 0) throw new PithError('NOT_FINITE', { message: `layer "${layer.name}": ${what} at ${i} is ${values[i]!}` });
  }
}

/** The statistic, of the right length and finite. INTERNAL when the caller left out what the method needs. */
export function statOf(layer: LayerWeight, stats: FactorStats, stat: FactorStat): Float32Array {
  const values = stats[stat];
  const { m, n } = layer;
  const expected = { inputSqNorm: n, inputAbsMean: n, inputGram: n * n, fisherRow: m, fisherA: n * n, fisherB: m * m }[stat];
  if (values?.length !== expected) {
    throw new PithError('INTERNAL', { message: `layer "${layer.name}": ${stat} has ${values?.length ?? 'no'} values, not ${expected}` });
  }
  requireFinite(layer, stat, values);
  return values;
}

/** BAD_PARAMS for a ratio outside [0, 1] or a pattern that is none. */
export function requireTarget(method: string, target: Sparsity): void {
  const ok =
    target.group === 'n:m'
      ? Number.isInteger(target.keep) && Number.isInteger(target.of) && target.keep >= 0 && target.keep <= target.of && target.of >= 1
      : target.ratio >= 0 && target.ratio <= 1;
  if (!ok) throw new PithError('BAD_PARAMS', { method, message: `a target of ${JSON.stringify(target)}` });
}

/** Runs a kernel on a layer; what is not finite in it is an error that names the layer. */
export function inLayer<T>(layer: LayerWeight, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof PithError && error.code === 'NOT_FINITE') {
      throw new PithError('NOT_FINITE', { message: `layer "${layer.name}": ${String(error.details['message'])}` }, { cause: error });
    }
    throw error;
  }
}

/** What of a run is worth a line in the report. */
export function updateFacts(n: number, target: Sparsity | undefined, dead: number, raised: number): Record<string, number> {
  const tail = target === undefined ? 0 : tailOf(target, n);
  return { ...(dead > 0 ? { deadInputs: dead } : {}), ...(raised > 0 ? { dampingRaised: raised } : {}), ...(tail > 0 ? { denseTail: tail } : {}) };
}
