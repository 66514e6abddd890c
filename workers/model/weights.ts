/** The weights of a part of a graph, read from any checkpoint: matrices frozen in their storage type, vectors on the device. */
import * as tf from '#tf';
import { PithError } from '../../core/errors.js';
import { decodeF32 } from '../../core/float.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import { frozenLinear } from '../../kernels/nn/frozen-linear.js';
import { frozenMatrix, type FrozenMatrix } from '../../kernels/nn/frozen-matrix.js';
import type { LinearSpec, Part, Scope } from '../../models/graph.js';
import { gatherRows, type RowTable } from './row-table.js';

export interface FrozenLayer {
  readonly spec: LinearSpec;
  readonly matrix: FrozenMatrix;
  readonly bias: tf.Tensor1D | undefined;
}

export async function readMatrix(reader: CheckpointReader, name: string, rows: number, columns: number): Promise<FrozenMatrix> {
  const { dtype, bytes } = await reader.read(name);
  return frozenMatrix(dtype, rows, columns, bytes);
}

export async function readVector(reader: CheckpointReader, name: string): Promise<Float32Array> {
  const { dtype, bytes } = await reader.read(name);
  return decodeF32(dtype, bytes);
}

/** Plain frozen weights. Dispose it: its vectors lie on the device. */
export class PartWeights implements Scope, Disposable {
  readonly #layers = new Map<string, FrozenLayer>();
  readonly #vectors = new Map<string, tf.Tensor1D>();
  readonly #tables = new Map<string, RowTable>();

  private constructor(private readonly source: string) {}

  /** `ids`: which rows of each table will be asked for; others are not read. */
  static async load(reader: CheckpointReader, part: Part, ids: ReadonlyMap<string, Int32Array> = new Map()): Promise<PartWeights> {
    const weights = new PartWeights(reader.source);
    try {
      for (const spec of part.linears) await weights.#linear(reader, spec);
      for (const { name } of part.vectors) weights.#vectors.set(name, tf.keep(tf.tensor1d(await readVector(reader, name))));
      for (const table of part.tables) weights.#tables.set(table.name, await gatherRows(reader, table, ids.get(table.name) ?? new Int32Array(0)));
      return weights;
    } catch (error) {
      weights[Symbol.dispose]();
      throw error;
    }
  }

  async #linear(reader: CheckpointReader, spec: LinearSpec): Promise<void> {
    const [rows, columns] = spec.transposed === true ? [spec.in, spec.out] : [spec.out, spec.in];
    const matrix = await readMatrix(reader, `${spec.module}.weight`, rows, columns);
    const bias = spec.bias ? tf.keep(tf.tensor1d(await readVector(reader, `${spec.module}.bias`))) : undefined;
    this.#layers.set(spec.module, { spec, matrix, bias });
  }

  /** Bytes outside the device. */
  get bytes(): number {
    return [...this.#layers.values()].reduce((sum, l) => sum + l.matrix.bytes, 0);
  }

  layer(module: string): FrozenLayer {
    const layer = this.#layers.get(module);
    if (layer === undefined) throw new PithError('INTERNAL', { message: `${this.source}: layer "${module}" is not loaded` });
    return layer;
  }

  linear(module: string, x: tf.Tensor2D): tf.Tensor2D {
    const { spec, matrix, bias } = this.layer(module);
    return frozenLinear(x, matrix, bias, spec.transposed === true);
  }

  vector(name: string): tf.Tensor1D {
    const v = this.#vectors.get(name);
    if (v === undefined) throw new PithError('INTERNAL', { message: `${this.source}: vector "${name}" is not loaded` });
    return v;
  }

  rows(name: string, ids: Int32Array): tf.Tensor2D {
    const table = this.#tables.get(name);
    if (table === undefined) throw new PithError('INTERNAL', { message: `${this.source}: table "${name}" is not loaded` });
    return tf.tensor2d(table.pick(ids), [ids.length, table.columns]);
  }

  [Symbol.dispose](): void {
    for (const { bias } of this.#layers.values()) bias?.dispose();
    for (const v of this.#vectors.values()) v.dispose();
  }
}
