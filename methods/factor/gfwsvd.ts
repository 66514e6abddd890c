/**
 * GFWSVD: "Generalized Fisher-Weighted SVD: Scalable Kronecker-Factored Fisher Approximation for Compressing Large Language Models", Viktoriia Chekalina,
 * Daniil Moskovskiy, Daria Cherniuk, Maxim Kurkin, Andrey Kuznetsov, Evgeny Frolov, 2025, https://arxiv.org/abs/2505.17974
 *   F = (1/T) sum_t vec(G_t) vec(G_t)^T ~ B x A,  A = L_A L_A^T (inputs), B = L_B L_B^T (outputs)
 *   SVD of L_B^T W L_A,  A' = L_B^-T U_r sqrt(S_r),  B' = sqrt(S_r) V_r^T L_A^-1
 * The pair comes from calibration (kernels/linalg/kronecker-pair.ts). A = I and a diagonal B give FWSVD; B = I and A = X^T X give SVD-LLM. The damping is
 * not in the paper's text; both matrices take it, and more where they are singular.
 */
import * as z from 'zod';
import { dampedFactor } from '../../kernels/linalg/damped-factor.js';
import type { Method } from '../define.js';
import type { Factorizer } from '../kinds.js';
import { weightedFactorizer } from '../layer-factorizer.js';
import { statOf } from '../layer-input.js';
import { parseParams } from '../params.js';

const params = z.strictObject({
  damping: z.number().min(0).max(1).default(1e-6).describe('added to the diagonals of both factors, as a share of their means; raised when one is singular'),
});

const method: Method<'factor', Factorizer> = {
  kind: 'factor',
  name: 'gfwsvd',
  title: 'SVD weighted on both sides by the closest Kronecker product to the Fisher matrix',
  paper: {
    cite: 'Chekalina et al., "Generalized Fisher-Weighted SVD: Scalable Kronecker-Factored Fisher Approximation for Compressing Large Language Models", 2025',
    url: 'https://arxiv.org/abs/2505.17974',
  },
  params,
  create(raw) {
    const { damping: least } = parseParams('gfwsvd', params, raw);
    return weightedFactorizer({
      needs: ['fisherA', 'fisherB'],
      memoryBytes: (m, n) => 16 * (m * m + n * n),
      weigh(layer, stats, ops) {
        const a = dampedFactor(statOf(layer, stats, 'fisherA'), layer.n, least, ops);
        const b = dampedFactor(statOf(layer, stats, 'fisherB'), layer.m, least, ops);
        return {
          rows: { kind: 'lower', l: b.l },
          columns: { kind: 'lower', l: a.l },
          facts: { ...(a.damping > 0 ? { dampingA: a.damping } : {}), ...(b.damping > 0 ? { dampingB: b.damping } : {}) },
        };
      },
    });
  },
};
export default method;
