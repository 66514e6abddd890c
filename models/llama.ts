/** Llama and its family (mistral, qwen2, qwen3, gemma2, gemma3, phi3): one graph whose variants the config names. */
import * as tf from '#tf';
import { attention } from '../kernels/nn/attention.js';
import { gatedActivation } from '../kernels/nn/gated.js';
import { rmsNorm } from '../kernels/nn/norm.js';
import { rotary } from '../kernels/nn/rotary.js';
import type { Batch } from './batch.js';
import type { CausalModel } from './causal.js';
import type { LlamaConfig } from './config/types.js';
import { part, type HeadSpec, type LinearSpec, type Part, type Scope } from './graph.js';
import { embeddingWeight, headWeight, requirePrefix, type TensorTable } from './tensors.js';

export class Llama implements CausalModel {
  readonly input: Part;
  readonly blocks: readonly Part[];
  readonly output: Part;
  readonly head: HeadSpec;
  readonly #prefix: string;
  readonly #embedding: string;

  constructor(
    readonly config: LlamaConfig,
    table: TensorTable,
  ) {
    this.#prefix = requirePrefix(config, table);
    this.#embedding = embeddingWeight(config, `${this.#prefix}embed_tokens.weight`, table);
    const { vocabSize: vocabulary, hiddenSize: columns } = config;
    this.input = part({ tables: [{ name: this.#embedding, rows: vocabulary, columns }] });
    this.blocks = config.layers.map((_, i) => this.#block(i));
    this.output = part({ vectors: [{ name: `${this.#prefix}norm.weight`, length: columns }] });
    this.head = { weight: headWeight(config, this.#embedding, table), vocabulary, columns, softcap: config.logitSoftcap ?? 0 };
  }

  #layer(index: number): string {
    return `${this.#prefix}layers.${index}.`;
  }

  #block(index: number): Part {
    const { hiddenSize: h, intermediateSize: m, numHeads, numKvHeads, headDim, bias, fusedProjections, qkNorm, postNorms } = this.config;
    const p = this.#layer(index);
    const linear = (name: string, out: number, inner: number, b: boolean): LinearSpec => ({ module: p + name, out, in: inner, bias: b });
    const [q, kv] = [numHeads * headDim, numKvHeads * headDim];
    const projections = fusedProjections
      ? [linear('self_attn.qkv_proj', q + 2 * kv, h, bias.qkv)]
      : [linear('self_attn.q_proj', q, h, bias.qkv), linear('self_attn.k_proj', kv, h, bias.qkv), linear('self_attn.v_proj', kv, h, bias.qkv)];
    const gates = fusedProjections
      ? [linear('mlp.gate_up_proj', 2 * m, h, bias.mlp)]
      : [linear('mlp.gate_proj', m, h, bias.mlp), linear('mlp.up_proj', m, h, bias.mlp)];
    const norms = ['input_layernorm', 'post_attention_layernorm', ...(postNorms ? ['pre_feedforward_layernorm', 'post_feedforward_layernorm'] : [])];
    return part({
      linears: [...projections, linear('self_attn.o_proj', h, q, bias.o), ...gates, linear('mlp.down_proj', h, m, bias.mlp)],
      vectors: [
        ...norms.map((n) => ({ name: `${p}${n}.weight`, length: h })),
        ...(qkNorm ? ['q_norm', 'k_norm'].map((n) => ({ name: `${p}self_attn.${n}.weight`, length: headDim })) : []),
      ],
    });
  }

  embed(scope: Scope, ids: Int32Array): tf.Tensor2D {
    const x = scope.rows(this.#embedding, ids);
    return this.config.embedScale === 1 ? x : tf.mul(x, this.config.embedScale);
  }

  block(index: number, scope: Scope, x: tf.Tensor2D, batch: Batch): tf.Tensor2D {
    const p = this.#layer(index);
    const { postNorms } = this.config;
    const normed = (t: tf.Tensor2D, name: string): tf.Tensor2D => this.#norm(t, scope.vector(`${p}${name}.weight`));
    let a = this.#attention(index, scope, normed(x, 'input_layernorm'), batch);
    if (postNorms) a = normed(a, 'post_attention_layernorm');
    const y = tf.add<tf.Tensor2D>(x, a);
    let m = this.#feedForward(p, scope, normed(y, postNorms ? 'pre_feedforward_layernorm' : 'post_attention_layernorm'));
    if (postNorms) m = normed(m, 'post_feedforward_layernorm');
    return tf.add(y, m);
  }

  finish(scope: Scope, x: tf.Tensor2D): tf.Tensor2D {
    return this.#norm(x, scope.vector(`${this.#prefix}norm.weight`));
  }

  #norm(x: tf.Tensor2D, w: tf.Tensor1D): tf.Tensor2D {
    const { kind, eps } = this.config.norm;
    return rmsNorm(x, w, eps, kind === 'rms_plus_one' ? 1 : 0);
  }

  #attention(index: number, scope: Scope, h: tf.Tensor2D, batch: Batch): tf.Tensor2D {
    const { numHeads: heads, numKvHeads: kvHeads, scoreSoftcap: softcap = 0 } = this.config;
    const p = `${this.#layer(index)}self_attn.`;
    const { window = 0, scale, rope } = this.config.layers[index]!;
    const placed = (x: tf.Tensor2D, n: number, norm: string): tf.Tensor2D => {
      const normed = this.config.qkNorm ? this.#headNorm(x, n, scope.vector(p + norm)) : x;
      return rope === undefined ? normed : rotary(normed, batch.rotation(rope), batch.positions, n);
    };
    const [q, k, v] = this.#projections(p, scope, h);
    const { k: keys, v: values, ...place } = batch.seen(index, placed(k, kvHeads, 'k_norm.weight'), v);
    const shape = batch.attention(heads, scale, { kvHeads, window, softcap, ...place });
    return scope.linear(`${p}o_proj`, attention(placed(q, heads, 'q_norm.weight'), keys, values, shape, batch.mask));
  }

  #projections(p: string, scope: Scope, h: tf.Tensor2D): [q: tf.Tensor2D, k: tf.Tensor2D, v: tf.Tensor2D] {
    if (!this.config.fusedProjections) return [scope.linear(`${p}q_proj`, h), scope.linear(`${p}k_proj`, h), scope.linear(`${p}v_proj`, h)];
    const { numHeads, numKvHeads, headDim } = this.config;
    const [q, kv] = [numHeads * headDim, numKvHeads * headDim];
    return tf.split(scope.linear(`${p}qkv_proj`, h), [q, kv, kv], 1) as [tf.Tensor2D, tf.Tensor2D, tf.Tensor2D];
  }

  // over the channels of every head, before the rotation
  #headNorm(x: tf.Tensor2D, heads: number, w: tf.Tensor1D): tf.Tensor2D {
    const [tokens, width] = x.shape;
    const rows: tf.Tensor2D = tf.reshape(x, [tokens * heads, width / heads]);
    return tf.reshape(this.#norm(rows, w), [tokens, width]);
  }

  #feedForward(p: string, scope: Scope, h: tf.Tensor2D): tf.Tensor2D {
    const [gate, up] = this.config.fusedProjections
      ? (tf.split(scope.linear(`${p}mlp.gate_up_proj`, h), 2, 1) as [tf.Tensor2D, tf.Tensor2D])
      : [scope.linear(`${p}mlp.gate_proj`, h), scope.linear(`${p}mlp.up_proj`, h)];
    return scope.linear(`${p}mlp.down_proj`, gatedActivation(gate, up, this.config.activation));
  }
}
