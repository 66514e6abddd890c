/** GPT-2: learned positions, LayerNorm before both sublayers, one projection for q, k and v, weights stored as (in, out). */
import * as tf from '#tf';
import { attention } from '../kernels/nn/attention.js';
import { activation } from '../kernels/nn/gated.js';
import { layerNorm } from '../kernels/nn/norm.js';
import type { Batch } from './batch.js';
import type { CausalModel } from './causal.js';
import type { Gpt2Config } from './config/types.js';
import { part, type HeadSpec, type LinearSpec, type Part, type Scope } from './graph.js';
import { embeddingWeight, headWeight, requirePrefix, type TensorTable } from './tensors.js';

export class Gpt2 implements CausalModel {
  readonly input: Part;
  readonly blocks: readonly Part[];
  readonly output: Part;
  readonly head: HeadSpec;
  readonly #prefix: string;
  readonly #embedding: string;

  constructor(
    readonly config: Gpt2Config,
    table: TensorTable,
  ) {
    this.#prefix = requirePrefix(config, table);
    this.#embedding = embeddingWeight(config, `${this.#prefix}wte.weight`, table);
    const { vocabSize: vocabulary, hiddenSize: columns, maxPositions } = config;
    this.input = part({
      tables: [
        { name: this.#embedding, rows: vocabulary, columns },
        { name: `${this.#prefix}wpe.weight`, rows: maxPositions, columns },
      ],
    });
    this.blocks = config.layers.map((_, i) => this.#block(i));
    this.output = part({ vectors: this.#normVectors('ln_f') });
    this.head = { weight: headWeight(config, this.#embedding, table), vocabulary, columns, softcap: 0 };
  }

  #normVectors(name: string): Part['vectors'] {
    return ['weight', 'bias'].map((part_) => ({ name: `${this.#prefix}${name}.${part_}`, length: this.config.hiddenSize }));
  }

  #block(index: number): Part {
    const { hiddenSize: h, intermediateSize: m } = this.config;
    const p = `h.${index}.`;
    const linear = (name: string, out: number, inner: number): LinearSpec => ({
      module: this.#prefix + p + name,
      out,
      in: inner,
      bias: true,
      transposed: true,
    });
    return part({
      linears: [linear('attn.c_attn', 3 * h, h), linear('attn.c_proj', h, h), linear('mlp.c_fc', m, h), linear('mlp.c_proj', h, m)],
      vectors: [...this.#normVectors(`${p}ln_1`), ...this.#normVectors(`${p}ln_2`)],
    });
  }

  embed(scope: Scope, ids: Int32Array, batch: Batch): tf.Tensor2D {
    return tf.add(scope.rows(this.#embedding, ids), scope.rows(`${this.#prefix}wpe.weight`, batch.positionIds));
  }

  block(index: number, scope: Scope, x: tf.Tensor2D, batch: Batch): tf.Tensor2D {
    const p = `${this.#prefix}h.${index}.`;
    const { numHeads: heads, activation: kind, layers } = this.config;
    const projected = scope.linear(`${p}attn.c_attn`, this.#norm(scope, `h.${index}.ln_1`, x));
    const [q, k, v] = tf.split(projected, 3, 1) as [tf.Tensor2D, tf.Tensor2D, tf.Tensor2D];
    const { k: keys, v: values, ...place } = batch.seen(index, k, v);
    const a = attention(q, keys, values, batch.attention(heads, layers[index]!.scale, place), batch.mask);
    const y = tf.add<tf.Tensor2D>(x, scope.linear(`${p}attn.c_proj`, a));
    const inner = activation(scope.linear(`${p}mlp.c_fc`, this.#norm(scope, `h.${index}.ln_2`, y)), kind);
    return tf.add(y, scope.linear(`${p}mlp.c_proj`, inner));
  }

  finish(scope: Scope, x: tf.Tensor2D): tf.Tensor2D {
    return this.#norm(scope, 'ln_f', x);
  }

  #norm(scope: Scope, name: string, x: tf.Tensor2D): tf.Tensor2D {
    const p = `${this.#prefix}${name}`;
    return layerNorm(x, scope.vector(`${p}.weight`), scope.vector(`${p}.bias`), this.config.norm.eps);
  }
}
