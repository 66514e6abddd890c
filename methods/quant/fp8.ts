/**
 * fp8: "FP8 Formats for Deep Learning", Paulius Micikevicius, Dusan Stosic, Neil Burgess and others, 2022, https://arxiv.org/abs/2209.05433.
 *   s = max|w| / 448 for each row, What = s E4M3(w / s)
 */
import * as z from 'zod';
import { decodeF32 } from '../../core/float.js';
import { E4M3_MAX, e4m3Code } from '../../kernels/quant/fp8.js';
import type { Method } from '../define.js';
import type { Quantizer } from '../kinds.js';
import { parseParams } from '../params.js';
import { layerQuantizer } from '../quant-scheme.js';

const params = z.strictObject({
  granularity: z.enum(['row', 'tensor']).default('row').describe('what shares a scale'),
});

const method: Method<'quant', Quantizer> = {
  kind: 'quant',
  name: 'fp8',
  title: 'Eight-bit floats (E4M3), one scale for each row or one for all',
  paper: { cite: 'Micikevicius et al., "FP8 Formats for Deep Learning", 2022', url: 'https://arxiv.org/abs/2209.05433' },
  params,
  create: (raw) => {
    const p = parseParams('fp8', params, raw);
    return layerQuantizer('fp8', {
      needs: [],
      grids: ['fp8'],
      memoryBytes: (m, n) => 9 * m * n,
      quantize: async (_c, layer, _stats, scheme) => {
        const { m, n, w } = layer;
        const scales = new Float32Array(m);
        for (let i = 0; i < w.length; i++) scales[Math.floor(i / n)] = Math.max(scales[Math.floor(i / n)]!, Math.abs(w[i]!) / E4M3_MAX);
        if (p.granularity === 'tensor') scales.fill(scales.reduce((a, b) => Math.max(a, b), 0));
        for (let i = 0; i < m; i++) if (scales[i] === 0) scales[i] = 1;
        const codes = Uint8Array.from(w, (v, i) => e4m3Code(v / scales[Math.floor(i / n)]!));
        const back = decodeF32('F8_E4M3', codes).map((v, i) => v * scales[Math.floor(i / n)]!);
        return { scheme, codes, scales, w: back, bitsPerWeight: 8 + (p.granularity === 'row' ? 32 / n : 32 / (m * n)), facts: {} };
      },
    });
  },
};
export default method;
