/**
 * wanda: "A Simple and Effective Pruning Approach for Large Language Models", Mingjie Sun, Zhuang Liu, Anna Bair, J. Zico Kolter, 2023,
 * https://arxiv.org/abs/2306.11695.
 *
 *   S_ij = |W_ij| ||x_j||_2   (Eq. 1);   removed: the floor(p n) smallest of every row, or M - N of M consecutive inputs; no update
 * `useVariant` (the paper's appendix): each row loses the longest run of its smallest scores whose sum is at most alpha times the row's;
 * alpha, one for the layer, is bisected in [0, 0.8] from 0.4 until the layer's sparsity is within 0.001 of p. Every start of a row is its
 * own: the count is not exact then.
 */
import * as z from 'zod';
import { PithError } from '../../core/errors.js';
import { applyMask } from '../../kernels/sparse/select.js';
import { bisectShare, removeByCounts } from '../../kernels/sparse/prefix-share.js';
import type { Ctx, Method } from '../define.js';
import type { LayerStats, LayerWeight, Pruned, Pruner, Sparsity } from '../kinds.js';
import { requireFinite, requireTarget, statOf } from '../layer-input.js';
import { parseParams } from '../params.js';
import { ScorePruner, type Score } from '../score-pruner.js';

const params = z.strictObject({
  useVariant: z.boolean().default(false).describe('rows may differ in how much they lose: by the share of their scores (not for N:M)'),
});

const score: Score = {
  name: 'wanda',
  needs: ['inputSqNorm'],
  group: 'row',
  rows(_c, layer, stats) {
    const { w, n } = layer;
    const norms = statOf(layer, stats, 'inputSqNorm').map((a) => Math.sqrt(Math.max(0, a)));
    return (row, out) => {
      for (let j = 0, at = row * n; j < n; j++) out[j] = Math.abs(w[at + j]!) * norms[j]!;
    };
  },
};

class Variant extends ScorePruner {
  /** The scores, and each row's sorted sums. */
  override memoryBytes(m: number, n: number): number {
    return 9 * m * n + 8 * n + (1 << 16);
  }

  override async prune(c: Ctx, layer: LayerWeight, stats: LayerStats, target: Sparsity): Promise<Pruned> {
    requireTarget('wanda', target);
    if (target.group !== 'row') throw new PithError('BAD_PARAMS', { method: 'wanda', message: 'useVariant compares within rows, with a ratio' });
    requireFinite(layer, 'weight', layer.w);
    const { m, n, w } = layer;
    const scores = this.scores(c, layer, stats);
    const { counts, alpha } = bisectShare(scores, m, n, target.ratio, () => c.checkpointCancel());
    const mask = removeByCounts(scores, m, n, counts);
    applyMask(w, mask);
    return { w, mask, facts: { alpha } };
  }
}

const method: Method<'prune', Pruner> = {
  kind: 'prune',
  name: 'wanda',
  title: 'Weights times the norm of their input, compared within each output; no update',
  paper: {
    cite: 'Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models", 2023',
    url: 'https://arxiv.org/abs/2306.11695',
  },
  params,
  create: (raw) => (parseParams('wanda', params, raw).useVariant ? new Variant(score) : new ScorePruner(score)),
};
export default method;
