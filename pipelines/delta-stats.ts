/** Statistics of a pair's layers for a codec that is fitted to them: whose they are, and which tensor is which layer's weight. */
import { PithError } from '../core/errors.js';
import type { ProgressEvent } from '../core/events.js';
import { matrixShape } from '../core/shape.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { checkpointStamp } from '../formats/stamp.js';
import { StatsFile } from '../formats/stats/file.js';
import type { LayerStat } from '../methods/kinds.js';
import type { LayerStatsRef, RunSettings } from '../workers/messages/refs.js';
import { resolveCheckpoint } from '../workers/open.js';
import type { WorkerPool } from '../workers/pool.js';
import { hashCheckpoint } from './content-hash.js';
import type { DeltaPlan, PlannedTensor } from './delta-plan.js';
import { modelRef } from './model-ref.js';

export interface StatsModels {
  /** Base and fine-tune, or the fine-tune alone. */
  readonly both: readonly { readonly argument: string; readonly reader: CheckpointReader }[];
  readonly job: string;
  readonly maxMemoryBytes: number;
  readonly signal: AbortSignal;
}

const usedBy = (plan: DeltaPlan, t: PlannedTensor): readonly LayerStat[] => plan.methods[t.method]!.codec.uses ?? [];

/** USAGE (64) when no method of the plan uses statistics; else what StatsFile.open throws. */
export function openStats(path: string, plan: DeltaPlan): StatsFile {
  if (plan.methods.every((m) => m.codec.uses === undefined)) {
    throw new PithError('USAGE', { message: `--stats: ${plan.methods.at(-1)!.name} is not fitted to statistics; delta-come is` });
  }
  return StatsFile.open(path);
}

/**
 * Tensors that the file has statistics for. STATS_MODEL (65) when it is of neither checkpoint, STATS_MISSING when a layer's lack what the codec
 * uses, SHAPE_MISMATCH when they are of other sides.
 */
export async function* planStats(
  file: StatsFile,
  plan: DeltaPlan,
  models: StatsModels,
  settings: RunSettings,
  pool: WorkerPool,
): AsyncGenerator<ProgressEvent, ReadonlyMap<string, LayerStatsRef>, void> {
  const { argument, reader } = yield* ownerOf(file, models, pool);
  const shape = await pool.run({ type: 'model-shape', settings, model: await modelRef(argument, reader) });
  const linears = new Map(shape.blocks.flatMap((b) => b.linears.map((l) => [`${l.module}.weight`, l])));
  const refs = new Map<string, LayerStatsRef>();
  for (const t of plan.tensors) {
    const linear = linears.get(t.name);
    const uses = usedBy(plan, t);
    // a tensor that has more rows in the fine-tune is another layer
    if (linear === undefined || uses.length === 0 || !file.modules.has(linear.module) || (t.pairing.kind === 'pair' && t.pairing.commonRows !== undefined))
      continue;
    const [rows, columns] = matrixShape(t.shape);
    file.require(linear.module, uses, linear.transposed ? { in: rows, out: columns } : { in: columns, out: rows });
    refs.set(t.name, { file: file.path, module: linear.module, transposed: linear.transposed });
  }
  return refs;
}

/** The checkpoint that the statistics are of. */
async function* ownerOf(file: StatsFile, models: StatsModels, pool: WorkerPool): AsyncGenerator<ProgressEvent, StatsModels['both'][number], void> {
  const hashes: string[] = [];
  for (const model of models.both) {
    const { argument, reader } = model;
    const ref = { path: resolveCheckpoint(argument), stamp: checkpointStamp(reader) };
    const hash = yield* hashCheckpoint(reader, ref, { ...models, pool });
    if (hash === file.manifest.model.contentHash) return model;
    hashes.push(hash);
  }
  file.requireModel(hashes.join(' or '));
  return models.both[0]!;
}
