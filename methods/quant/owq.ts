/**
 * owq: "OWQ: Outlier-Aware Weight Quantization for Efficient Fine-Tuning and Inference of Large Language Models", Changhun Lee, Jungyu Jin,
 * Taesu Kim, Hyungjun Kim, Eunhyeok Park, 2023, https://arxiv.org/abs/2306.02272.
 *
 *   sensitivity_j = H_jj ||W_:j - Q(W)_:j||^2;  the k columns of largest sensitivity stay in full precision, at the end of the order,
 *   GPTQ (kernels/quant/gptq.ts) on the others, whose errors the kept columns take up
 *   Q: range and zero point of least sum |W - What|^2.4, 40 ranges for ranking, 100 for the result
 * k: `columns`, or from `targetBits`: b + (16 - b) k / n. The codes at kept columns are the zero point.
 */
import * as z from 'zod';
import { decodeF32, encodeAs } from '../../core/float.js';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import { gptq } from '../../kernels/quant/gptq.js';
import { largest } from '../../kernels/quant/outliers.js';
import type { Method } from '../define.js';
import { intGrid, intQuantized, scaleParam } from '../int-quantized.js';
import type { LayerWeight, Quantizer, QuantScheme } from '../kinds.js';
import { statOf } from '../layer-input.js';
import { parseParams } from '../params.js';
import { layerQuantizer } from '../quant-scheme.js';

const RANKING_STEPS = 40;
const STEPS = 100;

const params = z.strictObject({
  columns: z.int().min(0).optional().describe('columns of a layer that are kept; else by targetBits'),
  targetBits: z.number().optional().describe('bits of a weight with the kept columns (default: a hundredth above those of the scheme)'),
  damping: z.number().min(0).default(0.01).describe('added to the diagonal of X^T X, as a share of its mean; raised when the matrix does not factor'),
  actOrder: z.boolean().default(false).describe('the other columns in the order of falling activation'),
  mse: z.boolean().default(true).describe('search each range and zero point for the least error'),
  scales: scaleParam,
});

/** At most all of them. */
function columnCount(p: z.infer<typeof params>, n: number, bits: number): number {
  const wanted = p.columns ?? Math.round((((p.targetBits ?? bits + 0.01) - bits) / (16 - bits)) * n);
  return Math.max(0, Math.min(n, wanted));
}

/** Ascending. */
function weakest({ w, m, n }: LayerWeight, gram: Float32Array, nearest: Float32Array, count: number): Int32Array {
  const sensitivity = new Float32Array(n);
  for (let i = 0; i < m * n; i++) sensitivity[i % n] = sensitivity[i % n]! + (w[i]! - nearest[i]!) ** 2;
  for (let j = 0; j < n; j++) sensitivity[j] = sensitivity[j]! * gram[j * (n + 1)]!;
  return largest(sensitivity, count);
}

const method: Method<'quant', Quantizer> = {
  kind: 'quant',
  name: 'owq',
  title: 'The few most sensitive input columns stay in 16 bits, GPTQ on the others',
  paper: {
    cite: 'Lee et al., "OWQ: Outlier-Aware Weight Quantization for Efficient Fine-Tuning and Inference of Large Language Models", 2023',
    url: 'https://arxiv.org/abs/2306.02272',
  },
  params,
  create: (raw) => {
    const p = parseParams('owq', params, raw);
    const search = (scheme: QuantScheme, mseSteps: number) => ({ mseSteps: p.mse ? mseSteps : 0, allZeros: !scheme.symmetric });
    return layerQuantizer('owq', {
      needs: ['inputGram'],
      grids: ['int'],
      memoryBytes: (m, n) => 24 * m * n + 24 * n * n,
      quantize: async (c, layer, stats, scheme) => {
        const { m, n, w } = layer;
        const gram = statOf(layer, stats, 'inputGram');
        const count = columnCount(p, n, scheme.bits);
        const ranking = intGrid(m, n, scheme, p.scales, search(scheme, RANKING_STEPS)).fitStatic(w).nearest(w);
        c.checkpointCancel();
        const index = weakest(layer, gram, ranking, count);
        const grid = intGrid(m, n, scheme, p.scales, search(scheme, STEPS)).fitStatic(w, new Set(index));
        c.checkpointCancel();
        const options = { ops: await matrixOps(c), damping: p.damping, actOrder: p.actOrder, kept: [...index], checkpointCancel: () => c.checkpointCancel() };
        const r = gptq(w, m, n, gram, grid, options);
        const values = new Float32Array(m * count);
        for (let i = 0; i < m; i++) for (const [k, j] of index.entries()) values[i * count + k] = r.w[i * n + j]!;
        values.set(decodeF32('F16', encodeAs('F16', values)));
        const { zeros } = grid.parameters();
        for (let i = 0; i < m; i++) {
          for (const [k, j] of index.entries()) {
            r.w[i * n + j] = values[i * count + k]!;
            grid.codes[i * n + j] = zeros[i * grid.groups + Math.floor(j / grid.groupSize)]!;
          }
        }
        const facts = { columns: count, damping: r.damping, deadInputs: r.deadInputs };
        return intQuantized(grid, scheme, r.w, facts, { keptColumns: { index, values } }, (16 * m + 32) * count);
      },
    });
  },
};
export default method;
