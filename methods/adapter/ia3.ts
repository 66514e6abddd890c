/**
 * (IA)^3: "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", Haokun Liu et al., 2022, https://arxiv.org/abs/2205.05638
 *   keys and values   y = l (x W^T + b):   W' = diag(l) W, b' = l b;   l: (out, 1)
 *   feed-forward      y = (l x) W^T + b:   W' = W diag(l);             l: (1, in), as peft stores both; l = 1 at the start
 */
import * as tf from '#tf';
import * as z from 'zod';
import { frozenForward } from '../adapter-forward.js';
import type { AdaptedLayer, FrozenLinear, HostTree, LayerPlan, ParamTree, PeftForm, WeightAdapter } from '../adapter-kind.js';
import type { Ctx, Method } from '../define.js';
import { parseParams } from '../params.js';

const params = z.strictObject({
  feedforward: z
    .array(z.string().min(1))
    .default(['down_proj', 'fc2', 'mlp.c_proj'])
    .describe('endings of the modules whose inputs are scaled, not their outputs'),
});

class Ia3 implements WeightAdapter {
  readonly targets = ['k_proj', 'v_proj', 'down_proj'];
  readonly peft: PeftForm = {
    type: 'IA3',
    keys: { l: 'ia3_l' },
    config: (layers, transposed, targets) => ({
      fan_in_fan_out: transposed,
      // peft wants names out of target_modules
      feedforward_modules: targets.filter((t) => layers.some((l) => this.#isFeedForward(l) && (l.module === t || l.module.endsWith(`.${t}`)))),
      init_ia3_weights: true,
      modules_to_save: null,
    }),
  };

  constructor(private readonly feedforward: readonly string[]) {}

  #isFeedForward({ module }: AdaptedLayer): boolean {
    return this.feedforward.some((name) => module === name || module.endsWith(`.${name}`));
  }

  plan(layer: AdaptedLayer): LayerPlan {
    return { trainable: { l: { shape: this.#isFeedForward(layer) ? [1, layer.in] : [layer.out, 1] } } };
  }

  init(_: Ctx, layer: AdaptedLayer): Promise<{ trainable: HostTree; frozen: HostTree }> {
    return Promise.resolve({ trainable: { l: new Float32Array(this.#isFeedForward(layer) ? layer.in : layer.out).fill(1) }, frozen: {} });
  }

  weight(w: tf.Tensor2D, p: ParamTree): tf.Tensor2D {
    return tf.mul(w, p['l']!);
  }

  bias(b: tf.Tensor1D | undefined, p: ParamTree, layer: AdaptedLayer): tf.Tensor1D | undefined {
    return b === undefined || this.#isFeedForward(layer) ? b : tf.mul(b, tf.reshape(p['l']!, [layer.out]));
  }

  forward(x: tf.Tensor2D, base: FrozenLinear, p: ParamTree, layer: AdaptedLayer): tf.Tensor2D {
    if (this.#isFeedForward(layer)) return frozenForward(tf.mul(x, p['l']!), base);
    return tf.mul(frozenForward(x, base), tf.reshape(p['l']!, [1, layer.out]));
  }
}

const method: Method<'adapter', WeightAdapter> = {
  kind: 'adapter',
  name: 'ia3',
  title: '(IA)^3: one factor for every key, value and feed-forward channel',
  paper: { cite: 'Liu et al., 2022', url: 'https://arxiv.org/abs/2205.05638' },
  params,
  create: (raw) => new Ia3(parseParams('ia3', params, raw).feedforward),
};
export default method;
