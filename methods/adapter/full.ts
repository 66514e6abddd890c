/**
 * Full fine-tuning of linear layers: the baseline every adapter is measured against, and the reference of LoRA's paper
 * (Hu et al., 2021, https://arxiv.org/abs/2106.09685, section 2).
 *   W' = W + D, b' = b + d, all of D and d free, 0 at the start. The result is stored as a delta or a model.
 * Deviations: embeddings, norms and the output layer stay; weight decay draws D to 0, that is W' to W, not W' to 0.
 */
import * as tf from '#tf';
import * as z from 'zod';
import type { AdaptedLayer, HostTree, LayerPlan, ParamTree, WeightAdapter } from '../adapter-kind.js';
import type { Ctx, Method } from '../define.js';
import { parseParams } from '../params.js';

const params = z.strictObject({});

class Full implements WeightAdapter {
  readonly targets = 'all-linear';

  plan(layer: AdaptedLayer): LayerPlan {
    return { trainable: { D: { shape: [layer.out, layer.in] }, ...(layer.bias ? { d: { shape: [layer.out], decay: false } } : {}) } };
  }

  init(_: Ctx, layer: AdaptedLayer): Promise<{ trainable: HostTree; frozen: HostTree }> {
    const bias = layer.bias ? { d: new Float32Array(layer.out) } : {};
    return Promise.resolve({ trainable: { D: new Float32Array(layer.out * layer.in), ...bias }, frozen: {} });
  }

  weight(w: tf.Tensor2D, p: ParamTree): tf.Tensor2D {
    return tf.add(w, p['D']!);
  }

  bias(b: tf.Tensor1D | undefined, p: ParamTree): tf.Tensor1D | undefined {
    return b === undefined ? undefined : tf.add(b, p['d']!);
  }
}

const method: Method<'adapter', WeightAdapter> = {
  kind: 'adapter',
  name: 'full',
  title: 'Full fine-tuning of the linear layers',
  paper: { cite: 'Hu et al., 2021, section 2', url: 'https://arxiv.org/abs/2106.09685' },
  params,
  create(raw) {
    parseParams('full', params, raw);
    return new Full();
  },
};
export default method;
