/** A batch of sequences of one length on the device: positions, masks and rotation tables, shared by all blocks. */
import * as tf from '#tf';
import { PithError } from '../core/errors.js';
import type { AttentionShape } from '../kernels/nn/attention.js';
import { ropeTables, type RopeParameters } from '../kernels/nn/rope.js';
import type { RotaryTables } from '../kernels/nn/rotary.js';

export interface BatchShape {
  readonly batch: number;
  /** Tokens of every sequence, padding included. */
  readonly length: number;
  /** (batch * length) positions; absent: 0, 1, 2, ... in every sequence. */
  readonly positions?: Int32Array;
  /** (batch * length): 0 hides a token from the others. Causal models padded on the right need none. */
  readonly mask?: Uint8Array;
  /** (batch * length) segment of every token; absent: all 0. */
  readonly types?: Int32Array;
  /** (batch * length) which of the texts that share a sequence a token belongs to, -1 for padding: texts do not see each other. */
  readonly texts?: Int32Array;
  /** What a decoder's cross-attention looks at; the caller's own. */
  readonly context?: EncoderStates;
  /** What earlier batches left: these tokens follow theirs. */
  readonly memory?: KeyMemory;
}

/** Outputs of an encoder for every sequence of a batch. */
export interface EncoderStates {
  /** (batch * length, hidden) */
  readonly states: tf.Tensor2D;
  readonly length: number;
}

/** Keys and values of one sequence's tokens so far, by layer, and the rotation tables of all positions it will have. */
export class KeyMemory {
  readonly #kept: { keys: tf.Tensor2D; values: tf.Tensor2D }[] = [];
  readonly tables = new Map<RopeParameters, RotaryTables>();

  /** `positions`: how many there will be at most. */
  constructor(readonly positions: number) {}

  /** Tokens that layer has seen. */
  length(layer: number): number {
    return this.#kept[layer]?.keys.shape[0] ?? 0;
  }

  /** Adds a layer's new keys and values; gives all of them. */
  add(layer: number, keys: tf.Tensor2D, values: tf.Tensor2D): { keys: tf.Tensor2D; values: tf.Tensor2D } {
    const before = this.#kept[layer];
    const join = (a: tf.Tensor2D | undefined, b: tf.Tensor2D): tf.Tensor2D => tf.keep(a === undefined ? tf.clone(b) : tf.concat([a, b], 0));
    const all = { keys: join(before?.keys, keys), values: join(before?.values, values) };
    before?.keys.dispose();
    before?.values.dispose();
    this.#kept[layer] = all;
    return all;
  }

  dispose(): void {
    for (const { keys, values } of this.#kept) {
      keys.dispose();
      values.dispose();
    }
    disposeTables(this.tables);
  }
}

/** What queries of a layer attend to: keys and values, how many a sequence has, and the place of the first query among them. */
export interface Seen {
  readonly k: tf.Tensor2D;
  readonly v: tf.Tensor2D;
  readonly keys: number;
  readonly offset: number;
}

function disposeTables(tables: Map<RopeParameters, RotaryTables>): void {
  for (const { cos, sin } of tables.values()) {
    cos.dispose();
    sin.dispose();
  }
  tables.clear();
}

export class Batch {
  readonly batch: number;
  readonly length: number;
  readonly positionIds: Int32Array;
  /** (batch * length) int32 */
  readonly positions: tf.Tensor1D;
  /** (batch, length) bool */
  readonly mask: tf.Tensor2D | undefined;
  readonly typeIds: Int32Array;
  readonly #texts: Int32Array | undefined;
  readonly #context: EncoderStates | undefined;
  readonly #memory: KeyMemory | undefined;
  readonly #tables: Map<RopeParameters, RotaryTables>;

  constructor(shape: BatchShape) {
    this.#memory = shape.memory;
    this.#tables = shape.memory?.tables ?? new Map<RopeParameters, RotaryTables>();
    this.batch = shape.batch;
    this.length = shape.length;
    this.positionIds = shape.positions ?? Int32Array.from({ length: shape.batch * shape.length }, (_, i) => i % shape.length);
    this.positions = tf.keep(tf.tensor1d(this.positionIds, 'int32'));
    this.typeIds = shape.types ?? new Int32Array(shape.batch * shape.length);
    this.#texts = shape.texts;
    this.#context = shape.context;
    this.mask = shape.mask === undefined ? undefined : tf.keep(tf.tensor2d(shape.mask, [shape.batch, shape.length], 'bool'));
  }

  /** Tables of all positions of the batch; layers with equal parameters share them. */
  rotation(rope: RopeParameters): RotaryTables {
    let tables = this.#tables.get(rope);
    if (tables === undefined) {
      const last = this.#memory === undefined ? this.positionIds.reduce((a, b) => Math.max(a, b), 0) : this.#memory.positions - 1;
      const positions = Int32Array.from({ length: last + 1 }, (_, i) => i);
      const { cos, sin } = ropeTables(rope, positions, last + 1);
      const shape: [number, number] = [positions.length, rope.rotaryDim / 2];
      tables = { cos: tf.keep(tf.tensor2d(cos, shape)), sin: tf.keep(tf.tensor2d(sin, shape)) };
      this.#tables.set(rope, tables);
    }
    return tables;
  }

  /** Attention of the sequences' tokens to each other: a head a key head, as `change` says otherwise. */
  attention(heads: number, scale: number, change: Partial<AttentionShape> = {}): AttentionShape {
    const { batch, length } = this;
    const segments = this.#texts;
    return { batch, queries: length, keys: length, heads, kvHeads: heads, scale, causal: true, window: 0, softcap: 0, offset: 0, segments, ...change };
  }

  /** What cross-attention looks at. */
  get context(): EncoderStates {
    if (this.#context === undefined) throw new PithError('INTERNAL', { message: 'a batch for a decoder with cross-attention has no encoder states' });
    return this.#context;
  }

  /** x: (batch * length, n). Gives the first token's row of every sequence, (batch, n). */
  firstRows(x: tf.Tensor2D): tf.Tensor2D {
    const n = x.shape[1];
    return tf.reshape(tf.slice(tf.reshape(x, [this.batch, this.length, n]), [0, 0, 0], [this.batch, 1, n]), [this.batch, n]);
  }

  /** k, v: (batch * length, ...) of a layer's own tokens, rotated. */
  seen(layer: number, k: tf.Tensor2D, v: tf.Tensor2D): Seen {
    if (this.#memory === undefined) return { k, v, keys: this.length, offset: 0 };
    const offset = this.#memory.length(layer);
    const { keys, values } = this.#memory.add(layer, k, v);
    return { k: keys, v: values, keys: offset + this.length, offset };
  }

  /** Batches of equal keys can share one object. */
  static key(shape: BatchShape): string {
    return shape.positions === undefined && shape.mask === undefined && shape.memory === undefined && shape.texts === undefined
      ? `${shape.batch}x${shape.length}`
      : '';
  }

  dispose(): void {
    this.positions.dispose();
    this.mask?.dispose();
    if (this.#memory === undefined) disposeTables(this.#tables);
  }
}
