/**
 * BitFit: "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models", Elad Ben Zaken, Shauli Ravfogel,
 * Yoav Goldberg, 2021, https://arxiv.org/abs/2106.10199
 *   b' = b + beta, beta = 0 at the start; W stays.
 * Deviation: biases of linear layers only, not those of norms; `create` gives layers without a bias one, which the paper does not.
 */
import * as tf from '#tf';
import * as z from 'zod';
import { frozenForward } from '../adapter-forward.js';
import type { AdaptedLayer, FrozenLinear, HostTree, LayerPlan, ParamTree, PeftForm, WeightAdapter } from '../adapter-kind.js';
import type { Ctx, Method } from '../define.js';
import { parseParams } from '../params.js';

const params = z.strictObject({ create: z.boolean().default(false).describe('layers without a bias get one') });

class BitFit implements WeightAdapter {
  readonly targets = 'all-linear';
  readonly peft: PeftForm = { type: 'BEFT', keys: { beta: 'beft_bias' }, config: () => ({ init_weights: true, modules_to_save: null }) };

  constructor(private readonly create: boolean) {}

  plan(layer: AdaptedLayer): LayerPlan | string {
    if (!layer.bias && !this.create) return 'it has no bias';
    return { trainable: { beta: { shape: [1, layer.out], decay: false } } };
  }

  init(_: Ctx, layer: AdaptedLayer): Promise<{ trainable: HostTree; frozen: HostTree }> {
    return Promise.resolve({ trainable: { beta: new Float32Array(layer.out) }, frozen: {} });
  }

  weight(w: tf.Tensor2D): tf.Tensor2D {
    return tf.clone(w);
  }

  bias(b: tf.Tensor1D | undefined, p: ParamTree, layer: AdaptedLayer): tf.Tensor1D {
    const beta: tf.Tensor1D = tf.reshape(p['beta']!, [layer.out]);
    return b === undefined ? beta : tf.add(b, beta);
  }

  forward(x: tf.Tensor2D, base: FrozenLinear, p: ParamTree): tf.Tensor2D {
    return tf.add(frozenForward(x, base), p['beta']!);
  }
}

const method: Method<'adapter', WeightAdapter> = {
  kind: 'adapter',
  name: 'bitfit',
  title: 'BitFit: biases alone',
  paper: { cite: 'Ben Zaken et al., 2021', url: 'https://arxiv.org/abs/2106.10199' },
  params,
  create: (raw) => new BitFit(parseParams('bitfit', params, raw).create),
};
export default method;
