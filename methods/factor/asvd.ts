/**
 * ASVD: "Activation-aware Singular Value Decomposition for Compressing Large Language Models", Zhihang Yuan, Yuzhang Shang, Yue Song, Qiang Wu, Yan Yan,
 * Guangyu Sun, 2023, https://arxiv.org/abs/2312.05821, code hahnyuan/ASVD4LLM
 *   t_j = (mean |x_j| + 1e-6)^alpha,  SVD of W diag(t), t undone on the right factor
 * The paper finds each layer's rank by a search over perplexities (STRS); here the ranks are given.
 */
import * as z from 'zod';
import { UNWEIGHTED } from '../../kernels/lowrank/weighted-svd.js';
import type { Method } from '../define.js';
import type { Factorizer } from '../kinds.js';
import { weightedFactorizer } from '../layer-factorizer.js';
import { statOf } from '../layer-input.js';
import { parseParams } from '../params.js';

/** The code's guard against channels that are never fed. */
const LEAST = 1e-6;

const params = z.strictObject({
  alpha: z.number().min(0).max(2).default(0.5).describe('power of the mean absolute activation; 0 is plain SVD'),
});

const method: Method<'factor', Factorizer> = {
  kind: 'factor',
  name: 'asvd',
  title: 'SVD with the columns scaled by the mean absolute activation',
  paper: {
    cite: 'Yuan et al., "ASVD: Activation-aware Singular Value Decomposition for Compressing Large Language Models", 2023',
    url: 'https://arxiv.org/abs/2312.05821',
  },
  params,
  create(raw) {
    const { alpha } = parseParams('asvd', params, raw);
    return weightedFactorizer({
      needs: ['inputAbsMean'],
      weigh(layer, stats) {
        const d = Float64Array.from(statOf(layer, stats, 'inputAbsMean'), (v) => (v + LEAST) ** alpha);
        return { rows: UNWEIGHTED, columns: { kind: 'diagonal', d } };
      },
    });
  },
};
export default method;
