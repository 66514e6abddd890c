/** One module of an adapter with fewer components, or with its scaling in the factors. */
import { PithError } from '../../core/errors.js';
import { decodeF32, encodeAs } from '../../core/float.js';
import { matrixOps, transposed } from '../../kernels/linalg/matrix-ops.js';
import { productSvd, type ProductSvd } from '../../kernels/lowrank/resize.js';
import type { LoraModule } from '../../formats/adapter/adapter.js';
import type { ResizeResult, ResizeTask } from '../messages/adapters.js';
import type { TaskControl, WorkerState } from '../state.js';
import { writeSpool } from './extract.js';

interface Factors {
  /** (rank, n) */
  readonly a: Float32Array;
  /** (m, rank) */
  readonly b: Float32Array;
  readonly rank: number;
}

export async function resize(state: WorkerState, task: ResizeTask, control: TaskControl): Promise<ResizeResult> {
  control.checkpointCancel();
  const adapter = await state.adapter(task.adapter);
  const module = adapter.modules.get(task.module);
  if (module === undefined) throw new PithError('INTERNAL', { message: `module "${task.module}" is not in ${adapter.folder}` });
  const values = (info: LoraModule['a']): Float32Array => {
    const out = decodeF32(info.dtype, adapter.bytes(info));
    if (!out.every(Number.isFinite)) throw new PithError('NOT_FINITE', { message: `tensor "${info.name}" of ${adapter.folder}` });
    return out;
  };
  const full: Factors = { a: values(module.a), b: values(module.b), rank: module.rank };
  const svd = productSvd(full.a, full.b, module.rank, await matrixOps({ blasThreads: task.settings.blasThreads }));
  const total = svd.s.reduce((sum, v) => sum + v * v, 0);
  const wanted = rankOf(svd.s, total, task);
  // what is not cut stays as it is
  const kept = wanted >= module.rank ? full : cut(svd, wanted, full);
  const left = svd.s.subarray(kept.rank).reduce((sum, v) => sum + v * v, 0);
  write(task, kept);
  control.report(full.a.length + full.b.length);
  return { rank: task.padTo ?? kept.rank, error: total > 0 ? Math.sqrt(left / total) : 0, normSq: total * module.scaling ** 2 };
}

/** A product of zero keeps one component of zeros. */
function cut(svd: ProductSvd, rank: number, full: Factors): Factors {
  const r = Math.min(rank, svd.s.length);
  if (r > 0) return { ...svd.keep(r), rank: r };
  return { a: new Float32Array(full.a.length / full.rank), b: new Float32Array(full.b.length / full.rank), rank: 1 };
}

/** At least one component, so that the module stays what it was: an adapted one. */
function rankOf(s: Float64Array, total: number, task: ResizeTask): number {
  const { maxRank, energy } = task.rule;
  if (energy === undefined) return maxRank;
  let sum = 0;
  const r = s.findIndex((v) => (sum += v * v) >= energy * total);
  return Math.max(1, Math.min(maxRank, r < 0 ? s.length : r + 1));
}

/** B times the task's scaling; zero components up to `padTo`. */
function write(task: ResizeTask, { a, b, rank }: Factors): void {
  const r = task.padTo ?? rank;
  const [n, m] = [a.length / rank, b.length / rank];
  const wideA = new Float32Array(r * n);
  wideA.set(a);
  const wideB = new Float32Array(m * r);
  for (let i = 0; i < m; i++) for (let k = 0; k < rank; k++) wideB[i * r + k] = Math.fround(b[i * rank + k]! * task.scaling);
  const parts = task.transposed === true ? [transposed(wideA, r, n), transposed(wideB, m, r)] : [wideA, wideB];
  writeSpool(
    task.spool,
    parts.map((p) => encodeAs(task.dtype, p)),
  );
}
