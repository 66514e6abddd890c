/** Watches the inputs of a block's linear layers while sequences go through it. */
import * as tf from '#tf';
import { PithError } from '../../core/errors.js';
import { addRows, InputSums, type AddedRows } from '../../kernels/nn/input-sums.js';
import type { Scope } from '../../models/graph.js';
import type { InputGroup } from '../messages/passes.js';
import type { SequenceBatch, Sequences } from './sequences.js';

/** Thrown out of a block when everything that was asked for has been seen: its output is not wanted. */
export class SeenEnough extends Error {}

export interface TapOptions {
  /** What errors name. */
  readonly source: string;
  readonly sequences: Sequences;
  readonly groups: readonly InputGroup[];
  readonly gram: boolean;
  /** The block ends at the last of the groups: it has no output then. */
  readonly stop: boolean;
}

export class InputTap {
  readonly sums: ReadonlyMap<string, InputSums>;
  /** Tokens that were added. */
  tokens = 0;
  readonly #added: { readonly module: string; readonly rows: AddedRows }[] = [];
  #batch: { readonly batch: SequenceBatch; readonly keep: tf.Tensor2D | undefined } | undefined;

  constructor(private readonly o: TapOptions) {
    this.sums = new Map(o.groups.map((g) => [g.modules[0]!, new InputSums(g.in, { gram: o.gram })]));
  }

  /** The block's weights, watched. */
  wrap(scope: Scope): Scope {
    return {
      linear: (module, x) => {
        this.#see(module, x);
        return scope.linear(module, x);
      },
      vector: (name) => scope.vector(name),
      rows: (table, ids) => scope.rows(table, ids),
    };
  }

  #see(module: string, x: tf.Tensor2D): void {
    const sums = this.sums.get(module);
    if (sums === undefined) return;
    const { keep } = this.#batch!;
    // the graph's own tidy takes the product
    this.#added.push({ module, rows: addRows(keep === undefined ? x : tf.mul(x, keep), sums) });
    if (this.o.stop && this.#added.length === this.sums.size) throw new SeenEnough();
  }

  /** Before a batch. */
  begin(batch: SequenceBatch): void {
    this.#batch = { batch, keep: this.#padding(batch) };
  }

  // (T, 1): 0 in the rows that only fill up shorter sequences; absent when there are none
  #padding({ members, length }: SequenceBatch): tf.Tensor2D | undefined {
    const { all } = this.o.sequences;
    if (members.every((m) => all[m]!.length === length)) return undefined;
    const keep = members.flatMap((m) => Array.from({ length }, (_, i) => (i < all[m]!.length ? 1 : 0)));
    return tf.keep(tf.tensor2d(keep, [keep.length, 1]));
  }

  /** After a batch. INPUT_NOT_FINITE (65) names the module and the sequence. */
  async settle(): Promise<void> {
    const { batch, keep } = this.#batch!;
    keep?.dispose();
    this.#batch = undefined;
    for (const { module, rows } of this.#added.splice(0)) {
      const row = await rows.settle();
      if (row < 0) continue;
      const sequence = batch.members[Math.floor(row / batch.length)]!;
      throw new PithError('INPUT_NOT_FINITE', { file: this.o.source, module, sequence, token: row % batch.length });
    }
    this.tokens += batch.members.reduce((sum, m) => sum + this.o.sequences.all[m]!.length, 0);
  }
}
