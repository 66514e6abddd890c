/**
 * adpq: "Rethinking Post-Training Quantization: Introducing a Statistical Pre-Calibration Approach", Alireza Ghaffari, Sharareh Younesian,
 * Boxing Chen, Vahid Partovi Nia, Masoud Asgharian, 2025, https://arxiv.org/abs/2501.09107 (earlier: AdpQ, arXiv 2405.13358).
 *
 *   adaptive LASSO leaves w_i iff |w_i| > sqrt(lambda'), lambda' lowered until a share alpha is left: the floor(alpha m n) largest
 *   the others min-max in the scheme's groups, the outliers by themselves in `outlierBits`, one asymmetric grid for the layer
 */
import * as z from 'zod';
import { IntGrid } from '../../kernels/quant/int-grid.js';
import { largest } from '../../kernels/quant/outliers.js';
import type { Method } from '../define.js';
import { intGrid, intQuantized, scaleParam } from '../int-quantized.js';
import type { Quantizer } from '../kinds.js';
import { parseParams } from '../params.js';
import { layerQuantizer } from '../quant-scheme.js';

const params = z.strictObject({
  alpha: z.number().min(0).max(1).default(0.01).describe('share of the weights that are outliers'),
  outlierBits: z.int().min(2).max(8).default(8).describe('bits of an outlier'),
  scales: scaleParam,
});

const method: Method<'quant', Quantizer> = {
  kind: 'quant',
  name: 'adpq',
  title: 'The largest weights coded apart, found by adaptive LASSO, without any statistics',
  paper: {
    cite: 'Ghaffari et al., "Rethinking Post-Training Quantization: Introducing a Statistical Pre-Calibration Approach", 2025',
    url: 'https://arxiv.org/abs/2501.09107',
  },
  params,
  create: (raw) => {
    const p = parseParams('adpq', params, raw);
    return layerQuantizer('adpq', {
      needs: [],
      grids: ['int'],
      memoryBytes: (m, n) => 20 * m * n,
      quantize: async (_c, layer, _stats, scheme) => {
        const { m, n, w } = layer;
        const index = largest(w, Math.floor(p.alpha * m * n));
        const core = w.slice();
        for (const i of index) core[i] = 0;
        const outliers = Float32Array.from(index, (i) => w[i]!);
        const values = new IntGrid(1, outliers.length, { bits: p.outlierBits, symmetric: false, groupSize: 0, scales: p.scales })
          .fitStatic(outliers)
          .nearest(outliers);
        const grid = intGrid(m, n, scheme, p.scales).fitStatic(core);
        const back = grid.nearest(core);
        for (const [k, i] of index.entries()) back[i] = values[k]!;
        return intQuantized(grid, scheme, back, { outliers: index.length }, { kept: { index, values } }, (32 + p.outlierBits) * index.length);
      },
    });
  },
};
export default method;
