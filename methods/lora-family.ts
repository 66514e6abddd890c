/** What LoRA and its variants share: factors A (r, in) and B (out, r), dW = s B A; A uniform, B zero at the start. */
import * as tf from '#tf';
import * as z from 'zod';
import type { Rng } from '../core/rng.js';
import { lowRankLinear, lowRankProduct } from '../kernels/nn/low-rank-linear.js';
import { frozenForward } from './adapter-forward.js';
import type { AdaptedLayer, FrozenLinear, HostTree, LayerPlan, LoraFactors, ParamTree, Pass, PeftForm, WeightAdapter } from './adapter-kind.js';
import type { Ctx } from './define.js';

export const loraParams = {
  rank: z.number().int().min(1).default(8).describe('r, components of the update'),
  alpha: z.number().positive().optional().describe('scale of the update is alpha / r, 2 r by default'),
  dropout: z.number().min(0).max(0.99).default(0).describe("share of the branch's inputs that is dropped while training"),
};

export interface LoraSettings {
  readonly rank: number;
  readonly alpha: number;
  /** s of dW = s B A. */
  readonly scale: number;
  readonly dropout: number;
  /** Of B's learning rate to A's. */
  readonly ratio: number;
  readonly rslora: boolean;
}

/** U(-1 / sqrt(columns), 1 / sqrt(columns)): torch's kaiming_uniform_ with a = sqrt(5). */
export function kaimingUniform(rng: Rng, rows: number, columns: number): Float32Array {
  const bound = 1 / Math.sqrt(columns);
  return rng.symmetric(rows * columns).map((v) => v * bound);
}

export class Lora implements WeightAdapter {
  readonly targets = 'all-linear';
  readonly peft: PeftForm;

  constructor(protected readonly s: LoraSettings) {
    this.peft = {
      type: 'LORA',
      keys: { A: 'lora_A.weight', B: 'lora_B.weight' },
      config: (_, transposed) => peftConfig(s, transposed, false),
    };
  }

  plan(layer: AdaptedLayer): LayerPlan {
    const { rank, ratio } = this.s;
    return { trainable: { A: { shape: [rank, layer.in] }, B: { shape: [layer.out, rank], rate: ratio } } };
  }

  init(c: Ctx, layer: AdaptedLayer): Promise<{ trainable: HostTree; frozen: HostTree }> {
    const { rank } = this.s;
    return Promise.resolve({ trainable: { A: kaimingUniform(c.rng, rank, layer.in), B: new Float32Array(layer.out * rank) }, frozen: {} });
  }

  // W' = W + s B A
  weight(w: tf.Tensor2D, p: ParamTree): tf.Tensor2D {
    return tf.add(w, tf.mul(tf.matMul(p['B'] as tf.Tensor2D, p['A'] as tf.Tensor2D), this.s.scale));
  }

  forward(x: tf.Tensor2D, base: FrozenLinear, p: ParamTree, _: AdaptedLayer, pass: Pass): tf.Tensor2D {
    const { scale, dropout } = this.s;
    const [a, b] = [p['A'] as tf.Tensor2D, p['B'] as tf.Tensor2D];
    const dropped = pass.dropout(x, dropout);
    if (dropped !== x) return tf.add(frozenForward(x, base), lowRankProduct(dropped, a, b, scale));
    const y = lowRankLinear(x, base.matrix, a, b, scale, base.transposed);
    return base.bias === undefined ? y : tf.add(y, base.bias);
  }

  toLora(p: HostTree): LoraFactors {
    return { a: p['A']!, b: p['B']!.map((v) => v * this.s.scale), rank: this.s.rank };
  }
}

export function peftConfig({ rank, alpha, dropout, rslora }: LoraSettings, transposed: boolean, dora: boolean): Record<string, unknown> {
  return {
    alpha_pattern: {},
    bias: 'none',
    fan_in_fan_out: transposed,
    init_lora_weights: true,
    lora_alpha: alpha,
    lora_bias: false,
    lora_dropout: dropout,
    modules_to_save: null,
    r: rank,
    rank_pattern: {},
    use_dora: dora,
    use_rslora: rslora,
  };
}

/** Defaults filled in. `rslora`: s = alpha / sqrt(r). */
export function loraSettings(
  p: { readonly rank: number; readonly alpha?: number | undefined; readonly dropout: number },
  { rslora = false, ratio = 1 }: { readonly rslora?: boolean; readonly ratio?: number } = {},
): LoraSettings {
  const { rank, dropout } = p;
  const alpha = p.alpha ?? 2 * rank;
  return { rank, alpha, dropout, scale: rslora ? alpha / Math.sqrt(rank) : alpha / rank, ratio, rslora };
}
