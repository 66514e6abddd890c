/** Intruder dimensions of one matrix of a fine-tune: singular vectors that its base did not have. */
import { matrixShape } from '../../core/shape.js';
import { intruderDimensions } from '../../kernels/linalg/intruder.js';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import { sumOfSquares } from '../../kernels/linalg/truncated-svd.js';
import type { IntrudersResult, IntrudersTask } from '../messages/matrices.js';
import { readF32 } from '../read-matrix.js';
import { HashingSource } from '../sources.js';
import type { TaskControl, WorkerState } from '../state.js';
import { FULL_SIDE } from './spectrum.js';

export async function intruders(state: WorkerState, task: IntrudersTask, control: TaskControl): Promise<IntrudersResult> {
  const tuned = new HashingSource(await state.reader(task.tuned.checkpoint), task.tuned.name);
  const base = new HashingSource(await state.reader(task.base.checkpoint), task.base.name);
  const [m, n] = matrixShape(tuned.shape);
  const ops = await matrixOps({ blasThreads: task.settings.blasThreads });
  if (Math.min(m, n) > (ops.blas === undefined ? FULL_SIDE.plain : FULL_SIDE.blas)) {
    control.report(tuned.byteLength);
    return { left: 'too large', leading: [], intruders: [] };
  }
  const w1 = await readF32(tuned, control);
  const w0 = await readF32(base, { ...control, report: () => undefined });
  if (!Number.isFinite(sumOfSquares(w0) + sumOfSquares(w1))) return { left: 'not finite', leading: [], intruders: [] };
  return intruderDimensions(w0, w1, m, n, { top: task.top, cosine: task.cosine, ops });
}
