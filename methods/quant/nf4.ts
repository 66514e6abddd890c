/**
 * nf4: "QLoRA: Efficient Finetuning of Quantized LLMs", Tim Dettmers, Artidoro Pagnoni, Ari Holtzman, Luke Zettlemoyer, 2023,
 * https://arxiv.org/abs/2305.14314. Table, blocks and double quantization: kernels/quant/nf4.ts.
 */
import * as z from 'zod';
import { blockMaxima, NESTED_BLOCK, nestMaxima, NF4, NF4_BLOCK, tableCodes, tableValues } from '../../kernels/quant/nf4.js';
import type { Method } from '../define.js';
import type { Quantizer } from '../kinds.js';
import { parseParams } from '../params.js';
import { layerQuantizer } from '../quant-scheme.js';

const params = z.strictObject({
  doubleQuant: z.boolean().default(true).describe('the scales are stored in 8 bits themselves'),
});

const method: Method<'quant', Quantizer> = {
  kind: 'quant',
  name: 'nf4',
  title: 'Sixteen quantiles of a normal distribution, blocks of 64, scales in 8 bits',
  paper: { cite: 'Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023', url: 'https://arxiv.org/abs/2305.14314' },
  params,
  create: (raw) => {
    const p = parseParams('nf4', params, raw);
    return layerQuantizer('nf4', {
      needs: [],
      grids: ['nf4'],
      memoryBytes: (m, n) => 8 * m * n,
      quantize: async (_c, layer, _stats, scheme) => {
        const maxima = blockMaxima(layer.w, NF4_BLOCK);
        const codes = tableCodes(layer.w, maxima, NF4_BLOCK, NF4);
        const nested = p.doubleQuant ? nestMaxima(maxima) : undefined;
        const scales = nested?.values ?? maxima;
        const scaleBits = nested === undefined ? 32 * maxima.length : 8 * maxima.length + 32 * Math.ceil(maxima.length / NESTED_BLOCK);
        return {
          scheme,
          codes,
          scales,
          w: tableValues(codes, scales, NF4_BLOCK, NF4),
          ...(nested === undefined ? {} : { nested: { codes: nested.codes, absmax: nested.absmax, offset: nested.offset } }),
          bitsPerWeight: 4 + scaleBits / layer.w.length,
          facts: {},
        };
      },
    });
  },
};
export default method;
