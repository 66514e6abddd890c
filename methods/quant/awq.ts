/**
 * awq: "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", Ji Lin, Jiaming Tang, Haotian Tang, Shang Yang,
 * Wei-Ming Chen, Wei-Chen Wang, Guangxuan Xiao, Xingyu Dang, Chuang Gan, Song Han, 2023, https://arxiv.org/abs/2306.00978.
 * Equations: kernels/quant/awq.ts. The result has the input scales; folding them into the op before is the caller's, who may give layers that
 * share an input as one with their rows stacked.
 * Deviations: the loss is the layer's own output error over all tokens, from X^T X; the release looks at the module's (attention, MLP), and
 * for ranges at 512 tokens.
 */
import * as z from 'zod';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import { inputScales, scaleColumns, searchRanges, searchScales, type Rounding } from '../../kernels/quant/awq.js';
import type { Method } from '../define.js';
import { intGrid, intQuantized, scaleParam } from '../int-quantized.js';
import type { Quantizer } from '../kinds.js';
import { statOf } from '../layer-input.js';
import { parseParams } from '../params.js';
import { layerQuantizer } from '../quant-scheme.js';

const params = z.strictObject({
  scale: z.boolean().default(true).describe('search for input scales; off where the op before cannot take them'),
  clip: z.boolean().default(true).describe('search for the range of each group (the release leaves out q and k)'),
  scales: scaleParam,
});

const method: Method<'quant', Quantizer> = {
  kind: 'quant',
  name: 'awq',
  title: 'Inputs that matter are scaled up before rounding, ranges searched by output error',
  paper: {
    cite: 'Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", 2023',
    url: 'https://arxiv.org/abs/2306.00978',
  },
  params,
  create: (raw) => {
    const p = parseParams('awq', params, raw);
    return layerQuantizer('awq', {
      needs: ['inputAbsMean', 'inputGram'],
      grids: ['int'],
      memoryBytes: (m, n) => 32 * m * n + 8 * n * n,
      quantize: async (c, layer, stats, scheme) => {
        const { m, n, w } = layer;
        const [ops, gram, absMean] = [await matrixOps(c), statOf(layer, stats, 'inputGram'), statOf(layer, stats, 'inputAbsMean')];
        const rounding: Rounding = (x) => {
          c.checkpointCancel();
          return intGrid(m, n, scheme, p.scales).fitStatic(x).nearest(x);
        };
        const found = p.scale ? searchScales(w, m, absMean, gram, rounding, ops) : { scales: inputScales(absMean, 0), alpha: 0, gain: 1 };
        let scaled = scaleColumns(w, found.scales, false);
        if (p.clip) {
          const s = found.scales;
          const scaledGram = gram.map((v, at) => v / (s[Math.floor(at / n)]! * s[at % n]!));
          scaled = searchRanges(scaled, m, n, scheme.groupSize > 0 ? scheme.groupSize : n, scaledGram, rounding, ops);
        }
        const grid = intGrid(m, n, scheme, p.scales).fitStatic(scaled);
        const back = scaleColumns(grid.nearest(scaled), found.scales, true);
        return intQuantized(grid, scheme, back, { alpha: found.alpha, gain: found.gain }, p.scale ? { inputScales: found.scales } : {});
      },
    });
  },
};
export default method;
