/** A decoder that predicts next tokens, as the executors see it: parts in order, one function a part. */
import type { Tensor2D } from '#tf';
import { PithError } from '../core/errors.js';
import { sameShape } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import type { Batch } from './batch.js';
import { namePrefix } from './config/parse.js';
import type { BaseConfig, CausalConfig } from './config/types.js';
import type { HeadSpec, LinearSpec, Part, Scope } from './graph.js';

export interface CausalModel {
  readonly config: CausalConfig;
  /** Before the blocks, the blocks, after them without the output layer. */
  readonly input: Part;
  readonly blocks: readonly Part[];
  readonly output: Part;
  readonly head: HeadSpec;
  /** ids: (batch * length). Gives (batch * length, hidden). */
  embed(scope: Scope, ids: Int32Array, batch: Batch): Tensor2D;
  block(index: number, scope: Scope, x: Tensor2D, batch: Batch): Tensor2D;
  /** What the output layer multiplies. */
  finish(scope: Scope, x: Tensor2D): Tensor2D;
}

/** A checkpoint's tensors by name, for finding and checking. */
export interface TensorTable {
  /** What errors show. */
  readonly file: string;
  readonly infos: ReadonlyMap<string, TensorInfo>;
}

/** What a graph's tensors begin with. TENSOR_MISSING when it holds none of them. */
export function requirePrefix(config: Pick<BaseConfig, 'names'>, { file, infos }: TensorTable): string {
  const prefix = namePrefix(config, (name) => infos.has(name));
  if (prefix === undefined) throw new PithError('TENSOR_MISSING', { file, tensor: `${config.names.prefixes[0] ?? ''}${config.names.probe}` });
  return prefix;
}

/** The head's own weight where it is stored, else the embedding's (tied). TENSOR_MISSING when the config says untied and there is none. */
export function headWeight(config: CausalConfig, embedding: string, { file, infos }: TensorTable): string {
  const own = config.names.heads.find((name) => infos.has(name));
  if (own !== undefined) return own;
  if (!config.tied) throw new PithError('TENSOR_MISSING', { file, tensor: config.names.heads[0] ?? 'lm_head.weight' });
  return embedding;
}

/** The embedding's name; where only the head is stored it serves as both. */
export function embeddingWeight(config: CausalConfig, name: string, { infos }: TensorTable): string {
  return infos.has(name) ? name : (config.names.heads.find((head) => infos.has(head)) ?? name);
}

/** Name and shape of every tensor of a part. */
export function tensorsOf(p: Part): { readonly name: string; readonly shape: readonly number[] }[] {
  const linear = (l: LinearSpec): { name: string; shape: number[] }[] => [
    { name: `${l.module}.weight`, shape: l.transposed === true ? [l.in, l.out] : [l.out, l.in] },
    ...(l.bias ? [{ name: `${l.module}.bias`, shape: [l.out] }] : []),
  ];
  return [
    ...p.linears.flatMap(linear),
    ...p.vectors.map((v) => ({ name: v.name, shape: v.shape ?? [v.length] })),
    ...p.tables.map((t) => ({ name: t.name, shape: [t.rows, t.columns] })),
  ];
}

/** Every tensor of the graph is there in its shape: TENSOR_MISSING, SHAPE_MISMATCH (65) name the first that is not. */
export function checkTensors(model: Pick<CausalModel, 'input' | 'blocks' | 'output' | 'head'>, { file, infos }: TensorTable): void {
  const { head } = model;
  const wanted = [model.input, ...model.blocks, model.output].flatMap(tensorsOf);
  wanted.push({ name: head.weight, shape: [head.vocabulary, head.columns] });
  for (const { name, shape } of wanted) {
    const info = infos.get(name);
    if (info === undefined) throw new PithError('TENSOR_MISSING', { file, tensor: name });
    if (sameShape(info.shape, shape)) continue;
    throw new PithError('SHAPE_MISMATCH', { file, tensor: name, expected: `[${shape.join(', ')}] by config.json`, got: `[${info.shape.join(', ')}]` });
  }
}
