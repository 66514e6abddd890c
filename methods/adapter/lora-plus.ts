/**
 * LoRA+: "LoRA+: Efficient Low Rank Adaptation of Large Models", Soufiane Hayou, Nikhil Ghosh, Bin Yu, 2024, https://arxiv.org/abs/2402.12354
 *   LoRA with a learning rate of B that is `ratio` times that of A
 */
import * as z from 'zod';
import type { WeightAdapter } from '../adapter-kind.js';
import type { Method } from '../define.js';
import { Lora, loraParams, loraSettings } from '../lora-family.js';
import { parseParams } from '../params.js';

const params = z.strictObject({ ...loraParams, ratio: z.number().positive().default(16).describe("B's learning rate over A's") });

const method: Method<'adapter', WeightAdapter> = {
  kind: 'adapter',
  name: 'lora-plus',
  title: 'LoRA+: B learns faster than A',
  paper: { cite: 'Hayou et al., 2024', url: 'https://arxiv.org/abs/2402.12354' },
  params,
  create(raw) {
    const p = parseParams('lora-plus', params, raw);
    return new Lora(loraSettings(p, { ratio: p.ratio }));
  },
};
export default method;
