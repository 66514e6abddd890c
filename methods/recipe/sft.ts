/**
 * Supervised fine-tuning: the mean cross entropy of the tokens that are learnt, every token alike, over the whole accumulated batch
 * (Ouyang et al., "Training language models to follow instructions with human feedback", 2022, https://arxiv.org/abs/2203.02155, section 3.1).
 */
import * as z from 'zod';
import type { Method } from '../define.js';
import { parseParams } from '../params.js';
import type { Recipe } from '../recipe-kind.js';

const params = z.strictObject({});

const method: Method<'recipe', Recipe> = {
  kind: 'recipe',
  name: 'sft',
  title: 'Supervised fine-tuning: every token that is learnt counts alike',
  paper: { cite: 'Ouyang et al., 2022', url: 'https://arxiv.org/abs/2203.02155' },
  params,
  create(raw) {
    parseParams('sft', params, raw);
    return {};
  },
};
export default method;
