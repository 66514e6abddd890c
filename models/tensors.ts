/** A graph's tensors in a checkpoint: found by their names, checked against their shapes. */
import { PithError } from '../core/errors.js';
import { sameShape } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import { namePrefix } from './config/parse.js';
import type { BaseConfig } from './config/types.js';
import type { BlockModel, LinearSpec, Part } from './graph.js';

/** A checkpoint's tensors by name, for finding and checking. */
export interface TensorTable {
  /** What errors show. */
  readonly file: string;
  readonly infos: ReadonlyMap<string, TensorInfo>;
}

/** What of a config says where the output layer is. */
type HeadConfig = Pick<BaseConfig, 'names' | 'tied'>;

/** What a graph's tensors begin with. TENSOR_MISSING when it holds none of them. */
export function requirePrefix(config: Pick<BaseConfig, 'names'>, { file, infos }: TensorTable): string {
  const prefix = namePrefix(config, (name) => infos.has(name));
  if (prefix === undefined) throw new PithError('TENSOR_MISSING', { file, tensor: `${config.names.prefixes[0] ?? ''}${config.names.probe}` });
  return prefix;
}

/** The head's own weight where it is stored, else the embedding's (tied). TENSOR_MISSING when the config says untied and there is none. */
export function headWeight(config: HeadConfig, embedding: string, { file, infos }: TensorTable): string {
  const own = config.names.heads.find((name) => infos.has(name));
  if (own !== undefined) return own;
  if (!config.tied) throw new PithError('TENSOR_MISSING', { file, tensor: config.names.heads[0] ?? 'lm_head.weight' });
  return embedding;
}

/** The embedding's name; of a tied model that stores only the head, the head's. */
export function embeddingWeight(config: HeadConfig, name: string, { infos }: TensorTable): string {
  const stored = config.tied && !infos.has(name) ? config.names.heads.find((head) => infos.has(head)) : undefined;
  return stored ?? name;
}

interface NamedShape {
  readonly name: string;
  readonly shape: readonly number[];
}

/** Name and shape of every tensor of a part. */
export function tensorsOf(p: Part): NamedShape[] {
  const linear = (l: LinearSpec): NamedShape[] => [
    { name: `${l.module}.weight`, shape: l.shape ?? (l.transposed === true ? [l.in, l.out] : [l.out, l.in]) },
    ...(l.bias ? [{ name: `${l.module}.bias`, shape: [l.out] }] : []),
  ];
  return [
    ...p.linears.flatMap(linear),
    ...p.vectors.map((v) => ({ name: v.name, shape: v.shape ?? [v.length] })),
    ...p.tables.map((t) => ({ name: t.name, shape: [t.rows, t.columns] })),
  ];
}

/** The same of a whole graph; a tensor that serves twice is there twice. */
export function graphTensors({ input, blocks, output, head }: Pick<BlockModel, 'input' | 'blocks' | 'output' | 'head'>): NamedShape[] {
  const all = [input, ...blocks, output].flatMap(tensorsOf);
  if (head === undefined) return all;
  all.push({ name: head.weight, shape: [head.vocabulary, head.columns] });
  if (head.bias !== undefined) all.push({ name: head.bias, shape: [head.vocabulary] });
  return all;
}

/** Every tensor of the graph is there in its shape: TENSOR_MISSING, SHAPE_MISMATCH (65) name the first that is not. */
export function checkTensors(model: Parameters<typeof graphTensors>[0], { file, infos }: TensorTable): void {
  for (const { name, shape } of graphTensors(model)) {
    const info = infos.get(name);
    if (info === undefined) throw new PithError('TENSOR_MISSING', { file, tensor: name });
    if (sameShape(info.shape, shape)) continue;
    throw new PithError('SHAPE_MISMATCH', { file, tensor: name, expected: `[${shape.join(', ')}] by config.json`, got: `[${info.shape.join(', ')}]` });
  }
}
