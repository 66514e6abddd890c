/**
 * alps: "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language Models", Xiang Meng, Kayhan Behdin, Haoyue Wang,
 * Rahul Mazumder, 2024, https://arxiv.org/abs/2406.07831.
 *
 *   A = D^-1 (G + damping mean(diag G) I) D^-1 with a unit diagonal = Q diag(l) Q^T;   V_0 = W D;   T = V_0 A
 *   B = (T - Y + rho D) Q diag(1/(l + rho)) Q^T;   D = proj(B + Y/rho), proj: the k largest;   Y += rho (B - D)
 *   every third iteration rho follows how much of the support changed;   at last the mask of proj(B), and 10 steps of conjugate gradients
 * Deviations: k follows from exactly floor(p m n) removed weights, the projection may be by rows or N:M, and the gradient steps are each
 * row's own.
 */
import * as z from 'zod';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import { solveAlps } from '../../kernels/sparse/alps.js';
import { panelRows } from '../../kernels/linalg/row-panels.js';
import type { Ctx, Method } from '../define.js';
import type { LayerStats, LayerWeight, Pruned, Pruner, Sparsity } from '../kinds.js';
import { inLayer, requireFinite, requireTarget, statOf, updateFacts } from '../layer-input.js';
import { parseParams } from '../params.js';

const params = z.strictObject({
  iterations: z.int().min(1).max(10000).default(300).describe('iterations at most; it ends when the support has settled'),
  damping: z.number().min(0).default(0.01).describe('added to the diagonal of G, as a share of its mean'),
  cgSteps: z.int().min(0).max(1000).default(10).describe('steps of conjugate gradients on the final support'),
});
type Params = z.infer<typeof params>;

class Alps implements Pruner {
  readonly needs = ['inputGram'] as const;
  readonly updates = true;
  readonly group = 'layer';

  constructor(private readonly p: Params) {}

  /** T, S and the first S, three masks; eigenvectors and LAPACK's work; panels. */
  memoryBytes(m: number, n: number): number {
    return 15 * m * n + 16 * n * n + 24 * panelRows(m, n) * n;
  }

  async prune(c: Ctx, layer: LayerWeight, stats: LayerStats, target: Sparsity): Promise<Pruned> {
    requireTarget('alps', target);
    const { m, n, w } = layer;
    const gram = statOf(layer, stats, 'inputGram');
    requireFinite(layer, 'weight', w);
    const ops = await matrixOps({ blasThreads: c.blasThreads });
    const { mask, dead, iterations, rho } = inLayer(layer, () => solveAlps(w, gram, m, n, target, this.p, ops, () => c.checkpointCancel()));
    return { w, mask, facts: { iterations, rho, ...updateFacts(n, target, dead, 0) } };
  }
}

const method: Method<'prune', Pruner> = {
  kind: 'prune',
  name: 'alps',
  title: 'ADMM whose penalty grows as the support settles, then least squares on it',
  paper: {
    cite: 'Meng, Behdin, Wang, Mazumder, "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language Models", 2024',
    url: 'https://arxiv.org/abs/2406.07831',
  },
  params,
  create: (raw) => new Alps(parseParams('alps', params, raw)),
};
export default method;
