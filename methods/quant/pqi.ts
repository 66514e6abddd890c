/**
 * pqi: "Identifying Sensitive Weights via Post-quantization Integral", Yuezhou Hu, Weiyu Huang, Zichen Liang, Chang Chen, Jintao Zhang,
 * Jun Zhu, Jianfei Chen, 2025, https://arxiv.org/abs/2503.01901.
 *
 *   PQI_i = |(w~_i - w_i) (1/N) sum_k g_i(w + t_k (w~ - w))|, the weights of largest PQI are kept as they are
 * The mean gradient is the caller's (`pathGradient`), at midpoints t_k = (k + 0.5) / N; w~ is what rtn makes of the scheme.
 * `outliers`: a share of the largest |w| leaves the grid first (ReQuant), which is then fitted to the rest.
 * Deviations: one step for each call; the shares of layers are the caller's. `signed` ranks by the product itself, the loss that is saved.
 */
import * as z from 'zod';
import { decodeF32, encodeAs } from '../../core/float.js';
import { SCALE_DTYPES } from '../../kernels/quant/int-grid.js';
import { largest } from '../../kernels/quant/outliers.js';
import type { Method } from '../define.js';
import { intGrid, intQuantized, scaleParam } from '../int-quantized.js';
import type { Quantizer } from '../kinds.js';
import { parseParams } from '../params.js';
import { pathGradientOf, layerQuantizer } from '../quant-scheme.js';

const params = z.strictObject({
  sparse: z.number().min(0).max(1).default(0.005).describe('share of the weights kept for their PQI'),
  outliers: z.number().min(0).max(1).default(0).describe('share of the weights kept for their size, before the others are fitted'),
  signed: z.boolean().default(false).describe('rank by the signed product instead of its magnitude'),
  values: z.enum(SCALE_DTYPES).default('F16').describe('how kept weights are stored'),
  scales: scaleParam,
});

/** Kept ones never again: their score is the least. */
function scoresOf(w: Float32Array, nearest: Float32Array, gradient: Float32Array, taken: Int32Array, signed: boolean): Float32Array {
  const out = w.map((v, i) => {
    const product = (nearest[i]! - v) * gradient[i]!;
    return signed ? Math.max(0, product) : Math.abs(product);
  });
  for (const i of taken) out[i] = 0;
  return out;
}

const method: Method<'quant', Quantizer> = {
  kind: 'quant',
  name: 'pqi',
  title: 'Weights whose rounding costs the loss most are kept, by the integral of its gradient',
  paper: { cite: 'Hu et al., "Identifying Sensitive Weights via Post-quantization Integral", 2025', url: 'https://arxiv.org/abs/2503.01901' },
  params,
  create: (raw) => {
    const p = parseParams('pqi', params, raw);
    return layerQuantizer('pqi', {
      needs: ['pathGradient'],
      grids: ['int'],
      memoryBytes: (m, n) => 24 * m * n,
      quantize: async (_c, layer, stats, scheme) => {
        const { m, n, w } = layer;
        const gradient = pathGradientOf(layer, stats);
        const first = largest(w, Math.floor(p.outliers * m * n));
        const core = w.slice();
        for (const i of first) core[i] = 0;
        const grid = intGrid(m, n, scheme, p.scales).fitStatic(core);
        const back = grid.nearest(core);
        const count = Math.min(m * n - first.length, Math.floor(p.sparse * m * n));
        const second = largest(scoresOf(w, back, gradient, first, p.signed), count);
        const index = Int32Array.from(new Set([...first, ...second])).sort();
        const kept = Float32Array.from(index, (i) => w[i]!);
        const values = decodeF32(p.values, encodeAs(p.values, kept));
        for (const [k, i] of index.entries()) back[i] = values[k]!;
        return intQuantized(
          grid,
          scheme,
          back,
          { outliers: first.length, sparse: index.length - first.length },
          { kept: { index, values } },
          ((p.values === 'F32' ? 32 : 16) + 32) * index.length,
        );
      },
    });
  },
};
export default method;
