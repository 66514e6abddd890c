/** Factors of one difference W1 - W0 for an adapter, or the errors that ranks would leave. */
import { DTYPES } from '../../core/dtype.js';
import { PithError } from '../../core/errors.js';
import { decodeF32, encodeAs } from '../../core/float.js';
import { panelBuffer } from '../../core/panel-buffer.js';
import { byteLength, matrixShape } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import * as io from '../../formats/io.js';
import { deviceProducts } from '../../kernels/linalg/device-products.js';
import { matrixOps, transposed } from '../../kernels/linalg/matrix-ops.js';
import { lowRankFactors, singularValues } from '../../kernels/linalg/truncated-svd.js';
import { difference, isDense } from '../../kernels/lowrank/panel.js';
import type { Ctx } from '../../methods/define.js';
import type { ExtractResult, ExtractTask, RankRule } from '../messages/adapters.js';
import type { TaskControl, WorkerState } from '../state.js';

const PANEL_VALUES = 1 << 19;

export async function extract(state: WorkerState, task: ExtractTask, control: TaskControl): Promise<ExtractResult> {
  const ctx = state.ctx(task.settings, task.tuned.name, control);
  const base = await state.reader(task.base.checkpoint);
  const tuned = await state.reader(task.tuned.checkpoint);
  const [m, n] = matrixShape(infoOf(tuned, task.tuned.name).shape);
  const { d, same, squares: deltaSq } = await readDifference(ctx, state, [base, task.base.name], [tuned, task.tuned.name]);
  if (same || deltaSq === 0) return { rank: 0, residual: 0, deltaSq: 0, errorSq: [] };
  if (!Number.isFinite(deltaSq)) throw new PithError('NOT_FINITE', { message: `tensor "${task.tuned.name}" of ${tuned.source} against ${base.source}` });
  const ops = await matrixOps(ctx);
  const side = Math.min(m, n, task.rule.maxRank);
  if (task.spool === undefined) {
    const s = await singularValues(d, m, n, { count: side, ops, rng: ctx.rng.fork('svd') });
    return { rank: side, residual: 0, deltaSq, errorSq: errorsLeft(s, deltaSq) };
  }
  const wanted = task.rule.energy === undefined ? side : await rankOfEnergy(d, m, n, task.rule.energy, side, ctx);
  using products = await deviceProducts(ctx.device, ctx.blasThreads);
  const device = products === undefined ? {} : { products };
  const { left, right, s } = await lowRankFactors(d, m, n, { rank: wanted, ops, rng: ctx.rng.fork('svd'), frobeniusSq: deltaSq, ...device });
  ctx.checkpointCancel();
  const rank = keptRank(s, task.rule);
  if (rank > 0) writeFactors(task, left, right, s, rank);
  const kept = s.subarray(0, rank).reduce((sum, v) => sum + v * v, 0);
  return { rank, residual: Math.sqrt(Math.max(0, deltaSq - kept) / deltaSq), deltaSq };
}

function infoOf(reader: CheckpointReader, name: string): TensorInfo {
  const info = reader.infos.get(name);
  if (info === undefined) throw new PithError('TENSOR_MISSING', { file: reader.source, tensor: name });
  return info;
}

type Named = readonly [reader: CheckpointReader, name: string];

interface Read {
  /** f32(W1) - f32(W0), valid until the next call. */
  readonly d: Float32Array;
  /** Every stored byte agrees. */
  readonly same: boolean;
  /** ||D||_F^2 */
  readonly squares: number;
}

async function readDifference(ctx: Ctx, state: WorkerState, base: Named, tuned: Named): Promise<Read> {
  const [i0, i1] = [infoOf(...base), infoOf(...tuned)];
  const [b0, b1] = [DTYPES[i0.dtype].bits / 8, DTYPES[i1.dtype].bits / 8];
  const values = byteLength(i1.dtype, i1.shape) / b1;
  const kernel = await state.panels();
  const d = state.scratch(values);
  const alike = i0.dtype === i1.dtype;
  let [same, squares] = [alike, 0];
  for (let at = 0; at < values; at += PANEL_VALUES) {
    ctx.checkpointCancel();
    const out = d.subarray(at, at + PANEL_VALUES);
    const views = kernel.subtractInputs(out.length * b1);
    const w1 = views.tuned;
    const w0 = alike ? views.base : panelBuffer(out.length * b0, 'extract base');
    await base[0].readInto(base[1], at * b0, w0);
    await tuned[0].readInto(tuned[1], at * b1, w1);
    same &&= Buffer.compare(w0, w1) === 0;
    const sums = alike && isDense(i1.dtype) ? kernel.subtract(i1.dtype, w1, w0, out) : difference(decodeF32(i1.dtype, w1), decodeF32(i0.dtype, w0), out);
    squares += sums[1];
    ctx.report(out.length * b1);
  }
  return { d, same, squares };
}

function errorsLeft(s: Float64Array, deltaSq: number): number[] {
  let left = deltaSq;
  return Array.from(s, (v) => (left = Math.max(0, left - v * v)));
}

/** The smallest r with sum_{i<=r} s_i^2 >= energy ||D||_F^2, at most `most`. */
async function rankOfEnergy(d: Float32Array, m: number, n: number, energy: number, most: number, ctx: Ctx): Promise<number> {
  const s = await singularValues(d, m, n, { count: Math.min(m, n), ops: await matrixOps(ctx), rng: ctx.rng.fork('svd') });
  const total = s.reduce((sum, v) => sum + v * v, 0);
  let kept = 0;
  const r = s.findIndex((v) => (kept += v * v) >= energy * total);
  return r < 0 ? most : Math.min(most, r + 1);
}

function keptRank(s: Float64Array, rule: RankRule): number {
  const { svEpsilon = 0 } = rule;
  return svEpsilon > 0 ? s.filter((v) => v > svEpsilon).length : s.length;
}

/** left: (m, r), right: (r, n), both with sqrt(s), right is used up: A then B in the adapter's type and orientation. */
function writeFactors(task: ExtractTask, left: Float32Array, right: Float32Array, s: Float64Array, rank: number): void {
  const r = s.length;
  const [m, n] = [left.length / r, right.length / r];
  let l = rank === r ? left : new Float32Array(m * rank);
  if (rank < r) for (let i = 0; i < m; i++) l.set(left.subarray(i * r, i * r + rank), i * rank);
  const t = right.subarray(0, rank * n);
  if (!task.distributeScale) {
    // A has all of s
    const [times, over] = [s.map(Math.sqrt), s.map((v) => 1 / Math.sqrt(v))];
    const [ofLeft, ofRight] = task.transposed ? [times, over] : [over, times];
    l = l.map((v, i) => v * ofLeft[i % rank]!);
    for (let k = 0; k < rank; k++) for (let j = 0; j < n; j++) t[k * n + j] = t[k * n + j]! * ofRight[k]!;
  }
  const [a, b] = task.transposed ? [transposed(l, m, rank), transposed(t, rank, n)] : [t, l];
  writeSpool(task.spool!, [encodeAs(task.dtype, a), encodeAs(task.dtype, b)]);
}

/** Arrays one after the other in a file of its own. */
export function writeSpool(file: string, arrays: readonly Uint8Array[]): void {
  const fd = io.openWrite(file, 'w+');
  try {
    let at = 0;
    for (const bytes of arrays) {
      io.writeFully(fd, bytes, at, file);
      at += bytes.length;
    }
  } finally {
    io.close(fd);
  }
}
