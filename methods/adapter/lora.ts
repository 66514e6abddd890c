/**
 * LoRA: "LoRA: Low-Rank Adaptation of Large Language Models", Edward J. Hu et al., 2021, https://arxiv.org/abs/2106.09685
 *   W' = W + (alpha / r) B A;   A ~ U(-1/sqrt(in), 1/sqrt(in)) as peft starts it, B = 0
 */
import * as z from 'zod';
import type { WeightAdapter } from '../adapter-kind.js';
import type { Method } from '../define.js';
import { Lora, loraParams, loraSettings } from '../lora-family.js';
import { parseParams } from '../params.js';

const params = z.strictObject(loraParams);

const method: Method<'adapter', WeightAdapter> = {
  kind: 'adapter',
  name: 'lora',
  title: 'LoRA: low-rank factors beside every weight',
  paper: { cite: 'Hu et al., 2021', url: 'https://arxiv.org/abs/2106.09685' },
  params,
  create: (raw) => new Lora(loraSettings(parseParams('lora', params, raw))),
};
export default method;
