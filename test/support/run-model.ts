/** A graph over a golden model, part by part as the executors do it, with what each part gives. */
import type * as tfjs from '#tf';
import { openCheckpoint } from '../../formats/open-checkpoint.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import { frozenMatrix } from '../../kernels/nn/frozen-matrix.js';
import { headLogits } from '../../kernels/nn/head-loss.js';
import { Batch, type BatchShape } from '../../models/batch.js';
import type { BlockModel, Scope } from '../../models/graph.js';
import type { TensorTable } from '../../models/tensors.js';
import { PartWeights, readVector } from '../../workers/model/weights.js';
import { modelFolder, type ModelDocument } from './goldens.js';

export interface OpenModel {
  readonly table: TensorTable;
  readonly reader: CheckpointReader;
}

export async function openGolden(name: string): Promise<OpenModel> {
  const reader = await openCheckpoint(modelFolder(name));
  return { table: { file: name, infos: reader.infos }, reader };
}

const flat = (rows: readonly (readonly number[])[]): Int32Array => Int32Array.from(rows.flat());

/** The golden's inputs; `seen`: 1 for what is not masked. */
export function batchOf(d: ModelDocument): { ids: Int32Array; seen: Uint8Array; batch: Batch } {
  const ids = flat(d.input_ids!);
  const seen = Uint8Array.from(d.attention_mask?.flat() ?? ids.map(() => 1));
  const shape: BatchShape = {
    batch: d.input_ids!.length,
    length: d.input_ids![0]!.length,
    mask: seen,
    ...(d.position_ids === undefined ? {} : { positions: flat(d.position_ids) }),
    ...(d.token_type_ids === undefined ? {} : { types: flat(d.token_type_ids) }),
  };
  return { ids, seen, batch: new Batch(shape) };
}

/** Rows of masked positions as zeros: what stands there means nothing. */
export function visible(values: Float32Array, seen: Uint8Array): Float32Array {
  const width = values.length / seen.length;
  return values.map((v, i) => (seen[Math.floor(i / width)] === 1 ? v : 0));
}

export interface StackRun<M extends BlockModel> extends OpenModel {
  readonly tf: typeof tfjs;
  readonly model: M;
  readonly batch: Batch;
  /** Hidden states of the input part. */
  readonly embed: (scope: Scope) => tfjs.Tensor2D;
  /** Every state as it comes: the embeddings', each block's. */
  readonly keep?: (x: tfjs.Tensor2D) => Promise<void>;
}

/** What `after` makes of the last block's output with the output part's weights. */
export async function runStack<M extends BlockModel>(run: StackRun<M>, after: (scope: Scope, x: tfjs.Tensor2D) => tfjs.Tensor[]): Promise<tfjs.Tensor[]> {
  const { tf, model, batch, reader, keep } = run;
  const all = new Map(model.input.tables.map((t) => [t.name, Int32Array.from({ length: t.rows }, (_, i) => i)]));
  let x: tfjs.Tensor2D;
  {
    using weights = await PartWeights.load(reader, model.input, all);
    x = tf.tidy(() => run.embed(weights));
  }
  await keep?.(x);
  for (const [i, part] of model.blocks.entries()) {
    using weights = await PartWeights.load(reader, part);
    const y = tf.tidy(() => model.block(i, weights, x, batch));
    x.dispose();
    x = y;
    await keep?.(x);
  }
  using weights = await PartWeights.load(reader, model.output);
  // a graph without a head gives x itself
  const out = tf.tidy(() => after(weights, x).map((t) => tf.clone(t)));
  x.dispose();
  return out;
}

/** Logits of `x`, what the output layer multiplies. */
export async function logitsOf({ tf, model, reader }: Pick<StackRun<BlockModel>, 'tf' | 'model' | 'reader'>, x: tfjs.Tensor2D): Promise<tfjs.Tensor2D> {
  const { weight, vocabulary, columns, softcap, bias } = model.head!;
  const { dtype, bytes } = await reader.read(weight);
  const b = bias === undefined ? undefined : await readVector(reader, bias);
  return tf.tidy(() => headLogits(x, frozenMatrix(dtype, vocabulary, columns, bytes), softcap, b === undefined ? undefined : tf.tensor1d(b)));
}

export async function valuesOf(t: tfjs.Tensor): Promise<Float32Array> {
  const values = (await t.data()) as Float32Array;
  t.dispose();
  return values;
}
