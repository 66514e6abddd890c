/**
 * sparsegpt: "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", Elias Frantar, Dan Alistarh, 2023,
 * https://arxiv.org/abs/2301.00774.
 *
 *   H = G + damping mean(diag G) I;   H^-1 = U^T U, U upper
 *   columns in blocks of 128: removed are the smallest W_ij^2 / U_jj^2 of the block (all rows together, or each row), N:M every M columns
 *   from the weights as they are by then;   err = w_j / U_jj;   W_k -= err U_jk for the columns k to the right
 * G is any multiple of sum x x^T: neither mask nor update depends on the scale. Deviations: counts are exact (the blocks up to any column
 * have floor(p of their weights); ties go to the lower index), U comes from one factorization of the reversed H, and a damping that does
 * not make H positive definite is raised tenfold. Below a damping of 0.001, where rounding would tell, H is factored in f64.
 */
import * as z from 'zod';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import { inverseFactor } from '../../kernels/linalg/spd-inverse.js';
import { clearColumns, dropDeadInputs } from '../../kernels/sparse/dead-inputs.js';
import { solveObs } from '../../kernels/sparse/obs.js';
import type { Ctx, Method } from '../define.js';
import type { KeepMask, LayerStats, LayerWeight, Pruned, Pruner, Sparsity } from '../kinds.js';
import { inLayer, requireFinite, requireTarget, statOf, updateFacts } from '../layer-input.js';
import { parseParams } from '../params.js';

const params = z.strictObject({
  damping: z.number().min(0).default(0.01).describe("added to H's diagonal, as a share of its mean"),
  block: z.int().min(1).max(4096).default(128).describe('columns whose mask is chosen at once (N:M: whose update is held back)'),
});
type Params = z.infer<typeof params>;

/** A damping from which f32 holds the condition number. */
const WELL_CONDITIONED = 1e-3;

class SparseGpt implements Pruner {
  readonly needs = ['inputGram'] as const;
  readonly updates = true;
  readonly group = 'layer';

  constructor(private readonly p: Params) {}

  memoryBytes(m: number, n: number): number {
    return m * n + 13 * m * Math.min(n, this.p.block) + (this.p.damping < WELL_CONDITIONED ? 12 * n * n : 0);
  }

  async prune(c: Ctx, layer: LayerWeight, stats: LayerStats, target: Sparsity): Promise<Pruned> {
    requireTarget('sparsegpt', target);
    return this.#solve(c, layer, stats, new Uint8Array(layer.m * layer.n), target);
  }

  async update(c: Ctx, layer: LayerWeight, stats: LayerStats, mask: KeepMask): Promise<Pruned> {
    return this.#solve(c, layer, stats, mask.slice(), undefined);
  }

  async #solve(c: Ctx, layer: LayerWeight, stats: LayerStats, mask: KeepMask, target: Sparsity | undefined): Promise<Pruned> {
    const { m, n, w } = layer;
    const gram = statOf(layer, stats, 'inputGram');
    requireFinite(layer, 'weight', w);
    const ops = await matrixOps({ blasThreads: c.blasThreads });
    const { damping, block } = this.p;
    const dead = dropDeadInputs(w, gram, m, n);
    for (const j of dead) gram[j * (n + 1)] = 1;
    const h = damping < WELL_CONDITIONED ? new Float64Array(gram) : gram;
    const used = inLayer(layer, () => inverseFactor(h, n, damping, ops));
    const u = h instanceof Float32Array ? h : new Float32Array(h);
    solveObs({ m, n, w, u, mask, target, block }, ops, () => c.checkpointCancel());
    clearColumns(w, dead, m, n);
    return { w, mask, facts: updateFacts(n, target, dead.length, used > damping ? used : 0) };
  }
}

const method: Method<'prune', Pruner> = {
  kind: 'prune',
  name: 'sparsegpt',
  title: 'One pass over the columns, the weights to the right making up for those that go',
  paper: {
    cite: 'Frantar, Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", 2023',
    url: 'https://arxiv.org/abs/2301.00774',
  },
  params,
  create: (raw) => new SparseGpt(parseParams('sparsegpt', params, raw)),
};
export default method;
