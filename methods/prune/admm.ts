/**
 * admm: "Fast and Effective Weight Update for Pruned Large Language Models", Vladimir Boza, 2024, https://arxiv.org/abs/2401.02938.
 *
 *   D = diag(sqrt(G_jj));   A = D^-1 G D^-1 + damping I;   V = W D;   T = V A;   P = (A + rho I)^-1, rho = 1;   U = 0
 *   t = 1..20: mask of the largest |V + U| at p_t = p - p (1 - t/15)^3 while t <= 15;   Z = (V + U) * M;   U += V - Z;   V = (T + rho (Z - U)) P
 *   W' = ((V + U) * M) D^-1
 * The authors' unstructured code prunes with the final p from the first iteration; here the schedule is the paper's. mask `wanda` takes the
 * mask of the first scores, |V|, at the final p and keeps it. N:M: the N largest of each group always stay, and of each row's others
 * floor(p_t / p of them) are gone so far (the authors: 2:4, the layer's others together). D is 1, not 1e-8, where an input is always 0.
 */
import * as z from 'zod';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import { solveAdmm } from '../../kernels/sparse/admm.js';
import { panelRows } from '../../kernels/linalg/row-panels.js';
import type { Ctx, Method } from '../define.js';
import type { KeepMask, LayerStats, LayerWeight, Pruned, Pruner, Sparsity } from '../kinds.js';
import { inLayer, requireFinite, requireTarget, statOf, updateFacts } from '../layer-input.js';
import { parseParams } from '../params.js';

const params = z.strictObject({
  mask: z.enum(['gradual', 'wanda']).default('gradual').describe('gradual: tightened over the first iterations; wanda: chosen once, by |W| ||x||'),
  iterations: z.int().min(1).max(10000).default(20).describe('iterations, one product with the inverse each'),
  maskIterations: z.int().min(1).default(15).describe('the first iterations, in which a gradual mask tightens; at most all of them'),
  damping: z.number().min(0).default(0.1).describe('pull towards the dense weights, in units of the diagonal'),
  perOut: z.boolean().default(false).describe('compares within each output even where the layer was asked for'),
});
type Params = z.infer<typeof params>;

class Admm implements Pruner {
  readonly needs = ['inputGram'] as const;
  readonly updates = true;
  readonly group: 'layer' | 'row';

  constructor(private readonly p: Params) {
    this.group = p.perOut || p.mask === 'wanda' ? 'row' : 'layer';
  }

  /** T, S and the mask; a panel of right-hand sides. */
  memoryBytes(m: number, n: number): number {
    return 9 * m * n + 12 * n + 8 * panelRows(m, n) * n;
  }

  async prune(c: Ctx, layer: LayerWeight, stats: LayerStats, target: Sparsity): Promise<Pruned> {
    requireTarget('admm', target);
    const within: Sparsity = this.p.perOut && target.group === 'layer' ? { group: 'row', ratio: target.ratio } : target;
    return this.#solve(c, layer, stats, within);
  }

  async update(c: Ctx, layer: LayerWeight, stats: LayerStats, mask: KeepMask): Promise<Pruned> {
    return this.#solve(c, layer, stats, mask);
  }

  async #solve(c: Ctx, layer: LayerWeight, stats: LayerStats, how: KeepMask | Sparsity): Promise<Pruned> {
    const { m, n, w } = layer;
    const gram = statOf(layer, stats, 'inputGram');
    requireFinite(layer, 'weight', w);
    const ops = await matrixOps({ blasThreads: c.blasThreads });
    const { iterations, damping } = this.p;
    // the first scores are Wanda's: a schedule of one iteration is its mask
    const maskIterations = this.p.mask === 'wanda' ? 1 : Math.min(iterations, this.p.maskIterations);
    const options = { iterations, maskIterations, damping };
    const { mask, dead, raised } = inLayer(layer, () => solveAdmm(w, gram, m, n, how, options, ops, () => c.checkpointCancel()));
    return { w, mask, facts: { iterations, ...updateFacts(n, how instanceof Uint8Array ? undefined : how, dead, raised) } };
  }
}

const method: Method<'prune', Pruner> = {
  kind: 'prune',
  name: 'admm',
  title: 'Mask and least-squares weights together, by ADMM with one inverse',
  paper: {
    cite: 'Boza, "Fast and Effective Weight Update for Pruned Large Language Models", 2024',
    url: 'https://arxiv.org/abs/2401.02938',
  },
  params,
  create: (raw) => new Admm(parseParams('admm', params, raw)),
};
export default method;
