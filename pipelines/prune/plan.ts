/** What `pith prune` will do, from headers alone: which layers, by what, how much memory and disk. */
import { PithError } from '../../core/errors.js';
import { elementCount, sameShape } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import { panelRows } from '../../kernels/linalg/row-panels.js';
import { loadMethod } from '../../methods/index.js';
import type { LayerStat, Pruner, Sparsity } from '../../methods/kinds.js';
import type { MaskRule } from '../../workers/messages/layers.js';
import type { MethodRef } from '../../workers/messages/refs.js';
import type { CalibrateOptions } from '../calibrate-plan.js';
import type { LinearLayer } from '../linear-layers.js';
import type { RunOptions } from '../run-options.js';

/** A share of every layer's weights, of every row's, of all layers' together, of what the method usually compares; or `keep` of every `of` inputs. */
export type PruneTarget = Sparsity | { readonly group: 'global' | 'usual'; readonly ratio: number };

export type PruneChoice = { readonly method: MethodRef; readonly target: PruneTarget } | { readonly masks: readonly string[]; readonly combine: MaskRule };

export interface PruneOptions extends RunOptions {
  readonly checkpoint: string;
  readonly out: string;
  readonly choose: PruneChoice;
  /** Sets the kept weights anew. */
  readonly update?: MethodRef;
  /** The checkpoint before fine-tuning. */
  readonly base?: string;
  /** A statistics file; or the text that they are taken on. */
  readonly stats?: string;
  readonly data?: { readonly windows: CalibrateOptions['data']; readonly identity: object };
  /** Statistics of the text are taken once, on the model as it is, instead of block by block on what is pruned so far. */
  readonly oneShot: boolean;
  readonly trueSequential: boolean;
  /** sparse: one file, the sparse container (docs/formats/sparse.md). */
  readonly save: 'dense' | 'sparse';
  /** A file for the masks. */
  readonly saveMask?: string;
  /** By the name of a weight. */
  readonly selects: (weight: string) => boolean;
  readonly force: boolean;
  readonly dryRun: boolean;
  readonly resume: boolean;
}

/** The methods of a run, created. */
export interface Pruners {
  /** The usual group is known by its name. */
  readonly choose: PruneChoice;
  /** Absent with masks that are there. */
  readonly chooser?: Pruner;
  readonly updater?: Pruner;
  readonly needs: readonly LayerStat[];
}

/** USAGE (64) for a target or an update that a method does not have, and for statistics that are asked for and not given. */
export async function loadPruners(o: PruneOptions): Promise<Pruners> {
  const usage = (message: string): PithError => new PithError('USAGE', { message });
  const create = async ({ name, params }: MethodRef): Promise<Pruner> => (await loadMethod('prune', name)).create(params);
  const chooser = 'method' in o.choose ? await create(o.choose.method) : undefined;
  if (chooser?.base === true && o.base === undefined)
    throw usage(`--method ${(o.choose as { method: MethodRef }).method.name} looks at what fine-tuning changed: --base is missing`);
  if (o.base !== undefined && chooser?.base !== true) throw usage('--base: this method does not look at it');
  const updater = o.update === undefined ? undefined : await create(o.update);
  if (o.update !== undefined && updater!.update === undefined) throw usage(`--update ${o.update.name}: this method sets no weights for a given mask`);
  const needs = [...new Set([...(chooser?.needs ?? []), ...(updater?.needs ?? [])])];
  const given = o.stats !== undefined || o.data !== undefined;
  if (needs.length > 0 && !given) throw usage(`statistics of the inputs are needed (${needs.join(', ')}): --stats or --dataset is missing`);
  if (isGlobal(o)) {
    const name = (o.choose as { method: MethodRef }).method.name;
    if (chooser!.scores === undefined) throw usage(`--group global: "${name}" has no scores that layers could be compared by`);
    if (inBlocks(o, needs)) throw usage('--group global compares all layers as they are: give --stats, or --one-shot');
  }
  const choose = chooser === undefined ? o.choose : resolved(o.choose, chooser);
  return { choose, ...(chooser === undefined ? {} : { chooser }), ...(updater === undefined ? {} : { updater }), needs };
}

