/**
 * ERE (Efficient Residual Encoding): "Efficient Storage of Fine-Tuned Models via Low-Rank Approximation of Weight Residuals",
 * Simo Ryu, Seunghyun Seo, Jaejun Yoo, 2023, https://arxiv.org/abs/2305.18425
 *
 *   D = f32(W1) - f32(W0);   D ~ U_r S_r V_r^T;   B = U_r sqrt(S_r),  A = sqrt(S_r) V_r^T      (balanced split)
 *   W1' = round(f32(W0) + B A), the product in a fixed order (kernels/lowrank/panel.ts)
 * Rank: fixed; by energy, the smallest r with sum_{i<=r} s_i^2 >= eta ||D||_F^2; or from a budget shared over all tensors
 * (water-filling on s_i^2 per byte: kernels/lowrank/water-fill.ts; the paper leaves its exact rule open).
 * Deviations: the factors are not clamped to a quantile; integer factors have one scale per component (int8) or per 64
 * values of a component (int4); a rank that costs as much as the dense matrix is stored losslessly instead.
 */
import * as z from 'zod';
import { DTYPES } from '../../core/dtype.js';
import { matrixShape } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import { deviceProducts } from '../../kernels/linalg/device-products.js';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import { lowRankFactors, singularValues } from '../../kernels/linalg/truncated-svd.js';
import { componentBytes, FACTOR_FORMATS, factorShapes, loadFactor, storeFactor, type Axis, type StoredFactor } from '../../kernels/lowrank/factors.js';
import type { RateCurve } from '../../kernels/lowrank/water-fill.js';
import { DECLINED, DeltaMatrix, isDenseMatrix } from '../delta-matrix.js';
import type { Ctx, Method } from '../define.js';
import type { Assigned, BudgetedCodec, DeltaCodec, EncodeInfo, PartSink, PartSource, TensorPlan, TensorSink, TensorSource } from '../kinds.js';
import { parseParams } from '../params.js';
import { addFactored, checkPart, requireBase, writePart } from '../restore-panels.js';

/** The sheet's eta, for when no rank is asked for. */
const DEFAULT_ENERGY = 0.95;
/** A rate curve reaches to this multiple of the rank that an even share would give. */
const RANK_HEADROOM = 8;
const SCRATCH_BYTES = 96 << 20;

const params = z
  .strictObject({
    rank: z.int().positive().optional().describe('components kept in every matrix'),
    energy: z.number().gt(0).max(1).optional().describe('share of ||D||_F^2 kept in every matrix (default 0.95)'),
    factors: z.enum(FACTOR_FORMATS).default('bf16').describe('how the factors are stored'),
  })
  .refine((p) => p.rank === undefined || p.energy === undefined, 'give rank or energy, not both');
type Params = z.infer<typeof params>;

class Ere implements DeltaCodec {
  readonly lossless = false;
  readonly version = 1;
  readonly budget: BudgetedCodec = {
    rates: (c, base, tuned, share) => this.#rates(c, base, tuned, share),
    // point p of the curve is rank p + 1
    assign: (point) => ({ rank: point + 1 }),
  };
  readonly #matrix = new DeltaMatrix();

  constructor(private readonly p: Params) {}

  accepts(plan: TensorPlan): boolean {
    return isDenseMatrix(plan) && (this.p.rank === undefined || this.#pays(plan, this.p.rank));
  }

  memoryBytes(plan: TensorPlan): number {
    const [m, n] = matrixShape(plan.shape);
    return SCRATCH_BYTES + 4 * m * n + 8 * Math.min(m, n) ** 2;
  }

  #component(info: TensorInfo): number {
    const [m, n] = matrixShape(info.shape);
    return componentBytes(this.p.factors, m) + componentBytes(this.p.factors, n);
  }

