/**
 * DoRA: "DoRA: Weight-Decomposed Low-Rank Adaptation", Shih-Yang Liu et al., 2024, https://arxiv.org/abs/2402.09353
 *   V = W + (alpha / r) B A;   n_o = ||V_o||, a constant in the backward pass (section 4.3);   W' = diag(m / n) V;   m = ||W_o|| at the start
 * n comes without W + s B A in memory: n_o^2 = ||W_o||^2 + 2 s B_o (A W_o^T) + s^2 B_o A A^T B_o^T.
 * Dropout as peft has it: the branch sees dropped x in both of its terms, the frozen product does not.
 */
import * as tf from '#tf';
import * as z from 'zod';
import { frozenLinear } from '../../kernels/nn/frozen-linear.js';
import { lowRankLinear } from '../../kernels/nn/low-rank-linear.js';
import { scaleByRatio } from '../../kernels/nn/row-scale.js';
import { rowSquares } from '../adapter-forward.js';
import type { AdaptedLayer, FrozenLinear, HostTree, LayerPlan, ParamTree, Pass, PeftForm, WeightAdapter } from '../adapter-kind.js';
import type { Ctx, Method } from '../define.js';
import { kaimingUniform, loraParams, loraSettings, peftConfig, type LoraSettings } from '../lora-family.js';
import { parseParams } from '../params.js';

const params = z.strictObject(loraParams);

class Dora implements WeightAdapter {
  readonly targets = 'all-linear';
  readonly peft: PeftForm;

  constructor(private readonly s: LoraSettings) {
    this.peft = {
      type: 'LORA',
      keys: { A: 'lora_A.weight', B: 'lora_B.weight', m: 'lora_magnitude_vector' },
      config: (_, transposed) => peftConfig(s, transposed, true),
    };
  }

  plan(layer: AdaptedLayer): LayerPlan {
    const { rank } = this.s;
    return {
      trainable: { A: { shape: [rank, layer.in] }, B: { shape: [layer.out, rank] }, m: { shape: [layer.out] } },
      frozen: { squares: { shape: [layer.out] } },
    };
  }

  init(c: Ctx, layer: AdaptedLayer, base: FrozenLinear): Promise<{ trainable: HostTree; frozen: HostTree }> {
    const { rank } = this.s;
    const squares = rowSquares(base);
    const trainable = { A: kaimingUniform(c.rng, rank, layer.in), B: new Float32Array(layer.out * rank), m: Float32Array.from(squares, Math.sqrt) };
    return Promise.resolve({ trainable, frozen: { squares: new Float32Array(squares) } });
  }

  weight(w: tf.Tensor2D, p: ParamTree): tf.Tensor2D {
    const v: tf.Tensor2D = tf.add(w, tf.mul(tf.matMul(p['B'] as tf.Tensor2D, p['A'] as tf.Tensor2D), this.s.scale));
    const norms = tf.sqrt(tf.sum(tf.square(v), 1, true));
    return tf.mul(v, tf.div(tf.expandDims(p['m']!, 1), norms));
  }

  forward(x: tf.Tensor2D, base: FrozenLinear, p: ParamTree, _: AdaptedLayer, pass: Pass): tf.Tensor2D {
    const { scale, dropout } = this.s;
    const [a, b, m] = [p['A'] as tf.Tensor2D, p['B'] as tf.Tensor2D, p['m'] as tf.Tensor1D];
    const dropped = pass.dropout(x, dropout);
    const scaled = scaleByRatio(lowRankLinear(dropped, base.matrix, a, b, scale, base.transposed), m, () => this.#norms(base, a, b, p['squares']!));
    const product = (t: tf.Tensor2D): tf.Tensor2D => frozenLinear(t, base.matrix, undefined, base.transposed);
    const y: tf.Tensor2D = dropped === x ? scaled : tf.add(scaled, tf.sub(product(x), product(dropped)));
    return base.bias === undefined ? y : tf.add(y, base.bias);
  }

  #norms(base: FrozenLinear, a: tf.Tensor2D, b: tf.Tensor2D, squares: tf.Tensor): tf.Tensor1D {
    return tf.tidy(() => {
      const { scale } = this.s;
      const crossed = tf.transpose(frozenLinear(a, base.matrix, undefined, base.transposed));
      const gram = tf.matMul(b, tf.matMul(a, a, false, true));
      const more = tf.add(tf.mul(crossed, 2 * scale), tf.mul(gram, scale * scale));
      return tf.sqrt(tf.add(squares, tf.sum(tf.mul(b, more), 1)));
    });
  }
}

const method: Method<'adapter', WeightAdapter> = {
  kind: 'adapter',
  name: 'dora',
  title: 'DoRA: low-rank directions and a magnitude for every row',
  paper: { cite: 'Liu et al., 2024', url: 'https://arxiv.org/abs/2402.09353' },
  params,
  create: (raw) => new Dora(loraSettings(parseParams('dora', params, raw))),
};
export default method;
