/**
 * random: weights go by lot; what every pruning method must beat. Baseline of "What is the State of Neural Network Pruning?", Davis Blalock,
 * Jose Javier Gonzalez Ortiz, Jonathan Frankle, John Guttag, 2020, https://arxiv.org/abs/2003.03033.
 *
 *   S uniform in [0, 1), a stream of its own for every row of every layer: the mask follows from the seed alone
 */
import * as z from 'zod';
import type { Method } from '../define.js';
import type { Pruner } from '../kinds.js';
import { parseParams } from '../params.js';
import { ScorePruner, type Score } from '../score-pruner.js';

const params = z.strictObject({});

const score: Score = {
  name: 'random',
  needs: [],
  group: 'layer',
  rows(c, { n }) {
    return (row, out) => {
      const rng = c.rng.fork(String(row));
      for (let j = 0; j < n; j++) out[j] = rng.uint32() / 2 ** 32;
    };
  },
};

const method: Method<'prune', Pruner> = {
  kind: 'prune',
  name: 'random',
  title: 'By lot: the baseline',
  paper: {
    cite: 'Blalock, Gonzalez Ortiz, Frankle, Guttag, "What is the State of Neural Network Pruning?", 2020',
    url: 'https://arxiv.org/abs/2003.03033',
  },
  params,
  create: (raw) => {
    parseParams('random', params, raw);
    return new ScorePruner(score);
  },
};
export default method;