  #pays(info: TensorInfo, rank: number): boolean {
    const [m, n] = matrixShape(info.shape);
    return rank * this.#component(info) < (m * n * DTYPES[info.dtype].bits) / 8;
  }

  async encode(c: Ctx, base: TensorSource | undefined, tuned: TensorSource, parts: PartSink, assigned: Assigned): Promise<EncodeInfo> {
    if (base === undefined) return DECLINED;
    const [m, n] = matrixShape(tuned.shape);
    const { delta, same, norm } = await this.#matrix.read(c, base, tuned);
    if (same) return { identical: true, facts: {} };
    if (!Number.isFinite(norm)) return DECLINED;
    const ops = await matrixOps(c);
    const rank = Math.min(assigned['rank'] ?? this.p.rank ?? (await rankOfEnergy(delta, m, n, this.p.energy ?? DEFAULT_ENERGY, ops, c)), m, n);
    if (!this.#pays(tuned, rank)) return DECLINED;
    // B A = W V V^T, both factors with sqrt(s_k)
    using products = await deviceProducts(c.device, c.blasThreads);
    const device = products === undefined ? {} : { products };
    const { left, right, s, residualFro } = await lowRankFactors(delta, m, n, { rank, ops, rng: c.rng.fork('svd'), frobeniusSq: norm, ...device });
    c.checkpointCancel();
    const r = s.length;
    await writeFactor(parts, 'lora_A', storeFactor(right, r, n, 'rows', this.p.factors));
    await writeFactor(parts, 'lora_B', storeFactor(left, m, r, 'columns', this.p.factors));
    return { identical: false, facts: { rank: r, residual: norm > 0 ? residualFro / Math.sqrt(norm) : 0 } };
  }

  async #rates(c: Ctx, base: TensorSource, tuned: TensorSource, share: number): Promise<RateCurve> {
    const [m, n] = matrixShape(tuned.shape);
    const { delta, same, norm: deltaSq } = await this.#matrix.read(c, base, tuned);
    if (same) return { bytes: [0], errorSq: [0], deltaSq: 0 };
    const cost = this.#component(tuned);
    const dense = (m * n * DTYPES[tuned.dtype].bits) / 8;
    if (!Number.isFinite(deltaSq)) return { bytes: [dense], errorSq: [0], deltaSq: 0 };
    const most = Math.max(1, Math.min(m, n, Math.ceil(dense / cost) - 1, Math.ceil((RANK_HEADROOM * share * dense) / cost) + 16));
    const s = await singularValues(delta, m, n, { count: most, ops: await matrixOps(c), rng: c.rng.fork('svd') });
    let left = deltaSq;
    const errorSq = Array.from(s.subarray(0, most), (v) => (left = Math.max(0, left - v * v)));
    return { bytes: errorSq.map((_, i) => (i + 1) * cost), errorSq, deltaSq };
  }

  async decode(c: Ctx, base: TensorSource | undefined, parts: PartSource, target: TensorInfo, out: TensorSink): Promise<void> {
    const [m, n] = matrixShape(target.shape);
    const rank = parts.info('lora_A').shape[0] ?? 0;
    requireBase(base, target, 'lora_A');
    const a = await this.#read(parts, 'lora_A', rank, n, 'rows');
    const b = await this.#read(parts, 'lora_B', m, rank, 'columns');
    await addFactored(c, await this.#matrix.panels(), base, target, out, a, b, rank);
  }

  async #read(parts: PartSource, name: string, rows: number, columns: number, axis: Axis): Promise<Float32Array> {
    const expected = factorShapes(rows, columns, axis, this.p.factors);
    checkPart(parts, name, expected.values.dtype, expected.values.shape);
    if (expected.scale !== undefined) checkPart(parts, `${name}.scale`, expected.scale.dtype, expected.scale.shape);
    const values = { ...expected.values, bytes: await parts.read(name) };
    const scale = expected.scale === undefined ? {} : { scale: { ...expected.scale, bytes: await parts.read(`${name}.scale`) } };
    return loadFactor({ values, ...scale }, rows, columns, axis, this.p.factors);
  }
}

async function writeFactor(parts: PartSink, name: string, { values, scale }: StoredFactor): Promise<void> {
  await writePart(parts, name, values.dtype, values.shape, values.bytes);
  if (scale !== undefined) await writePart(parts, `${name}.scale`, scale.dtype, scale.shape, scale.bytes);
}

/** The smallest r with sum_{i<=r} s_i^2 >= eta ||D||_F^2. */
async function rankOfEnergy(delta: Float32Array, m: number, n: number, eta: number, ops: Awaited<ReturnType<typeof matrixOps>>, c: Ctx): Promise<number> {
  const s = await singularValues(delta, m, n, { count: Math.min(m, n), ops, rng: c.rng.fork('svd') });
  const total = s.reduce((sum, v) => sum + v * v, 0);
  let kept = 0;
  const r = s.findIndex((v) => (kept += v * v) >= eta * total);
  return r < 0 ? s.length : r + 1;
}

const method: Method<'delta', DeltaCodec> = {
  kind: 'delta',
  name: 'ere',
  title: 'Low-rank factors of the weight residual, their rank fixed, by energy or from a shared budget',
  paper: {
    cite: 'Ryu, Seo, Yoo, "Efficient Storage of Fine-Tuned Models via Low-Rank Approximation of Weight Residuals", 2023',
    url: 'https://arxiv.org/abs/2305.18425',
  },
  params,
  // int8 gives more components for the same bytes
  budgetParams: { factors: 'int8' },
  create: (raw) => new Ere(parseParams('ere', params, raw)),
};
export default method;
