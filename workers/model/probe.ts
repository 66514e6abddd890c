/** Which linear layers of a block are fed the same tensor: its graph is run once on one token, without weights. */
import * as tf from '#tf';
import { PithError } from '../../core/errors.js';
import { Batch } from '../../models/batch.js';
import type { BlockModel, LinearSpec, Part, Scope } from '../../models/graph.js';
import type { InputGroup } from '../messages/passes.js';

/** Of every block, in the order in which their inputs are made. */
export function inputGroups(model: BlockModel): InputGroup[][] {
  // for cross-attention
  const states = tf.zeros<tf.Rank.R2>([1, model.config.hiddenSize]);
  const batch = new Batch({ batch: 1, length: 1, context: { states, length: 1 } });
  try {
    return model.blocks.map((part, index) => {
      const probe = new Probe(part);
      tf.tidy(() => void model.block(index, probe, tf.zeros([1, model.config.hiddenSize]), batch));
      return probe.groups();
    });
  } finally {
    batch.dispose();
    states.dispose();
  }
}

class Probe implements Scope {
  readonly #linears: ReadonlyMap<string, LinearSpec>;
  readonly #vectors: ReadonlyMap<string, number>;
  readonly #groups = new Map<number, LinearSpec[]>();

  constructor(part: Part) {
    this.#linears = new Map(part.linears.map((l) => [l.module, l]));
    this.#vectors = new Map(part.vectors.map((v) => [v.name, v.length]));
  }

  linear(module: string, x: tf.Tensor2D): tf.Tensor2D {
    const spec = this.#linears.get(module) ?? unknown(module);
    this.#groups.set(x.id, [...(this.#groups.get(x.id) ?? []), spec]);
    return tf.zeros([1, spec.out]);
  }

  vector(name: string): tf.Tensor1D {
    return tf.ones([this.#vectors.get(name) ?? unknown(name)]);
  }

  rows(table: string): tf.Tensor2D {
    return unknown(table);
  }

  groups(): InputGroup[] {
    return [...this.#groups.values()].map((specs) => ({ modules: specs.map((s) => s.module), in: specs[0]!.in }));
  }
}

function unknown(name: string): never {
  throw new PithError('INTERNAL', { message: `the graph asks for "${name}", which its block does not name` });
}
