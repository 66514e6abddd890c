/** What runs over a model's linear layers share besides their tasks: the hash of the model, statistics taken on a text, files beside the weights. */
import { join } from 'node:path';
import type { ProgressEvent } from '../core/events.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import type { ConfigField } from '../formats/config-fields.js';
import * as io from '../formats/io.js';
import { StatsFile } from '../formats/stats/file.js';
import { FISHER_STATISTICS, type Statistic } from '../formats/stats/schema.js';
import type { CheckpointRef } from '../workers/messages/refs.js';
import type { WorkerPool } from '../workers/pool.js';
import type { CalibrateOptions } from './calibrate-plan.js';
import { calibrate } from './calibrate.js';
import { hashCheckpoint } from './content-hash.js';
import { requireStats, type LinearLayer } from './linear-layers.js';
import type { RunOptions } from './run-options.js';
import { writeSideFiles } from './write-side-files.js';

export interface LayersRun {
  readonly job: string;
  readonly o: RunOptions & {
    readonly checkpoint: string;
    /** A statistics file, or the text that they are taken on. */
    readonly stats?: string;
    readonly data?: { readonly windows: CalibrateOptions['data'] };
    readonly resume: boolean;
  };
  readonly reader: CheckpointReader;
  readonly ref: CheckpointRef;
  readonly pool: WorkerPool;
  readonly spool: (name: string) => string;
}

/** The content hash of the model, `before` where an earlier run knew it. STATS_MODEL (65): the user's statistics are of another one. */
export async function* sourceHash({ job, o, reader, ref, pool }: LayersRun, before: string | undefined): AsyncGenerator<ProgressEvent, string, void> {
  const { maxMemoryBytes, signal } = o;
  const source = before ?? (yield* hashCheckpoint(reader, ref, { job, pool, maxMemoryBytes, signal }));
  if (o.stats !== undefined) {
    using stats = StatsFile.open(o.stats);
    stats.requireModel(source);
  }
  return source;
}

const STATISTICS_FILE = 'statistics.safetensors';

/** The statistics' file: the user's, or one that is taken on the text, on the model as it is, and gone with the run. undefined: nothing is needed. */
export async function* layerStatistics(
  { o, spool }: LayersRun,
  needs: readonly Statistic[],
  layers: readonly LinearLayer[],
  source: string,
): AsyncGenerator<ProgressEvent, string | undefined, void> {
  if (o.stats !== undefined || o.data === undefined || needs.length === 0) return o.stats;
  const out = spool(STATISTICS_FILE);
  if (io.stat(out) === undefined) {
    const weights = new Set(layers.map((l) => l.weight.name));
    const wanted = <S extends Statistic>(names: readonly S[]): S[] => names.filter((s) => needs.includes(s));
    const [statistics, fisher] = [wanted(['inputSqNorm', 'inputAbsMean', 'inputGram']), wanted(FISHER_STATISTICS)];
    const selects = (weight: string): boolean => weights.has(weight);
    yield* calibrate({ ...o, out, data: o.data.windows, statistics, fisher, selects, dryRun: false, force: false });
  }
  using stats = StatsFile.open(out);
  stats.requireModel(source);
  requireStats(stats, needs, layers);
  return out;
}

/** The files beside the weights, in a folder that holds the new ones; what an earlier run had copied is replaced. */
export async function sideFiles(reader: CheckpointReader, folder: string, own: readonly string[], fields: readonly ConfigField[] = []): Promise<void> {
  const kept = new Set(own);
  for (const e of io.readdir(folder)) if (!kept.has(join(folder, e.name))) io.remove(join(folder, e.name));
  await writeSideFiles(reader, folder, fields);
}
