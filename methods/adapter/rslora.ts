/**
 * rsLoRA: "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA", Damjan Kalajdzievski, 2023, https://arxiv.org/abs/2312.03732
 *   W' = W + (alpha / sqrt(r)) B A, else LoRA
 */
import * as z from 'zod';
import type { WeightAdapter } from '../adapter-kind.js';
import type { Method } from '../define.js';
import { Lora, loraParams, loraSettings } from '../lora-family.js';
import { parseParams } from '../params.js';

const params = z.strictObject(loraParams);

const method: Method<'adapter', WeightAdapter> = {
  kind: 'adapter',
  name: 'rslora',
  title: 'Rank-stabilized LoRA: the scale falls with the root of the rank',
  paper: { cite: 'Kalajdzievski, 2023', url: 'https://arxiv.org/abs/2312.03732' },
  params,
  create: (raw) => new Lora(loraSettings(parseParams('rslora', params, raw), { rslora: true })),
};
export default method;
