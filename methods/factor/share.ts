/**
 * DirectShare: "Head-wise Shareable Attention for Large Language Models", Zouying Cao, Yifei Yang, Hai Zhao, 2024, https://arxiv.org/abs/2402.11819,
 * code zouyingcao/DirectShare
 *   a head's vector is its rows of W_q and W_k (or q, k, v, qkv), flattened; each head of the layers from the second on is matched with the head of an
 *   earlier layer that has the largest cosine with it; the int(rate layers heads) best matches share: q, k, v and o of the matched head are used
 * Deviations: with grouped queries a "head" is a key and value head with all its query heads; a match that is itself shared is followed to the head
 * that is stored, where the code copies the match's original weights, which would have to be stored once more.
 */
import * as z from 'zod';
import { mostSimilarHeads } from '../../kernels/lowrank/head-share.js';
import type { Method } from '../define.js';
import type { Factorizer, HeadProjection } from '../kinds.js';
import { parseParams } from '../params.js';

const params = z.strictObject({
  strategy: z.enum(['qk', 'q', 'k', 'v', 'qkv']).default('qk').describe('projections whose rows are compared'),
});

const method: Method<'factor', Factorizer> = {
  kind: 'factor',
  name: 'share',
  title: 'Attention heads that take the weights of the most similar head of an earlier layer, stored once',
  paper: { cite: 'Cao et al., "Head-wise Shareable Attention for Large Language Models", 2024', url: 'https://arxiv.org/abs/2402.11819' },
  params,
  create(raw) {
    const { strategy } = parseParams('share', params, raw);
    return { scope: 'heads', needs: [], compares: Array.from(strategy) as HeadProjection[], select: mostSimilarHeads };
  },
};
export default method;
