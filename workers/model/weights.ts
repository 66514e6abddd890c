/** The weights of a part of a graph, read from any checkpoint: matrices frozen in their storage type, vectors on the device. */
import * as tf from '#tf';
import { PithError } from '../../core/errors.js';
import { decodeF32 } from '../../core/float.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import { frozenLinear } from '../../kernels/nn/frozen-linear.js';
import { f32Matrix, frozenMatrix, type FrozenMatrix } from '../../kernels/nn/frozen-matrix.js';
import type { LinearSpec, Part, Scope } from '../../models/graph.js';
import { gatherRows, type RowTable } from './row-table.js';

export interface FrozenLayer {
  readonly spec: LinearSpec;
  readonly matrix: FrozenMatrix;
  readonly bias: tf.Tensor1D | undefined;
}

/** `range`: only these rows, `rows` of them. */
export async function readMatrix(
  reader: CheckpointReader,
  name: string,
  rows: number,
  columns: number,
  range?: readonly [start: number, end: number],
): Promise<FrozenMatrix> {
  const { dtype, bytes } = await reader.read(name, range);
  return frozenMatrix(dtype, rows, columns, bytes);
}

/** The same decoded to f32: what is multiplied many times by few rows is worth the memory. */
export async function readDecoded(reader: CheckpointReader, name: string, rows: number, columns: number): Promise<FrozenMatrix> {
  const { dtype, bytes } = await reader.read(name);
  return f32Matrix(rows, columns, decodeF32(dtype, bytes));
}

export async function readVector(reader: CheckpointReader, name: string): Promise<Float32Array> {
  const { dtype, bytes } = await reader.read(name);
  return decodeF32(dtype, bytes);
}

/** Rows of a table from the first on: positions. */
export const upTo = (n: number): Int32Array => Int32Array.from({ length: n }, (_, i) => i);

/** Plain frozen weights. Dispose it: its vectors lie on the device. */
export class PartWeights implements Scope, Disposable {
  readonly #layers = new Map<string, FrozenLayer>();
  readonly #vectors = new Map<string, tf.Tensor1D>();
  readonly #tables = new Map<string, RowTable>();

  private constructor(
    private readonly source: string,
    private readonly read: typeof readMatrix,
  ) {}

  /** `ids`: which rows of each table will be asked for; others are not read. `read`: how matrices are kept, in their storage type by default. */
  static async load(reader: CheckpointReader, part: Part, ids: ReadonlyMap<string, Int32Array> = new Map(), read = readMatrix): Promise<PartWeights> {
    const weights = new PartWeights(reader.source, read);
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
    const matrix = await this.read(reader, `${spec.module}.weight`, rows, columns);
    const bias = spec.bias ? tf.keep(tf.tensor1d(await readVector(reader, `${spec.module}.bias`))) : undefined;
    this.#layers.set(spec.module, { spec, matrix, bias });
  }

  /** Bytes outside the device. */
  get bytes(): number {
    return [...this.#layers.values()].reduce((sum, l) => sum + l.matrix.bytes, 0);
  }

  has(module: string): boolean {
    return this.#layers.has(module);
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
