/**
 * movement-proxy: the score of "Movement Pruning: Adaptive Sparsity by Fine-Tuning", Victor Sanh, Thomas Wolf, Alexander M. Rush, 2020,
 * https://arxiv.org/abs/2005.07683, from two checkpoints instead of the gradients of a training.
 *
 *   S = W0 * (W1 - W0): weights that fine-tuning moved away from zero stay, those that it moved towards zero go
 * It is pith's own, not the paper's, whose scores are summed over the steps: S = -lr sum_t (dL/dW_t) W_t, of which this is the first order.
 */
import * as z from 'zod';
import { PithError } from '../../core/errors.js';
import type { Method } from '../define.js';
import type { Pruner } from '../kinds.js';
import { requireFinite } from '../layer-input.js';
import { parseParams } from '../params.js';
import { ScorePruner, type Score } from '../score-pruner.js';

const params = z.strictObject({});

const score: Score = {
  name: 'movement-proxy',
  needs: [],
  base: true,
  group: 'layer',
  signed: true,
  rows(_c, layer) {
    const { w, n, base } = layer;
    if (base?.length !== w.length) {
      throw new PithError('BAD_PARAMS', { method: 'movement-proxy', message: `it needs the weight of "${layer.name}" before fine-tuning, of the same shape` });
    }
    requireFinite(layer, 'weight of the base', base);
    return (row, out) => {
      for (let j = 0, at = row * n; j < n; j++, at++) out[j] = base[at]! * (w[at]! - base[at]!);
    };
  },
};

const method: Method<'prune', Pruner> = {
  kind: 'prune',
  name: 'movement-proxy',
  title: 'Weights that a fine-tune moved towards zero go; from the two checkpoints',
  paper: {
    cite: 'Sanh, Wolf, Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", 2020',
    url: 'https://arxiv.org/abs/2005.07683',
  },
  params,
  create: (raw) => {
    parseParams('movement-proxy', params, raw);
    return new ScorePruner(score);
  },
};
export default method;
