/** Whisper: an encoder of log-mel spectra, and a decoder of text that looks at its states; LayerNorm before all sublayers, keys without bias. */
import * as tf from '#tf';
import { attention } from '../kernels/nn/attention.js';
import { activation } from '../kernels/nn/gated.js';
import { layerNorm } from '../kernels/nn/norm.js';
import { unfoldFrames } from '../kernels/nn/unfold.js';
import type { Batch, EncoderStates } from './batch.js';
import type { WhisperConfig, WhisperSide } from './config/types.js';
import { part, type HeadSpec, type LinearSpec, type Part, type Scope, type SignalModel, type TokenModel } from './graph.js';
import { embeddingWeight, headWeight, requirePrefix, type TensorTable } from './tensors.js';

/** The config of one side: its own sizes in place of the whole's. */
type SideConfig = WhisperConfig & WhisperSide;

/** What both sides' layers have. */
class Layers {
  constructor(
    readonly config: SideConfig,
    readonly prefix: string,
  ) {}

  layer(index: number): string {
    return `${this.prefix}layers.${index}.`;
  }

  /** `attentions`: their names, each with a norm of its own. */
  blocks(attentions: readonly string[]): Part[] {
    const { hiddenSize: d, intermediateSize: m, numLayers } = this.config;
    return Array.from({ length: numLayers }, (_, i) => {
      const linear = (name: string, out: number, inner: number): LinearSpec => ({
        module: this.layer(i) + name,
        out,
        in: inner,
        bias: !name.endsWith('k_proj'),
      });
      const projections = attentions.flatMap((a) => ['q_proj', 'k_proj', 'v_proj', 'out_proj'].map((n) => linear(`${a}.${n}`, d, d)));
      const norms = [...attentions.map((a) => `${a}_layer_norm`), 'final_layer_norm'];
      return part({
        linears: [...projections, linear('fc1', m, d), linear('fc2', d, m)],
        vectors: norms.flatMap((n) => this.normVectors(this.layer(i) + n)),
      });
    });
  }

  normVectors(name: string): Part['vectors'] {
    return ['weight', 'bias'].map((end) => ({ name: `${name}.${end}`, length: this.config.hiddenSize }));
  }

  norm(scope: Scope, name: string, x: tf.Tensor2D): tf.Tensor2D {
    return layerNorm(x, scope.vector(`${name}.weight`), scope.vector(`${name}.bias`), this.config.norm.eps);
  }

  /** x + attention(norm x); keys and values of `context`, or of the sequence itself. */
  attend(scope: Scope, module: string, x: tf.Tensor2D, batch: Batch, causal: boolean, context?: EncoderStates): tf.Tensor2D {
    const { numHeads, headDim } = this.config;
    const h = this.norm(scope, `${module}_layer_norm`, x);
    const seen = context?.states ?? h;
    const [k, v] = ['k_proj', 'v_proj'].map((n) => scope.linear(`${module}.${n}`, seen)) as [tf.Tensor2D, tf.Tensor2D];
    const shape = batch.attention(numHeads, headDim ** -0.5, { causal, keys: context?.length ?? batch.length });
    // the mask is of the sequence's own tokens
    const a = attention(scope.linear(`${module}.q_proj`, h), k, v, shape, context === undefined ? batch.mask : undefined);
    return tf.add(x, scope.linear(`${module}.out_proj`, a));
  }

  feedForward(scope: Scope, p: string, x: tf.Tensor2D): tf.Tensor2D {
    const inner = activation(scope.linear(`${p}fc1`, this.norm(scope, `${p}final_layer_norm`, x)), this.config.activation);
    return tf.add(x, scope.linear(`${p}fc2`, inner));
  }
}

/** A batch for it has `config.maxPositions` tokens a sequence. */
export class WhisperEncoder implements SignalModel {
  readonly config: SideConfig;
  readonly input: Part;
  readonly blocks: readonly Part[];
  readonly output: Part;
  readonly #layers: Layers;

