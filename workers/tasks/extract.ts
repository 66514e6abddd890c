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
import { lowRankFactors, singularValues, sumOfSquares } from '../../kernels/linalg/truncated-svd.js';
import { isDense } from '../../kernels/lowrank/panel.js';
import type { Ctx } from '../../methods/define.js';
import type { ExtractResult, ExtractTask, RankRule } from '../messages.js';
import type { TaskControl, WorkerState } from '../state.js';

const PANEL_VALUES = 1 << 19;

export async function extract(state: WorkerState, task: ExtractTask, control: TaskControl): Promise<ExtractResult> {
  const ctx = state.ctx(task.settings, task.tuned.name, control);
  const base = await state.reader(task.base.checkpoint);
  const tuned = await state.reader(task.tuned.checkpoint);
  const [m, n] = matrixShape(infoOf(tuned, task.tuned.name).shape);
  const d = await difference(ctx, state, [base, task.base.name], [tuned, task.tuned.name]);
  const deltaSq = d === undefined ? 0 : sumOfSquares(d);
  if (d === undefined || deltaSq === 0) return { rank: 0, residual: 0, deltaSq: 0, errorSq: [] };
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

/** f32(W1) - f32(W0), valid until the next call; undefined when every stored byte agrees. */
async function difference(ctx: Ctx, state: WorkerState, base: Named, tuned: Named): Promise<Float32Array | undefined> {
  const [i0, i1] = [infoOf(...base), infoOf(...tuned)];
  const [b0, b1] = [DTYPES[i0.dtype].bits / 8, DTYPES[i1.dtype].bits / 8];
  const values = byteLength(i1.dtype, i1.shape) / b1;
  const kernel = await state.panels();
  const d = state.scratch(values);
  let same = i0.dtype === i1.dtype;
  for (let at = 0; at < values; at += PANEL_VALUES) {
    ctx.checkpointCancel();
    const out = d.subarray(at, at + PANEL_VALUES);
    const w0 = panelBuffer(out.length * b0, 'extract base');
    const w1 = panelBuffer(out.length * b1, 'extract tuned');
    await base[0].readInto(base[1], at * b0, w0);
    await tuned[0].readInto(tuned[1], at * b1, w1);
    same &&= Buffer.compare(w0, w1) === 0;
    if (i0.dtype === i1.dtype && isDense(i1.dtype)) kernel.subtract(i1.dtype, w1, w0, out);
    else {
      const [x, y] = [decodeF32(i1.dtype, w1), decodeF32(i0.dtype, w0)];
      for (let i = 0; i < out.length; i++) out[i] = x[i]! - y[i]!;
    }
    ctx.report(out.length * b1);
  }
  return same ? undefined : d;
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

/** left: (m, r), right: (r, n), both with sqrt(s): A then B in the adapter's type and orientation. */
function writeFactors(task: ExtractTask, left: Float32Array, right: Float32Array, s: Float64Array, rank: number): void {
  const r = s.length;
  const [m, n] = [left.length / r, right.length / r];
  const root = s.map(Math.sqrt);
  // what a factor is multiplied by: A has all of s when the scale is not distributed
  const scale = (isA: boolean, k: number): number => (task.distributeScale ? 1 : isA ? root[k]! : 1 / root[k]!);
  const l = new Float32Array(m * rank);
  for (let i = 0; i < m; i++) for (let k = 0; k < rank; k++) l[i * rank + k] = left[i * r + k]! * scale(task.transposed, k);
  const t = right.slice(0, rank * n);
  if (!task.distributeScale) for (let k = 0; k < rank; k++) for (let j = 0; j < n; j++) t[k * n + j] = t[k * n + j]! * scale(!task.transposed, k);
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
