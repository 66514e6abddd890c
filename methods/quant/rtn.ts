/**
 * rtn: every weight rounded to the nearest value of its group's grid; the baseline of every paper on the subject, as in Frantar, Ashkboos,
 * Hoefler, Alistarh, "GPTQ", 2022, https://arxiv.org/abs/2210.17323.
 *   grids: kernels/quant/int-grid.ts
 */
import * as z from 'zod';
import type { Method } from '../define.js';
import { intGrid, intQuantized, MSE_STEPS, scaleParam } from '../int-quantized.js';
import type { Quantizer } from '../kinds.js';
import { parseParams } from '../params.js';
import { layerQuantizer } from '../quant-scheme.js';

const params = z.strictObject({
  mse: z.boolean().default(false).describe('search each range for the least error'),
  scales: scaleParam,
});

const method: Method<'quant', Quantizer> = {
  kind: 'quant',
  name: 'rtn',
  title: 'Rounding to nearest, without any statistics',
  paper: {
    cite: 'Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022',
    url: 'https://arxiv.org/abs/2210.17323',
  },
  params,
  create: (raw) => {
    const p = parseParams('rtn', params, raw);
    return layerQuantizer('rtn', {
      needs: [],
      grids: ['int'],
      memoryBytes: (m, n) => 8 * m * n,
      quantize: async (_c, layer, _stats, scheme) => {
        const grid = intGrid(layer.m, layer.n, scheme, p.scales, { mseSteps: p.mse ? MSE_STEPS : 0 }).fitStatic(layer.w);
        return intQuantized(grid, scheme, grid.nearest(layer.w), {});
      },
    });
  },
};
export default method;
