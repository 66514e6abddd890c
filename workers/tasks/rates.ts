/** What one tensor would cost under a shared budget, point by point. */
import { PithError } from '../../core/errors.js';
import type { RatesResult, RatesTask } from '../messages.js';
import { HashingSource, rowsOf } from '../sources.js';
import type { TaskControl, WorkerState } from '../state.js';

export async function rates(state: WorkerState, task: RatesTask, control: TaskControl): Promise<RatesResult> {
  const tuned = new HashingSource(await state.reader(task.tuned.checkpoint), task.tuned.name);
  const base = new HashingSource(await state.reader(task.base.checkpoint), task.base.name);
  const { budget } = await state.codec(task.method);
  if (budget === undefined) throw new PithError('NO_BUDGET', { method: task.method.name });
  const ctx = state.ctx(task.settings, tuned.name, control);
  const rows = task.commonRows;
  const curve = await budget.rates(ctx, rows === undefined ? base : rowsOf(base, 0, rows), rows === undefined ? tuned : rowsOf(tuned, 0, rows), task.share);
  return { bytes: Array.from(curve.bytes), errorSq: Array.from(curve.errorSq), deltaSq: curve.deltaSq };
}