function resolved(choose: PruneChoice, { group }: Pruner): PruneChoice {
  return 'target' in choose && choose.target.group === 'usual' ? { ...choose, target: { group, ratio: choose.target.ratio } } : choose;
}

export const isGlobal = (o: Pick<PruneOptions, 'choose'>): boolean => 'target' in o.choose && o.choose.target.group === 'global';

/** Block by block, on what the pruned blocks before give. */
export const inBlocks = (o: PruneOptions, needs: readonly LayerStat[]): boolean => o.data !== undefined && !o.oneShot && needs.length > 0;

/** TENSOR_MISSING, SHAPE_MISMATCH (65): another checkpoint, or masks, have every layer. */
export function requireLayers(reader: CheckpointReader, layers: readonly LinearLayer[]): void {
  for (const { weight } of layers) {
    const info = reader.infos.get(weight.name);
    if (info === undefined) throw new PithError('TENSOR_MISSING', { file: reader.source, tensor: weight.name });
    if (sameShape(info.shape, weight.shape)) continue;
    const show = (shape: readonly number[]): string => `[${shape.join(', ')}]`;
    throw new PithError('SHAPE_MISMATCH', { file: reader.source, tensor: weight.name, expected: show(weight.shape), got: show(info.shape) });
  }
}

const SCRATCH_BYTES = 16 << 20;

/** Host memory of one layer's task at most. */
export function layerBytes({ chooser, updater, needs }: Omit<Pruners, 'choose'>, { m, n }: Pick<LinearLayer, 'm' | 'n'>, withGram: boolean): number {
  const sizes = { inputSqNorm: n, inputAbsMean: n, inputGram: n * n };
  const read = needs.reduce((sum, s) => sum + 4 * sizes[s], 0) + (chooser?.base === true ? 4 * m * n : 0);
  const method = Math.max(chooser?.memoryBytes(m, n) ?? 0, updater?.memoryBytes(m, n) ?? 0);
  // a Conv1D's weight lies there twice while it is turned; a mask, and the keys of a threshold, beside it
  const work = Math.max(8 * m * n, 4 * m * n + read + method + 9 * m * n);
  const judge = 16 * m * n + m * n + (withGram ? 4 * n * n : 4 * n) + 3 * 4 * panelRows(m, n) * n;
  return SCRATCH_BYTES + Math.max(work, judge);
}

/** One byte a weight, under the weight's name. */
export const maskInfos = (layers: readonly LinearLayer[]): TensorInfo[] =>
  layers.map(({ weight }) => ({ name: weight.name, dtype: 'BOOL', shape: weight.shape }));

export const maskBytes = (layers: readonly LinearLayer[]): number => layers.reduce((sum, { weight }) => sum + elementCount(weight.shape), 0);

/** How a checkpoint in shards is laid out; absent for one that is in one file, or in none. */
export function shardsOf(reader: CheckpointReader): { name: string; tensors: readonly string[] }[] | undefined {
  const { files, infos } = reader;
  const count = files.reduce((sum, f) => sum + f.order.length, 0);
  if (files.length < 2 || count !== infos.size || files.some((f) => f.name.includes('/') || !f.name.endsWith('.safetensors'))) return undefined;
  return files.every((f) => f.order.every((t) => infos.has(t))) ? files.map((f) => ({ name: f.name, tensors: f.order })) : undefined;
}

/** "2:4", "4:8", "unstructured": for the output's metadata. */
export function structureOf(choose: PruneChoice): string {
  return 'target' in choose && choose.target.group === 'n:m' ? `${choose.target.keep}:${choose.target.of}` : 'unstructured';
}

/** The share of zeros that is asked for; undefined with masks, which say it themselves. */
export function ratioOf(choose: PruneChoice): number | undefined {
  if (!('target' in choose)) return undefined;
  const { target } = choose;
  return target.group === 'n:m' ? 1 - target.keep / target.of : target.ratio;
}
