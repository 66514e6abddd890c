/** Singular values of one matrix, or of what a fine-tune added to it, and what they say about its rank. */
import { Rng } from '../../core/rng.js';
import { matrixShape } from '../../core/shape.js';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import { effectiveRank, gavishDonoho, singularValues, sumOfSquares } from '../../kernels/linalg/truncated-svd.js';
import type { SpectrumResult, SpectrumTask } from '../messages/matrices.js';
import { readF32 } from '../read-matrix.js';
import { HashingSource } from '../sources.js';
import type { TaskControl, WorkerState } from '../state.js';

/** Up to this short side every singular value is computed, in f64; LEADING of them beyond. */
export const FULL_SIDE = { blas: 4096, plain: 1024 };
const LEADING = 256;
/** Values that a report carries of one tensor. */
const SHOWN = 256;

export async function spectrum(state: WorkerState, task: SpectrumTask, control: TaskControl): Promise<SpectrumResult> {
  const tuned = new HashingSource(await state.reader(task.tensor.checkpoint), task.tensor.name);
  const base = task.base === undefined ? undefined : new HashingSource(await state.reader(task.base.checkpoint), task.base.name);
  const [m, n] = matrixShape(tuned.shape);
  const w = await readF32(tuned, control, base);
  const normSq = sumOfSquares(w);
  const known = { norm: Math.sqrt(normSq), side: Math.min(m, n) };
  if (!Number.isFinite(normSq)) return { ...known, finite: false, complete: false, values: [] };
  const ops = await matrixOps({ blasThreads: task.settings.blasThreads });
  const complete = known.side <= (ops.blas === undefined ? FULL_SIDE.plain : FULL_SIDE.blas);
  const rng = new Rng(task.settings.seed).fork(tuned.name);
  const s = await singularValues(w, m, n, { count: complete ? known.side : LEADING, ops, rng });
  const ranks = Object.fromEntries([0.9, 0.95, 0.99].map((share) => [`rank${Math.round(100 * share)}`, rankOfEnergy(s, share * normSq)]));
  return {
    ...known,
    finite: true,
    complete,
    values: Array.from(s.subarray(0, SHOWN)),
    ...ranks,
    ...(complete && normSq > 0 ? { effectiveRank: effectiveRank(s), noiseRank: gavishDonoho(s, m, n) } : {}),
  };
}

/** The least r with sum_{i<=r} s_i^2 >= energy; undefined when the known values do not reach it. */
function rankOfEnergy(s: Float64Array, energy: number): number | undefined {
  if (energy === 0) return 0;
  let kept = 0;
  // the values are sums in another order: allow for their rounding
  const r = s.findIndex((v) => (kept += v * v) >= energy * (1 - 1e-9));
  return r < 0 ? undefined : r + 1;
}
