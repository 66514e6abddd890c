/**
 * FWSVD: "Language model compression with weighted low-rank factorization", Yen-Chang Hsu, Ting Hua, Sungen Chang, Qian Lou, Yilin Shen, Hongxia Jin,
 * 2022, https://arxiv.org/abs/2207.00112
 *   I_i = sum_t sum_j G_t[i, j]^2 (the empirical Fisher information, summed by rows),  D = diag(sqrt(I)),  SVD of D W, D undone on the left factor
 * Deviations: rows are those of the (out, in) weight, so errors are weighted by output; the paper sums over the rows of its own layout. I is floored at
 * a share of its largest value, so that a row without gradients can be undone.
 */
import * as z from 'zod';
import { UNWEIGHTED } from '../../kernels/lowrank/weighted-svd.js';
import type { Method } from '../define.js';
import type { Factorizer } from '../kinds.js';
import { weightedFactorizer } from '../layer-factorizer.js';
import { statOf } from '../layer-input.js';
import { parseParams } from '../params.js';

const params = z.strictObject({
  floor: z.number().gt(0).max(1).default(1e-8).describe("the least information of a row, as a share of the largest row's"),
});

const method: Method<'factor', Factorizer> = {
  kind: 'factor',
  name: 'fwsvd',
  title: 'SVD weighted by the Fisher information of each output',
  paper: { cite: 'Hsu et al., "Language model compression with weighted low-rank factorization", 2022', url: 'https://arxiv.org/abs/2207.00112' },
  params,
  create(raw) {
    const { floor } = parseParams('fwsvd', params, raw);
    return weightedFactorizer({
      needs: ['fisherRow'],
      weigh(layer, stats) {
        const information = statOf(layer, stats, 'fisherRow');
        const least = floor * information.reduce((top, v) => Math.max(top, v), 0);
        if (!(least > 0)) return { rows: UNWEIGHTED, columns: UNWEIGHTED, facts: { fisher: 'zero' } };
        const d = Float64Array.from(information, (v) => Math.sqrt(Math.max(v, least)));
        return { rows: { kind: 'diagonal', d }, columns: UNWEIGHTED };
      },
    });
  },
};
export default method;
