/** What one tensor would cost under a shared budget, point by point, by every codec that may take it. */
import { PithError } from '../../core/errors.js';
import type { RatesResult, RatesTask } from '../messages/delta.js';
import { rowsOf, sourceOf } from '../sources.js';
import type { TaskControl, WorkerState } from '../state.js';

export async function rates(state: WorkerState, task: RatesTask, control: TaskControl): Promise<RatesResult[]> {
  const tuned = sourceOf(await state.reader(task.tuned.checkpoint), task.tuned.name);
  const base = sourceOf(await state.reader(task.base.checkpoint), task.base.name);
  const rows = task.commonRows;
  const [w0, w1] = rows === undefined ? [base, tuned] : [rowsOf(base, 0, rows), rowsOf(tuned, 0, rows)];
  const curves: RatesResult[] = [];
  const rival = (bytes: number): number => Math.min(...curves.map((c) => leastError(c, bytes)));
  // one reads the tensor twice, another in places: each counts as its part of the whole
  const ctx = state.ctx(task.settings, tuned.name, { ...control, report: () => undefined });
  for (const method of task.methods) {
    const { budget } = await state.codec(method);
    if (budget === undefined) throw new PithError('NO_BUDGET', { method: method.name });
    const curve = await budget.rates(ctx, w0, w1, task.share, rival);
    curves.push({ bytes: Array.from(curve.bytes), errorSq: Array.from(curve.errorSq), deltaSq: curve.deltaSq });
    control.report(tuned.byteLength / task.methods.length);
  }
  return curves;
}

/** Squared error of the best point that takes at most `bytes`. */
function leastError(curve: RatesResult, bytes: number): number {
  let least = curve.deltaSq > 0 ? curve.deltaSq : Infinity;
  for (const [i, b] of curve.bytes.entries()) if (b <= bytes) least = Math.min(least, curve.errorSq[i]!);
  return least;
}
