/**
 * magnitude: "Learning both Weights and Connections for Efficient Neural Networks", Song Han, Jeff Pool, John Tran, William Dally, 2015,
 * https://arxiv.org/abs/1506.02626.
 *
 *   S = |W|;   removed: the floor(p m n) smallest of the layer, or floor(p n) of each row, or M - N of M consecutive inputs
 * The usual code removes |W| <= the sorted value at floor(p m n): one more, and all ties. Here the count is exact.
 */
import * as z from 'zod';
import type { Method } from '../define.js';
import type { Pruner } from '../kinds.js';
import { parseParams } from '../params.js';
import { ScorePruner, type Score } from '../score-pruner.js';

const params = z.strictObject({});

const score: Score = {
  name: 'magnitude',
  needs: [],
  group: 'layer',
  rows(_c, { w, n }) {
    return (row, out) => {
      for (let j = 0, at = row * n; j < n; j++) out[j] = Math.abs(w[at + j]!);
    };
  },
};

const method: Method<'prune', Pruner> = {
  kind: 'prune',
  name: 'magnitude',
  title: 'The smallest weights go; needs no data',
  paper: {
    cite: 'Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks", 2015',
    url: 'https://arxiv.org/abs/1506.02626',
  },
  params,
  create: (raw) => {
    parseParams('magnitude', params, raw);
    return new ScorePruner(score);
  },
};
export default method;
