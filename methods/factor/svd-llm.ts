/**
 * SVD-LLM: "Truncation-aware Singular Value Decomposition for Large Language Model Compression", Xin Wang, Yu Zheng, Zhongwei Wan, Mi Zhang, 2024,
 * https://arxiv.org/abs/2403.07378, code AIoT-MLSys-Lab/SVD-LLM
 *   G = X^T X = L L^T,  SVD of W L,  A = U_r sqrt(S_r),  B = sqrt(S_r) V_r^T L^-1:  ||X (W - A B)^T||_F^2 = sum_{i > r} s_i^2
 * A Gram matrix that is not positive definite is damped, by as small a share of its mean diagonal as does (the code shifts it by its least eigenvalue).
 * Deviation: the paper's second step for high ratios, which refits A on the inputs that come out of the compressed layers before, is left out; on the
 * same inputs it changes nothing, as A is optimal already.
 */
import * as z from 'zod';
import { dampedFactor } from '../../kernels/linalg/damped-factor.js';
import { UNWEIGHTED } from '../../kernels/lowrank/weighted-svd.js';
import type { Method } from '../define.js';
import type { Factorizer } from '../kinds.js';
import { weightedFactorizer } from '../layer-factorizer.js';
import { statOf } from '../layer-input.js';
import { parseParams } from '../params.js';

const params = z.strictObject({
  damping: z.number().min(0).max(1).default(0).describe('added to the diagonal of X^T X, as a share of its mean; raised when the matrix is singular'),
});

const method: Method<'factor', Factorizer> = {
  kind: 'factor',
  name: 'svd-llm',
  title: "SVD whitened by the inputs' Gram matrix, so that dropped values are output error",
  paper: {
    cite: 'Wang et al., "SVD-LLM: Truncation-aware Singular Value Decomposition for Large Language Model Compression", 2024',
    url: 'https://arxiv.org/abs/2403.07378',
  },
  params,
  create(raw) {
    const { damping: least } = parseParams('svd-llm', params, raw);
    return weightedFactorizer({
      needs: ['inputGram'],
      // L, and the matrix that it is made in
      memoryBytes: (_, n) => 16 * n * n,
      weigh(layer, stats, ops) {
        const { l, damping } = dampedFactor(statOf(layer, stats, 'inputGram'), layer.n, least, ops);
        return { rows: UNWEIGHTED, columns: { kind: 'lower', l }, facts: damping > 0 ? { damping } : {} };
      },
    });
  },
};
export default method;
