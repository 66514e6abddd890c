/** BERT: learned positions and segments, LayerNorm after both sublayers, every token sees all; with a masked-token head or a pooler where stored. */
import * as tf from '#tf';
import { attention } from '../kernels/nn/attention.js';
import { activation } from '../kernels/nn/gated.js';
import { layerNorm } from '../kernels/nn/norm.js';
import type { Batch } from './batch.js';
import type { BertConfig } from './config/types.js';
import { part, type HeadSpec, type LinearSpec, type Part, type Scope, type TokenModel } from './graph.js';
import { embeddingWeight, headWeight, requirePrefix, type TensorTable } from './tensors.js';

const TRANSFORM = 'cls.predictions.transform';
const HEAD_BIASES = ['cls.predictions.bias', 'cls.predictions.decoder.bias'] as const;

export class Bert implements TokenModel {
  readonly bidirectional = true;
  readonly input: Part;
  readonly blocks: readonly Part[];
  readonly output: Part;
  /** Of masked-token prediction. */
  readonly head?: HeadSpec | undefined;
  /** There is a `pooled`. */
  readonly hasPooler: boolean;
  readonly #prefix: string;
  readonly #embedding: string;
  /** Names of a LayerNorm's gain and bias. */
  readonly #norm: readonly [gain: string, bias: string];

  constructor(
    readonly config: BertConfig,
    table: TensorTable,
  ) {
    const p = requirePrefix(config, table);
    this.#prefix = p;
    this.#norm = [...table.infos.keys()].some((name) => /\.LayerNorm\.(gamma|beta)$/.test(name)) ? ['gamma', 'beta'] : ['weight', 'bias'];
    this.#embedding = embeddingWeight(config, `${p}embeddings.word_embeddings.weight`, table);
    const { vocabSize: vocabulary, hiddenSize: h, maxPositions, typeVocabSize, numLayers } = config;
    this.input = part({
      tables: [
        { name: this.#embedding, rows: vocabulary, columns: h },
        { name: `${p}embeddings.position_embeddings.weight`, rows: maxPositions, columns: h },
        { name: `${p}embeddings.token_type_embeddings.weight`, rows: typeVocabSize, columns: h },
      ],
      vectors: this.#normVectors(`${p}embeddings.LayerNorm`),
    });
    this.blocks = Array.from({ length: numLayers }, (_, i) => this.#block(this.#layer(i)));
    this.hasPooler = table.infos.has(`${p}pooler.dense.weight`);
    const predicts = /For(MaskedLM|PreTraining)$/.test(config.architecture ?? '') || table.infos.has(`${TRANSFORM}.dense.weight`);
    this.output = part({
      linears: [...(this.hasPooler ? [square(`${p}pooler.dense`, h)] : []), ...(predicts ? [square(`${TRANSFORM}.dense`, h)] : [])],
      vectors: predicts ? this.#normVectors(`${TRANSFORM}.LayerNorm`) : [],
    });
    if (!predicts) return;
    const bias = HEAD_BIASES.find((name) => table.infos.has(name)) ?? HEAD_BIASES[0];
    this.head = { weight: headWeight(config, this.#embedding, table), bias, vocabulary, columns: h, softcap: 0 };
  }

  #layer(index: number): string {
    return `${this.#prefix}encoder.layer.${index}.`;
  }

  #normVectors(name: string): Part['vectors'] {
    return this.#norm.map((end) => ({ name: `${name}.${end}`, length: this.config.hiddenSize }));
  }

  #block(p: string): Part {
    const { hiddenSize: h, intermediateSize: m } = this.config;
    return part({
      linears: [
        ...['self.query', 'self.key', 'self.value', 'output.dense'].map((n) => square(`${p}attention.${n}`, h)),
        { module: `${p}intermediate.dense`, out: m, in: h, bias: true },
        { module: `${p}output.dense`, out: h, in: m, bias: true },
      ],
      vectors: [...this.#normVectors(`${p}attention.output.LayerNorm`), ...this.#normVectors(`${p}output.LayerNorm`)],
    });
  }

  embed(scope: Scope, ids: Int32Array, batch: Batch): tf.Tensor2D {
    const p = `${this.#prefix}embeddings.`;
    const positions = scope.rows(`${p}position_embeddings.weight`, batch.positionIds);
    const types = scope.rows(`${p}token_type_embeddings.weight`, batch.typeIds);
    return this.#normed(scope, `${p}LayerNorm`, tf.add(tf.add(scope.rows(this.#embedding, ids), positions), types));
  }

  block(index: number, scope: Scope, x: tf.Tensor2D, batch: Batch): tf.Tensor2D {
    const p = this.#layer(index);
    const { numHeads, headDim, activation: kind } = this.config;
    const [q, k, v] = ['query', 'key', 'value'].map((n) => scope.linear(`${p}attention.self.${n}`, x)) as [tf.Tensor2D, tf.Tensor2D, tf.Tensor2D];
    const a = attention(q, k, v, batch.attention(numHeads, headDim ** -0.5, { causal: false }), batch.mask);
    const y = this.#normed(scope, `${p}attention.output.LayerNorm`, tf.add(x, scope.linear(`${p}attention.output.dense`, a)));
    const inner = activation(scope.linear(`${p}intermediate.dense`, y), kind);
    return this.#normed(scope, `${p}output.LayerNorm`, tf.add(y, scope.linear(`${p}output.dense`, inner)));
  }

  /** Without a head: x itself. */
  finish(scope: Scope, x: tf.Tensor2D): tf.Tensor2D {
    if (this.head === undefined) return x;
    return this.#normed(scope, `${TRANSFORM}.LayerNorm`, activation(scope.linear(`${TRANSFORM}.dense`, x), this.config.activation));
  }

  /** x: the last block's output. Gives (batch, hidden): tanh of a layer over the first token. */
  pooled(scope: Scope, x: tf.Tensor2D, batch: Batch): tf.Tensor2D {
    return activation(scope.linear(`${this.#prefix}pooler.dense`, batch.firstRows(x)), 'tanh');
  }

  #normed(scope: Scope, name: string, x: tf.Tensor2D): tf.Tensor2D {
    const [gain, bias] = this.#norm;
    return layerNorm(x, scope.vector(`${name}.${gain}`), scope.vector(`${name}.${bias}`), this.config.norm.eps);
  }
}

const square = (module: string, h: number): LinearSpec => ({ module, out: h, in: h, bias: true });
