/**
 * hqq: "Half-Quadratic Quantization of Large Machine Learning Models", Hicham Badri, Appu Shaji, 2023, https://mobiusml.github.io/hqq_blog/.
 * Zero points are real numbers; equations and the one deviation: kernels/quant/hqq.ts. Scales and zero points are counted as 16 bits each.
 */
import * as z from 'zod';
import { halfQuadratic } from '../../kernels/quant/hqq.js';
import type { Method } from '../define.js';
import type { Quantized, Quantizer } from '../kinds.js';
import { parseParams } from '../params.js';
import { decodeInt, layerQuantizer } from '../quant-scheme.js';

const params = z.strictObject({
  iterations: z.int().min(0).default(20).describe('steps'),
});

const method: Method<'quant', Quantizer> = {
  kind: 'quant',
  name: 'hqq',
  title: 'Zero points of least |error|^0.7 by half-quadratic splitting, without any statistics',
  paper: { cite: 'Badri, Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023', url: 'https://mobiusml.github.io/hqq_blog/' },
  params,
  create: (raw) => {
    const p = parseParams('hqq', params, raw);
    return layerQuantizer('hqq', {
      needs: [],
      grids: ['int'],
      memoryBytes: (m, n) => 8 * m * n,
      quantize: async (_c, layer, _stats, scheme) => {
        const { m, n, w } = layer;
        const size = scheme.groupSize > 0 ? scheme.groupSize : n;
        const fitted = halfQuadratic(w, n, size, scheme.bits, p.iterations);
        const coded: Quantized = { scheme, ...fitted, w, bitsPerWeight: scheme.bits + (32 * Math.ceil(n / size)) / n, facts: {} };
        return { ...coded, w: decodeInt(coded, m, n) };
      },
    });
  },
};
export default method;