  constructor(config: WhisperConfig, prefix: string) {
    const p = `${prefix}encoder.`;
    this.config = { ...config, ...config.encoder };
    this.#layers = new Layers(this.config, p);
    const { hiddenSize: d, numMelBins, maxPositions } = this.config;
    const convolution = (name: string, channels: number): LinearSpec => ({ module: p + name, out: d, in: 3 * channels, bias: true, shape: [d, channels, 3] });
    this.input = part({
      linears: [convolution('conv1', numMelBins), convolution('conv2', d)],
      vectors: [{ name: `${p}embed_positions.weight`, length: maxPositions * d, shape: [maxPositions, d] }],
    });
    this.blocks = this.#layers.blocks(['self_attn']);
    this.output = part({ vectors: this.#layers.normVectors(`${p}layer_norm`) });
  }

  /** features: (batch, mel bins, 2 * positions), log-mel. */
  embed(scope: Scope, features: Float32Array, { batch }: Batch): tf.Tensor2D {
    const { hiddenSize: d, numMelBins, maxPositions } = this.config;
    const { prefix } = this.#layers;
    const frames = 2 * maxPositions;
    const spectra = tf.reshape(tf.transpose(tf.tensor3d(features, [batch, numMelBins, frames]), [0, 2, 1]), [batch * frames, numMelBins]);
    // always the exact GELU here, whatever the layers have
    const first = activation(scope.linear(`${prefix}conv1`, unfoldFrames(spectra as tf.Tensor2D, batch, 1)), 'gelu');
    const second = activation(scope.linear(`${prefix}conv2`, unfoldFrames(first, batch, 2)), 'gelu');
    const positions = tf.reshape(scope.vector(`${prefix}embed_positions.weight`), [1, maxPositions, d]);
    return tf.reshape(tf.add(tf.reshape(second, [batch, maxPositions, d]), positions), [batch * maxPositions, d]);
  }

  block(index: number, scope: Scope, x: tf.Tensor2D, batch: Batch): tf.Tensor2D {
    const p = this.#layers.layer(index);
    return this.#layers.feedForward(scope, p, this.#layers.attend(scope, `${p}self_attn`, x, batch, false));
  }

  finish(scope: Scope, x: tf.Tensor2D): tf.Tensor2D {
    return this.#layers.norm(scope, `${this.#layers.prefix}layer_norm`, x);
  }
}

/** Batches for it have a `context`: the encoder's states. */
export class WhisperDecoder implements TokenModel {
  readonly config: SideConfig;
  readonly input: Part;
  readonly blocks: readonly Part[];
  readonly output: Part;
  readonly head: HeadSpec;
  readonly #layers: Layers;
  readonly #embedding: string;

  constructor(config: WhisperConfig, prefix: string, table: TensorTable) {
    const p = `${prefix}decoder.`;
    this.config = { ...config, ...config.decoder };
    this.#layers = new Layers(this.config, p);
    this.#embedding = embeddingWeight(config, `${p}embed_tokens.weight`, table);
    const { vocabSize: vocabulary, hiddenSize: columns, maxPositions } = this.config;
    this.input = part({
      tables: [
        { name: this.#embedding, rows: vocabulary, columns },
        { name: `${p}embed_positions.weight`, rows: maxPositions, columns },
      ],
    });
    this.blocks = this.#layers.blocks(['self_attn', 'encoder_attn']);
    this.output = part({ vectors: this.#layers.normVectors(`${p}layer_norm`) });
    this.head = { weight: headWeight(config, this.#embedding, table), vocabulary, columns, softcap: 0 };
  }

  embed(scope: Scope, ids: Int32Array, batch: Batch): tf.Tensor2D {
    return tf.add(scope.rows(this.#embedding, ids), scope.rows(`${this.#layers.prefix}embed_positions.weight`, batch.positionIds));
  }

  block(index: number, scope: Scope, x: tf.Tensor2D, batch: Batch): tf.Tensor2D {
    const p = this.#layers.layer(index);
    const own = this.#layers.attend(scope, `${p}self_attn`, x, batch, true);
    return this.#layers.feedForward(scope, p, this.#layers.attend(scope, `${p}encoder_attn`, own, batch, false, batch.context));
  }

  finish(scope: Scope, x: tf.Tensor2D): tf.Tensor2D {
    return this.#layers.norm(scope, `${this.#layers.prefix}layer_norm`, x);
  }
}

export class Whisper {
  readonly encoder: WhisperEncoder;
  readonly decoder: WhisperDecoder;

  constructor(config: WhisperConfig, table: TensorTable) {
    const prefix = requirePrefix(config, table);
    this.encoder = new WhisperEncoder(config, prefix);
    this.decoder = new WhisperDecoder(config, prefix, table);
  }
}
