/** Gradients of a block's weights, one for each sequence: summed by rows, and kept in a file when they are needed again. */
import { unlinkSync } from 'node:fs';
import type { Tensor2D } from '#tf';
import { PithError } from '../../core/errors.js';
import * as io from '../../formats/io.js';
import type { Gradients } from '../../kernels/linalg/kronecker-pair.js';
import { watchGradient, weightGradients, type RowRange } from '../../kernels/nn/weight-gradient.js';
import type { Scope } from '../../models/graph.js';
import type { LinearShape } from '../messages/passes.js';
import type { SequenceBatch, Sequences } from './sequences.js';

export interface WatchOptions {
  /** What errors name. */
  readonly source: string;
  readonly sequences: Sequences;
  readonly modules: readonly LinearShape[];
  /** Gradients are kept in files whose names begin so, without names from the start. */
  readonly spool?: string;
}

export class GradientWatch implements Disposable {
  readonly modules: ReadonlyMap<string, WatchedModule>;
  #batch: SequenceBatch | undefined;
  readonly #pending: Promise<void>[] = [];

  constructor(private readonly o: WatchOptions) {
    const file = (i: number): string | undefined => (o.spool === undefined ? undefined : `${o.spool}.${i}`);
    this.modules = new Map(o.modules.map((m, i) => [m.module, new WatchedModule(m, o.sequences.all.length, file(i))]));
  }

  wrap(scope: Scope): Scope {
    return {
      linear: (module, x) => {
        const watched = this.modules.get(module);
        const y = scope.linear(module, x);
        return watched === undefined ? y : watchGradient(y, x, (dy, input) => this.#see(watched, dy, input));
      },
      vector: (name) => scope.vector(name),
      rows: (table, ids) => scope.rows(table, ids),
    };
  }

  #see(watched: WatchedModule, dy: Tensor2D, x: Tensor2D): void {
    const { members, length } = this.#batch!;
    const ranges = members.map((m, i): RowRange => [i * length, i * length + this.o.sequences.all[m]!.length]);
    const use = (i: number, g: Float32Array): void => {
      const sequence = members[i]!;
      if (!watched.add(sequence, g)) throw new PithError('GRADIENT_NOT_FINITE', { file: this.o.source, module: watched.shape.module, sequence });
    };
    this.#pending.push(weightGradients(dy, x, ranges, use));
  }

  begin(batch: SequenceBatch): void {
    this.#batch = batch;
  }

  /** After a batch. GRADIENT_NOT_FINITE (65), also out of the backward pass itself. */
  async settle(): Promise<void> {
    await Promise.all(this.#pending.splice(0));
  }

  [Symbol.dispose](): void {
    for (const m of this.modules.values()) m[Symbol.dispose]();
  }
}

export class WatchedModule implements Gradients, Disposable {
  /** sum_t sum_j G_t[i, j]^2 */
  readonly rows: Float64Array;
  readonly #file: { readonly fd: number; readonly path: string } | undefined;
  readonly #buffer: Float32Array<ArrayBuffer>;

  constructor(
    readonly shape: LinearShape,
    readonly count: number,
    file: string | undefined,
  ) {
    this.rows = new Float64Array(shape.out);
    this.#buffer = new Float32Array(file === undefined ? 0 : shape.out * shape.in);
    if (file === undefined) return;
    this.#file = { fd: io.openWrite(file, 'w+'), path: file };
    // nothing is left behind, whatever happens
    unlinkSync(file);
  }

  get m(): number {
    return this.shape.out;
  }

  get n(): number {
    return this.shape.in;
  }

  /** false when a value is not finite. */
  add(sequence: number, g: Float32Array): boolean {
    const { n, rows } = this;
    let total = 0;
    for (let i = 0, at = 0; i < rows.length; i++) {
      let sum = 0;
      for (let j = 0; j < n; j++, at++) sum += g[at]! * g[at]!;
      rows[i] = rows[i]! + sum;
      total += sum;
    }
    if (this.#file !== undefined) io.writeFully(this.#file.fd, new Uint8Array(g.buffer, g.byteOffset, g.byteLength), this.#place(sequence), this.#file.path);
    return Number.isFinite(total);
  }

  #place(sequence: number): number {
    return sequence * this.rows.length * this.n * 4;
  }

  read(t: number): Float32Array {
    io.readFully(this.#file!.fd, new Uint8Array(this.#buffer.buffer), this.#place(t), this.#file!.path);
    return this.#buffer;
  }

  [Symbol.dispose](): void {
    if (this.#file !== undefined) io.close(this.#file.fd);
  }
}
