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
import { PithError } from '../../core/errors.js';
import { matrixShape } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import { deviceProducts } from '../../kernels/linalg/device-products.js';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import { lowRankFactors, singularValues } from '../../kernels/linalg/truncated-svd.js';
import { componentBytes, FACTOR_FORMATS, factorShapes, loadFactor, storeFactor, type Axis, type StoredFactor } from '../../kernels/lowrank/factors.js';
import { isDense } from '../../kernels/lowrank/panel.js';
import type { RateCurve } from '../../kernels/lowrank/water-fill.js';
import { DeltaMatrix, PANEL_VALUES } from '../delta-matrix.js';
import type { Ctx, Method } from '../define.js';
import type { Assigned, BudgetedCodec, DeltaCodec, EncodeInfo, PartSink, PartSource, TensorPlan, TensorSink, TensorSource } from '../kinds.js';

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
    const [m, n] = matrixShape(plan.shape);
    return plan.hasBase && isDense(plan.dtype) && plan.shape.length >= 2 && m > 1 && n > 1 && (this.p.rank === undefined || this.#pays(plan, this.p.rank));
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
    const none = { identical: false, declined: true, facts: {} } as const;
    if (base === undefined) return none;
    const [m, n] = matrixShape(tuned.shape);
    const { delta, same, norm } = await this.#matrix.read(c, base, tuned);
    if (same) return { identical: true, facts: {} };
    if (!Number.isFinite(norm)) return none;
    const ops = await matrixOps(c);
    const rank = Math.min(assigned['rank'] ?? this.p.rank ?? (await rankOfEnergy(delta, m, n, this.p.energy ?? DEFAULT_ENERGY, ops, c)), m, n);
    if (!this.#pays(tuned, rank)) return none;
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
    if (base === undefined || !isDense(target.dtype)) throw malformed('lora_A', 'a float base tensor', target.dtype);
    const a = await this.#read(parts, 'lora_A', rank, n, 'rows');
    const b = await this.#read(parts, 'lora_B', m, rank, 'columns');
    const rows = Math.max(1, Math.floor(PANEL_VALUES / n));
    const panels = (await this.#matrix.panels()).factor(a, rank, n, Math.min(rows, m));
    const rowBytes = (n * DTYPES[target.dtype].bits) / 8;
    const buffer = new Uint8Array(Math.min(rows, m) * rowBytes);
    for (let i = 0; i < m; i += rows) {
      c.checkpointCancel();
      const count = Math.min(rows, m - i);
      const w0 = buffer.subarray(0, count * rowBytes);
      await base.readInto(i * rowBytes, w0);
      await out.write(i * rowBytes, panels.add(target.dtype, w0, b.subarray(i * rank, (i + count) * rank)));
      c.report(w0.length);
    }
  }

  async #read(parts: PartSource, name: string, rows: number, columns: number, axis: Axis): Promise<Float32Array> {
    const expected = factorShapes(rows, columns, axis, this.p.factors);
    const check = (part: string, want: { dtype: string; shape: readonly number[] }): void => {
      const got = parts.info(part);
      if (got.dtype !== want.dtype || got.shape.join() !== want.shape.join()) {
        throw malformed(part, `${want.dtype} [${want.shape.join()}]`, `${got.dtype} [${got.shape.join()}]`);
      }
    };
    check(name, expected.values);
    if (expected.scale !== undefined) check(`${name}.scale`, expected.scale);
    const values = { ...expected.values, bytes: await parts.read(name) };
    const scale = expected.scale === undefined ? {} : { scale: { ...expected.scale, bytes: await parts.read(`${name}.scale`) } };
    return loadFactor({ values, ...scale }, rows, columns, axis, this.p.factors);
  }
}

const malformed = (part: string, expected: string, got: string): PithError => new PithError('FACTORS_MALFORMED', { part, expected, got });

async function writeFactor(parts: PartSink, name: string, f: StoredFactor): Promise<void> {
  const stored = f.scale === undefined ? [[name, f.values] as const] : [[name, f.values] as const, [`${name}.scale`, f.scale] as const];
  for (const [part, array] of stored) {
    await parts.write(part, 0, array.bytes);
    parts.declare(part, array.dtype, array.shape);
  }
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
  create(rawParams) {
    const parsed = params.safeParse(rawParams);
    if (!parsed.success) throw new PithError('BAD_PARAMS', { method: 'ere', message: z.prettifyError(parsed.error) });
    return new Ere(parsed.data);
  },
};
export default method;
