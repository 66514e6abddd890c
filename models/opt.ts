/** OPT: learned positions from row 2 on, LayerNorm before or after the sublayers, embeddings that may be narrower than the model. */
import * as tf from '#tf';
import { attention } from '../kernels/nn/attention.js';
import { activation } from '../kernels/nn/gated.js';
import { layerNorm } from '../kernels/nn/norm.js';
import type { Batch } from './batch.js';
import type { CausalModel } from './causal.js';
import type { OptConfig } from './config/types.js';
import { part, type HeadSpec, type LinearSpec, type Part, type Scope } from './graph.js';
import { embeddingWeight, headWeight, requirePrefix, type TensorTable } from './tensors.js';

export class Opt implements CausalModel {
  readonly input: Part;
  readonly blocks: readonly Part[];
  readonly output: Part;
  readonly head: HeadSpec;
  readonly #prefix: string;
  readonly #embedding: string;

  constructor(
    readonly config: OptConfig,
    table: TensorTable,
  ) {
    const p = requirePrefix(config, table);
    this.#prefix = p;
    this.#embedding = embeddingWeight(config, `${p}embed_tokens.weight`, table);
    const { vocabSize: vocabulary, hiddenSize: h, embedSize, maxPositions, positionOffset } = config;
    const project = (name: string, out: number, inner: number): LinearSpec[] => (h === embedSize ? [] : [{ module: p + name, out, in: inner, bias: false }]);
    this.input = part({
      linears: project('project_in', h, embedSize),
      tables: [
        { name: this.#embedding, rows: vocabulary, columns: embedSize },
        { name: `${p}embed_positions.weight`, rows: maxPositions + positionOffset, columns: h },
      ],
    });
    this.blocks = config.layers.map((_, i) => this.#block(`${p}layers.${i}.`));
    this.output = part({ linears: project('project_out', embedSize, h), vectors: config.finalNorm ? this.#normVectors(`${p}final_layer_norm`) : [] });
    this.head = { weight: headWeight(config, this.#embedding, table), vocabulary, columns: embedSize, softcap: 0 };
  }

  #normVectors(name: string): Part['vectors'] {
    return this.config.normAffine ? ['weight', 'bias'].map((end) => ({ name: `${name}.${end}`, length: this.config.hiddenSize })) : [];
  }

  #block(p: string): Part {
    const { hiddenSize: h, intermediateSize: m, bias } = this.config;
    const linear = (name: string, out: number, inner: number): LinearSpec => ({ module: p + name, out, in: inner, bias });
    const projections = ['q_proj', 'k_proj', 'v_proj', 'out_proj'].map((n) => linear(`self_attn.${n}`, h, h));
    return part({
      linears: [...projections, linear('fc1', m, h), linear('fc2', h, m)],
      vectors: [...this.#normVectors(`${p}self_attn_layer_norm`), ...this.#normVectors(`${p}final_layer_norm`)],
    });
  }

  embed(scope: Scope, ids: Int32Array, batch: Batch): tf.Tensor2D {
    const { hiddenSize, embedSize, positionOffset } = this.config;
    const x = scope.rows(this.#embedding, ids);
    const wide = hiddenSize === embedSize ? x : scope.linear(`${this.#prefix}project_in`, x);
    const rows = batch.positionIds.map((position) => position + positionOffset);
    return tf.add(wide, scope.rows(`${this.#prefix}embed_positions.weight`, rows));
  }

  block(index: number, scope: Scope, x: tf.Tensor2D, batch: Batch): tf.Tensor2D {
    const p = `${this.#prefix}layers.${index}.`;
    const y = this.#sublayer(scope, `${p}self_attn_layer_norm`, x, (h) => this.#attention(`${p}self_attn.`, index, scope, h, batch));
    return this.#sublayer(scope, `${p}final_layer_norm`, y, (h) => scope.linear(`${p}fc2`, activation(scope.linear(`${p}fc1`, h), this.config.activation)));
  }

  // x + f(norm x), or norm(x + f(x))
  #sublayer(scope: Scope, norm: string, x: tf.Tensor2D, f: (h: tf.Tensor2D) => tf.Tensor2D): tf.Tensor2D {
    if (this.config.preNorm) return tf.add(x, f(this.#norm(scope, norm, x)));
    return this.#norm(scope, norm, tf.add(x, f(x)));
  }

  #attention(p: string, index: number, scope: Scope, h: tf.Tensor2D, batch: Batch): tf.Tensor2D {
    const [q, k, v] = ['q_proj', 'k_proj', 'v_proj'].map((n) => scope.linear(p + n, h)) as [tf.Tensor2D, tf.Tensor2D, tf.Tensor2D];
    const { numHeads, layers } = this.config;
    const { k: keys, v: values, ...place } = batch.seen(index, k, v);
    return scope.linear(`${p}out_proj`, attention(q, keys, values, batch.attention(numHeads, layers[index]!.scale, place), batch.mask));
  }

  finish(scope: Scope, x: tf.Tensor2D): tf.Tensor2D {
    const { finalNorm, hiddenSize, embedSize } = this.config;
    const y = finalNorm ? this.#norm(scope, `${this.#prefix}final_layer_norm`, x) : x;
    return hiddenSize === embedSize ? y : scope.linear(`${this.#prefix}project_out`, y);
  }

  #norm(scope: Scope, name: string, x: tf.Tensor2D): tf.Tensor2D {
    const { normAffine, norm, hiddenSize } = this.config;
    const [w, b] = normAffine ? [scope.vector(`${name}.weight`), scope.vector(`${name}.bias`)] : [tf.ones([hiddenSize]), tf.zeros([hiddenSize])];
    return layerNorm(x, w as tf.Tensor1D, b as tf.Tensor1D, norm.eps);
  }
}
