/** A batch of sequences of one length on the device: positions, masks and rotation tables, shared by all blocks. */
import * as tf from '#tf';
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
}

export class Batch {
  readonly batch: number;
  readonly length: number;
  readonly positionIds: Int32Array;
  /** (batch * length) int32 */
  readonly positions: tf.Tensor1D;
  /** (batch, length) bool */
  readonly mask: tf.Tensor2D | undefined;
  readonly #tables = new Map<RopeParameters, RotaryTables>();

  constructor(shape: BatchShape) {
    this.batch = shape.batch;
    this.length = shape.length;
    this.positionIds = shape.positions ?? Int32Array.from({ length: shape.batch * shape.length }, (_, i) => i % shape.length);
    this.positions = tf.keep(tf.tensor1d(this.positionIds, 'int32'));
    this.mask = shape.mask === undefined ? undefined : tf.keep(tf.tensor2d(shape.mask, [shape.batch, shape.length], 'bool'));
  }

  /** Tables of all positions of the batch; layers with equal parameters share them. */
  rotation(rope: RopeParameters): RotaryTables {
    let tables = this.#tables.get(rope);
    if (tables === undefined) {
      const last = this.positionIds.reduce((a, b) => Math.max(a, b), 0);
      const positions = Int32Array.from({ length: last + 1 }, (_, i) => i);
      const { cos, sin } = ropeTables(rope, positions, last + 1);
      const shape: [number, number] = [positions.length, rope.rotaryDim / 2];
      tables = { cos: tf.keep(tf.tensor2d(cos, shape)), sin: tf.keep(tf.tensor2d(sin, shape)) };
      this.#tables.set(rope, tables);
    }
    return tables;
  }

  /** Batches of equal keys can share one object. */
  static key(shape: BatchShape): string {
    return shape.positions === undefined && shape.mask === undefined ? `${shape.batch}x${shape.length}` : '';
  }

  dispose(): void {
    this.positions.dispose();
    this.mask?.dispose();
    for (const { cos, sin } of this.#tables.values()) {
      cos.dispose();
      sin.dispose();
    }
    this.#tables.clear();
  }
}
