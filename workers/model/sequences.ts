/** Token sequences of any lengths in batches of like length: padded on the right. A causal model does not see that; others need the mask. */

export interface SequenceBatch {
  /** Indices of the sequences. */
  readonly members: readonly number[];
  /** The longest one's tokens. */
  readonly length: number;
}

export class Sequences {
  /** First row of every sequence among all tokens, and their number. */
  readonly starts: readonly number[];
  readonly tokens: number;

  constructor(readonly all: readonly Int32Array[]) {
    let at = 0;
    this.starts = all.map((s) => (at += s.length) - s.length);
    this.tokens = at;
  }

  /** At most `tokens` tokens a batch, padding included, but at least one sequence. Longest first; equal lengths keep their order. */
  batches(tokens: number): SequenceBatch[] {
    const order = this.all.map((_, i) => i).sort((a, b) => this.all[b]!.length - this.all[a]!.length || a - b);
    const out: SequenceBatch[] = [];
    for (let i = 0; i < order.length;) {
      const length = this.all[order[i]!]!.length;
      const count = Math.max(1, Math.floor(tokens / Math.max(1, length)));
      if (length > 0) out.push({ members: order.slice(i, i + count), length });
      i += count;
    }
    return out;
  }

  /** (members * length) ids, padded with 0. */
  ids({ members, length }: SequenceBatch): Int32Array {
    const out = new Int32Array(members.length * length);
    members.forEach((m, i) => out.set(this.all[m]!, i * length));
    return out;
  }

  /** (members * length): 1 for tokens, 0 for padding; nothing where there is no padding. */
  mask({ members, length }: SequenceBatch): Uint8Array | undefined {
    if (members.every((m) => this.all[m]!.length === length)) return undefined;
    const out = new Uint8Array(members.length * length);
    members.forEach((m, i) => out.fill(1, i * length, i * length + this.all[m]!.length));
    return out;
  }

  /** Runs that move rows of a batch from or to the rows of all tokens: [row in the batch, row among all, count]. */
  runs({ members, length }: SequenceBatch): (readonly [inBatch: number, among: number, count: number])[] {
    const out: [number, number, number][] = [];
    members.forEach((m, i) => {
      const count = this.all[m]!.length;
      const last = out.at(-1);
      if (last !== undefined && last[0] + last[2] === i * length && last[1] + last[2] === this.starts[m]) last[2] += count;
      else out.push([i * length, this.starts[m]!, count]);
    });
    return out;
  }
}
