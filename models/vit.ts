/** ViT: an image as a sequence of patches behind a class token, LayerNorm before both sublayers; with a classifier or a pooler where stored. */
import * as tf from '#tf';
import { attention } from '../kernels/nn/attention.js';
import { activation } from '../kernels/nn/gated.js';
import { layerNorm } from '../kernels/nn/norm.js';
import { unfoldPatches } from '../kernels/nn/unfold.js';
import type { Batch } from './batch.js';
import type { VitConfig } from './config/types.js';
import { part, type HeadSpec, type LinearSpec, type Part, type Scope, type SignalModel } from './graph.js';
import { requirePrefix, type TensorTable } from './tensors.js';

/** A batch for it has `config.numTokens` tokens a sequence. */
export class Vit implements SignalModel {
  readonly input: Part;
  readonly blocks: readonly Part[];
  readonly output: Part;
  /** The classifier; it reads the class token's row. */
  readonly head?: HeadSpec | undefined;
  /** There is a `pooled`. */
  readonly hasPooler: boolean;
  readonly #prefix: string;

  constructor(
    readonly config: VitConfig,
    table: TensorTable,
  ) {
    const p = requirePrefix(config, table);
    this.#prefix = p;
    const { hiddenSize: h, numChannels, patchSize, numTokens, pooler, numLabels, numLayers } = config;
    const kernel = [numChannels, ...patchSize];
    this.input = part({
      linears: [{ module: `${p}embeddings.patch_embeddings.projection`, out: h, in: kernel.reduce((a, b) => a * b), bias: true, shape: [h, ...kernel] }],
      vectors: [
        { name: `${p}embeddings.cls_token`, length: h, shape: [1, 1, h] },
        { name: `${p}embeddings.position_embeddings`, length: numTokens * h, shape: [1, numTokens, h] },
      ],
    });
    this.blocks = Array.from({ length: numLayers }, (_, i) => this.#block(`${p}encoder.layer.${i}.`));
    this.hasPooler = table.infos.has(`${p}pooler.dense.weight`);
    this.output = part({
      linears: this.hasPooler ? [{ module: `${p}pooler.dense`, out: pooler.size, in: h, bias: true }] : [],
      vectors: this.#normVectors(`${p}layernorm`),
    });
    const [weight] = config.names.heads;
    const classifies = config.architecture?.endsWith('ForImageClassification') === true || table.infos.has(weight!);
    if (classifies) this.head = { weight: weight!, bias: 'classifier.bias', vocabulary: numLabels, columns: h, softcap: 0 };
  }

  #normVectors(name: string): Part['vectors'] {
    return ['weight', 'bias'].map((end) => ({ name: `${name}.${end}`, length: this.config.hiddenSize }));
  }

  #block(p: string): Part {
    const { hiddenSize: h, intermediateSize: m, qkvBias } = this.config;
    const linear = (name: string, out: number, inner: number, bias = true): LinearSpec => ({ module: p + name, out, in: inner, bias });
    const projections = ['query', 'key', 'value'].map((n) => linear(`attention.attention.${n}`, h, h, qkvBias));
    return part({
      linears: [...projections, linear('attention.output.dense', h, h), linear('intermediate.dense', m, h), linear('output.dense', h, m)],
      vectors: [...this.#normVectors(`${p}layernorm_before`), ...this.#normVectors(`${p}layernorm_after`)],
    });
  }

  /** pixels: (batch, channels, height, width). */
  embed(scope: Scope, pixels: Float32Array, { batch }: Batch): tf.Tensor2D {
    const p = `${this.#prefix}embeddings.`;
    const { hiddenSize: h, numTokens, numChannels: channels, imageSize: size, patchSize: patch } = this.config;
    const patches = unfoldPatches(pixels, { batch, channels, size, patch });
    const rows = batch * (numTokens - 1);
    const y = scope.linear(`${p}patch_embeddings.projection`, tf.tensor2d(patches, [rows, patches.length / rows]));
    const first = tf.tile(tf.reshape(scope.vector(`${p}cls_token`), [1, 1, h]), [batch, 1, 1]);
    const all = tf.concat([first, tf.reshape(y, [batch, numTokens - 1, h])], 1);
    const positions = tf.reshape(scope.vector(`${p}position_embeddings`), [1, numTokens, h]);
    return tf.reshape(tf.add(all, positions), [batch * numTokens, h]);
  }

  block(index: number, scope: Scope, x: tf.Tensor2D, batch: Batch): tf.Tensor2D {
    const p = `${this.#prefix}encoder.layer.${index}.`;
    const { numHeads, headDim, activation: kind } = this.config;
    const h = this.#norm(scope, `${p}layernorm_before`, x);
    const [q, k, v] = ['query', 'key', 'value'].map((n) => scope.linear(`${p}attention.attention.${n}`, h)) as [tf.Tensor2D, tf.Tensor2D, tf.Tensor2D];
    const a = attention(q, k, v, batch.attention(numHeads, headDim ** -0.5, { causal: false }), batch.mask);
    const y = tf.add<tf.Tensor2D>(x, scope.linear(`${p}attention.output.dense`, a));
    const inner = activation(scope.linear(`${p}intermediate.dense`, this.#norm(scope, `${p}layernorm_after`, y)), kind);
    return tf.add(y, scope.linear(`${p}output.dense`, inner));
  }

  finish(scope: Scope, x: tf.Tensor2D): tf.Tensor2D {
    return this.#norm(scope, `${this.#prefix}layernorm`, x);
  }

  /** x: what `finish` gives. Gives (batch, pooler size), from the class token. */
  pooled(scope: Scope, x: tf.Tensor2D, batch: Batch): tf.Tensor2D {
    return activation(scope.linear(`${this.#prefix}pooler.dense`, batch.firstRows(x)), this.config.pooler.activation);
  }

  #norm(scope: Scope, name: string, x: tf.Tensor2D): tf.Tensor2D {
    return layerNorm(x, scope.vector(`${name}.weight`), scope.vector(`${name}.bias`), this.config.norm.eps);
  }
}
