/** The weights of a model that is trained: frozen ones in their storage type outside the heap, adapters on the linear layers that have one. */
import * as tf from '#tf';
import type { Rng } from '../../core/rng.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import { rowsOf, type FrozenMatrix } from '../../kernels/nn/frozen-matrix.js';
import { adapterForward } from '../../methods/adapter-forward.js';
import type { ParamTree, Pass, WeightAdapter } from '../../methods/adapter-kind.js';
import type { Part, Scope } from '../../models/graph.js';
import { PartWeights, readMatrix } from '../model/weights.js';
import type { TrainedLayer } from './trainables.js';

/** Rows of whole frozen tables by number. */
export class Tables implements Scope {
  private constructor(
    private readonly matrices: ReadonlyMap<string, FrozenMatrix>,
    private readonly part: PartWeights,
  ) {}

  /** `known`: a table that is in memory already, as a tied output layer is. */
  static async load(reader: CheckpointReader, part: Part, known: ReadonlyMap<string, FrozenMatrix>): Promise<Tables> {
    const matrices = new Map<string, FrozenMatrix>();
    for (const { name, rows, columns } of part.tables) matrices.set(name, known.get(name) ?? (await readMatrix(reader, name, rows, columns)));
    return new Tables(matrices, await PartWeights.load(reader, { ...part, tables: [] }));
  }

  linear(module: string, x: tf.Tensor2D): tf.Tensor2D {
    return this.part.linear(module, x);
  }

  vector(name: string): tf.Tensor1D {
    return this.part.vector(name);
  }

  rows(table: string, ids: Int32Array): tf.Tensor2D {
    const m = this.matrices.get(table)!;
    const out = new Float32Array(ids.length * m.columns);
    ids.forEach((id, i) => out.set(rowsOf(m, id, id + 1), i * m.columns));
    return tf.tensor2d(out, [ids.length, m.columns]);
  }

  dispose(): void {
    this.part[Symbol.dispose]();
  }
}

/** The linear layers of a block with the tensors of their adapters, which the caller lends as tensors of the device. */
export function adaptedScope(
  weights: PartWeights,
  adapter: WeightAdapter,
  layers: ReadonlyMap<string, TrainedLayer>,
  params: (module: string) => ParamTree,
  pass: (module: string) => Pass,
): Scope {
  return {
    linear(module, x) {
      const trained = layers.get(module);
      if (trained === undefined) return weights.linear(module, x);
      const { matrix, bias } = weights.layer(module);
      return adapterForward(adapter, x, { matrix, bias, transposed: trained.transposed }, params(module), trained.layer, pass(module));
    },
    vector: (name) => weights.vector(name),
    rows: (table, ids) => weights.rows(table, ids),
  };
}

/** Dropout that gives the same zeros again when the same pass is computed again. */
export function seededPass(seed: Rng, label: string): Pass {
  return {
    dropout(x, rate) {
      if (rate === 0) return x;
      const rng = seed.fork(label);
      const [rows, columns] = x.shape;
      // 16 random bits decide on a value
      const least = Math.round(rate * 65536);
      const mask = new Float32Array(rows * columns);
      for (let i = 0; i < mask.length; i += 2) {
        const bits = rng.uint32();
        mask[i] = (bits & 0xffff) < least ? 0 : 1 / (1 - rate);
        if (i + 1 < mask.length) mask[i + 1] = bits >>> 16 < least ? 0 : 1 / (1 - rate);
      }
      return tf.mul(x, tf.tensor2d(mask, [rows, columns]));
    },
  };
}
