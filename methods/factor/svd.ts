/**
 * Truncated SVD of the weight alone: Eckart and Young, "The approximation of one matrix by another of lower rank", 1936, https://doi.org/10.1007/BF02288367
 *   W = U S V^T,  A = U_r sqrt(S_r),  B = sqrt(S_r) V_r^T:  the least ||W - A B||_F of all factors of that rank
 */
import * as z from 'zod';
import { UNWEIGHTED } from '../../kernels/lowrank/weighted-svd.js';
import type { Method } from '../define.js';
import type { Factorizer } from '../kinds.js';
import { weightedFactorizer } from '../layer-factorizer.js';
import { parseParams } from '../params.js';

const params = z.strictObject({});

const method: Method<'factor', Factorizer> = {
  kind: 'factor',
  name: 'svd',
  title: 'Truncated SVD of the weight, without any statistics',
  paper: { cite: 'Eckart, Young, "The approximation of one matrix by another of lower rank", 1936', url: 'https://doi.org/10.1007/BF02288367' },
  params,
  create(raw) {
    parseParams('svd', params, raw);
    return weightedFactorizer({ needs: [], weigh: () => ({ rows: UNWEIGHTED, columns: UNWEIGHTED }) });
  },
};
export default method;
