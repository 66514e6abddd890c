/**
 * gptq: "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", Elias Frantar, Saleh Ashkboos, Torsten Hoefler,
 * Dan Alistarh, 2022, https://arxiv.org/abs/2210.17323. The solver: kernels/quant/gptq.ts.
 * Deviations: with act-order and groups the scales are those of neighbouring columns, fitted before (static groups, GPTQModel), unless
 * `staticGroups` is off: then the result has a group index. Inputs that never fire are rounded by themselves; the release zeroes them.
 */
import * as z from 'zod';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import { gptq } from '../../kernels/quant/gptq.js';
import type { Method } from '../define.js';
import { intGrid, intQuantized, MSE_STEPS, scaleParam } from '../int-quantized.js';
import type { Quantizer } from '../kinds.js';
import { statOf } from '../layer-input.js';
import { parseParams } from '../params.js';
import { layerQuantizer } from '../quant-scheme.js';

const params = z.strictObject({
  damping: z.number().min(0).default(0.01).describe('added to the diagonal of X^T X, as a share of its mean; raised when the matrix does not factor'),
  actOrder: z.boolean().default(true).describe('columns in the order of falling activation'),
  staticGroups: z.boolean().default(true).describe('with actOrder: groups are neighbours, fitted before the columns are worked on'),
  mse: z.boolean().default(false).describe('search each range for the least error'),
  scales: scaleParam,
});

const method: Method<'quant', Quantizer> = {
  kind: 'quant',
  name: 'gptq',
  title: 'Column by column, each error made up for by the columns to come',
  paper: {
    cite: 'Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022',
    url: 'https://arxiv.org/abs/2210.17323',
  },
  params,
  create: (raw) => {
    const p = parseParams('gptq', params, raw);
    return layerQuantizer('gptq', {
      needs: ['inputGram'],
      grids: ['int'],
      memoryBytes: (m, n) => 20 * m * n + 24 * n * n,
      quantize: async (c, layer, stats, scheme) => {
        const { m, n, w } = layer;
        const grid = intGrid(m, n, scheme, p.scales, { mseSteps: p.mse ? MSE_STEPS : 0 });
        const before = scheme.groupSize === 0 || (p.actOrder && p.staticGroups);
        const ready = before ? grid.fitStatic(w) : grid.fitOnTheWay();
        const options = { ops: await matrixOps(c), damping: p.damping, actOrder: p.actOrder, checkpointCancel: () => c.checkpointCancel() };
        const r = gptq(w, m, n, statOf(layer, stats, 'inputGram'), ready, options);
        const index = p.actOrder && !before ? { groupIndex: grid.groupIndex } : {};
        return intQuantized(grid, scheme, r.w, { damping: r.damping, deadInputs: r.deadInputs }, index);
      },
    });
  },
};
export default method;
