/** `pith factorize`: two factors in place of every linear layer's weight, their ranks fixed or shared out, or their products. */
import { PithError } from '../../core/errors.js';
import type { Pipeline, ProgressEvent } from '../../core/events.js';
import { byteLength, totalByteLength } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import { pithVersion } from '../../core/version.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import { factorNames } from '../../formats/factorized.js';
import * as io from '../../formats/io.js';
import { prepareFiles, type PreparedFiles } from '../../formats/safetensors/prepared.js';
import { checkpointStamp } from '../../formats/stamp.js';
import { StatsFile } from '../../formats/stats/file.js';
import { loadMethod } from '../../methods/index.js';
import type { Factorizer } from '../../methods/kinds.js';
import { readModelConfig } from '../../workers/adapted-reader.js';
import type { FuseTask } from '../../workers/messages/adapters.js';
import type { FactorizeResult, FactorizeTask } from '../../workers/messages/layers.js';
import type { CheckpointRef, Written } from '../../workers/messages/refs.js';
import { openAny, resolveCheckpoint } from '../../workers/open.js';
import { WorkerPool } from '../../workers/pool.js';
import { readWritten } from '../../workers/written.js';
import { Journal, takeName } from '../journal.js';
import { layerStatistics, sideFiles, sourceHash } from '../layers-run.js';
import { linearLayers, peakBytes, requireMemory, requireStats, type LinearLayer } from '../linear-layers.js';
import { checkOutput, requireSpace, RESULT } from '../publish.js';
import { readerWarnings } from '../reader-warnings.js';
import { runSettings } from '../run-options.js';
import { runJobs, type Job } from '../schedule.js';
import { layerBytes, outputInfos, parametersOf, sectionOf, type FactorizeOptions } from './plan.js';
import { energyRank, sharedRanks, uniformRank, type RankTarget } from './ranks.js';
import { keptShare, layerReport, type FactorizeReport } from './report.js';

const JOB = 'factorize';
const COPY_BYTES = 48 << 20;
/** What the process takes beside its tasks, measured. */
const MAIN_BYTES = 240 << 20;

type Ranks = readonly (number | undefined)[];

interface Run {
  readonly o: FactorizeOptions;
  readonly reader: CheckpointReader;
  readonly ref: CheckpointRef;
  readonly method: Factorizer;
  readonly layers: readonly LinearLayer[];
  readonly pool: WorkerPool;
  readonly journal: Journal<unknown>;
  readonly withGram: boolean;
}

export async function* factorize(o: FactorizeOptions): Pipeline<FactorizeReport> {
  const started = performance.now();
  checkOutput(o.out, o.force);
  const method = (await loadMethod('factor', o.method.name)).create(o.method.params);
  await using reader = await openAny(o.checkpoint);
  yield* readerWarnings(JOB, reader);
  const layers = linearLayers(o, reader, await readModelConfig(reader));
  const withGram = checkStats(o, method, layers);
  requireMemory(o, layers, (l) => layerBytes(method, l, withGram));
  const predicted = predict(o, reader, method, layers, withGram);
  if (o.dryRun) return { ...report(o, reader, layers, predicted.ranks, new Map(), predicted.bytes), plan: predicted };
  requireSpace(o.out, predicted.bytes);
  await using pool = new WorkerPool({ threads: o.threads });
  const ref = { path: resolveCheckpoint(o.checkpoint), stamp: checkpointStamp(reader) };
  const journal = Journal.open<unknown>(o.out, identityOf(o, ref, layers), { resume: o.resume });
  try {
    const done = yield* run({ o, reader, ref, method, layers, pool, journal, withGram });
    journal.publishing();
    takeName(journal.spool(RESULT), o.out, o);
    journal.remove();
    yield { type: 'job.done', job: JOB, ms: performance.now() - started };
    return done;
  } catch (error) {
    journal.close();
    throw error;
  }
}

/** Whether layers come with their Gram matrix. */
function checkStats(o: FactorizeOptions, method: Factorizer, layers: readonly LinearLayer[]): boolean {
  if (o.stats === undefined) {
    if (method.needs.length > 0 && o.data === undefined) {
      throw new PithError('USAGE', { message: `--method ${o.method.name} reads statistics (${method.needs.join(', ')}): --stats or --dataset is missing` });
    }
    return o.data !== undefined && method.needs.includes('inputGram');
  }
  using stats = StatsFile.open(o.stats);
  requireStats(stats, method.needs, layers);
  return layers.some((l) => stats.has(l.module, 'inputGram'));
}

function identityOf(o: FactorizeOptions, ref: CheckpointRef, layers: readonly LinearLayer[]): object {
  const { method, target, save, shardBytes, seed } = o;
  const stats = o.stats === undefined ? undefined : { file: o.stats, ...io.stat(o.stats) };
  const modules = layers.map((l) => l.module);
  return { command: JOB, version: pithVersion(), ref, method, target, save, shardBytes, seed, stats, data: o.data?.identity, modules };
}

/** Ranks that follow from the shapes alone. */
function fixedRanks(target: RankTarget, layers: readonly LinearLayer[]): Ranks | undefined {
  if ('rank' in target) return layers.map(({ m, n }) => Math.min(target.rank, m, n));
  return 'ratio' in target && target.allocation === 'uniform' ? layers.map((l) => uniformRank(l, target.ratio)) : undefined;
}

function predict(o: FactorizeOptions, reader: CheckpointReader, method: Factorizer, layers: readonly LinearLayer[], withGram: boolean) {
  // where ranks follow from the weights, uniform ones are as large
  const ranks = fixedRanks(o.target, layers) ?? layers.map((l) => uniformRank(l, 'ratio' in o.target ? o.target.ratio : 1));
  const bytes = totalByteLength(outputInfos(o, reader, layers, ranks));
  return { bytes, ranks, peakBytes: MAIN_BYTES + peakBytes(o, layers, (l) => layerBytes(method, l, withGram)) };
}

async function* run(r: Run): AsyncGenerator<ProgressEvent, FactorizeReport, void> {
  const { o, reader, layers, journal } = r;
  const layersRun = { ...r, job: JOB, spool: (name: string) => journal.spool(name) };
  const before = journal.done.get('source') as string | undefined;
  const source = yield* sourceHash(layersRun, before);
  if (before === undefined) journal.append('source', source);
  const stats = yield* layerStatistics(layersRun, r.method.needs, layers, source);
  requirePlanned(r, stats);
  const ranks = fixedRanks(o.target, layers) ?? (yield* ranksOfSpectra(r, stats));
  const infos = outputInfos(o, reader, layers, ranks);
  const section = sectionOf(o, layers, ranks, source);
  const single = o.out.endsWith('.safetensors');
  const out = journal.spool(RESULT);
  const shards = o.shardBytes === undefined ? {} : { shardBytes: o.shardBytes };
  const files = prepareFiles(out, infos, { single, resume: true, metadata: section.metadata, ...shards });
  const results = yield* writeAll(r, stats, ranks, files);
  if (!single) await sideFiles(reader, out, files.files, section.config);
  files.finish();
  return { ...report(o, reader, layers, ranks, results, files.bytes), source };
}

/** Tasks were planned with a Gram matrix, or without one. */
function requirePlanned({ o, layers, withGram }: Run, file: string | undefined): void {
  if (file === undefined || o.stats !== undefined) return;
  using stats = StatsFile.open(file);
  if (withGram !== stats.has(layers[0]!.module, 'inputGram')) throw new PithError('INTERNAL', { message: 'other statistics than planned' });
}

function taskOf(r: Run, l: LinearLayer, stats: string | undefined): FactorizeTask {
  const { module, transposed } = l;
  const layer = { tensor: { checkpoint: r.ref, name: l.weight.name }, module, transposed, ...(stats === undefined ? {} : { stats }) };
  return { type: 'factorize', settings: runSettings(r.o, 'cpu'), method: r.o.method, layer };
}

const jobOf = <T extends FactorizeTask>(r: Run, l: LinearLayer, task: T): Job<T> => ({
  task,
  label: l.module,
  bytes: byteLength(l.weight.dtype, l.weight.shape),
  memoryBytes: layerBytes(r.method, l, r.withGram),
});

async function* ranksOfSpectra(r: Run, stats: string | undefined): AsyncGenerator<ProgressEvent, Ranks, void> {
  const { o, layers, journal, pool } = r;
  const spectra = new Map<string, readonly number[]>();
  for (const l of layers) {
    const s = journal.done.get(`spectrum ${l.module}`) as readonly number[] | undefined;
    if (s !== undefined) spectra.set(l.module, s);
  }
  const jobs = layers.filter((l) => !spectra.has(l.module)).map((l) => jobOf(r, l, taskOf(r, l, stats)));
  const totalBytes = jobs.reduce((sum, j) => sum + j.bytes, 0);
  yield { type: 'phase', job: JOB, phase: 'spectra' };
  yield* runJobs(jobs, { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes, doneBytes: pool.doneBytes }, (job, { s }) => {
    const values = Array.from(s!);
    spectra.set(job.label, values);
    journal.append(`spectrum ${job.label}`, values);
    return undefined;
  });
  const all = layers.map((l) => ({ ...l, s: spectra.get(l.module)! }));
  const { target } = o;
  return 'energy' in target ? all.map((l) => energyRank(l, l.s, target.energy)) : sharedRanks(all, (target as { ratio: number }).ratio);
}

/** What the journal has of a layer. */
type Done = Omit<FactorizeResult, 's'>;

async function* writeAll(r: Run, stats: string | undefined, ranks: Ranks, files: PreparedFiles): AsyncGenerator<ProgressEvent, Map<string, Done>, void> {
  const { o, reader, layers, journal, pool } = r;
  const results = new Map<string, Done>();
  const jobs: Job<FactorizeTask | FuseTask>[] = [];
  const taken = new Set<string>();
  let resumedBytes = 0;
  layers.forEach((l, i) => {
    const rank = ranks[i];
    if (rank === undefined) return;
    taken.add(l.weight.name);
    const names = factorNames(l.module);
    const at = (name: string) => files.places.get(name)!;
    const target = o.save === 'dense' ? { dense: at(l.weight.name) } : { a: at(names.a), b: at(names.b) };
    const job = jobOf(r, l, { ...taskOf(r, l, stats), rank, target });
    const before = journal.done.get(`layer ${l.module}`) as Done | undefined;
    if (before !== undefined && isThere(Object.values(target), before.written)) {
      results.set(l.module, before);
      resumedBytes += job.bytes;
    } else jobs.push(job);
  });
  jobs.push(...copies(r, taken, ranks, files));
  const totalBytes = resumedBytes + jobs.reduce((sum, j) => sum + j.bytes, 0);
  yield { type: 'job.start', job: JOB, totalBytes, tasks: jobs.length, resumedBytes };
  const doneBytes = pool.doneBytes + resumedBytes;
  yield* runJobs(jobs, { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes, doneBytes }, (job, result) => {
    if (job.task.type === 'fuse') return undefined;
    const done = result as FactorizeResult;
    results.set(job.label, done);
    journal.append(`layer ${job.label}`, done);
    const bytes = done.written.reduce((sum, w) => sum + w.bytes, 0);
    return {
      type: 'tensor.done',
      job: JOB,
      tensor: job.task.layer.tensor.name,
      method: o.method.name,
      bytes,
      rawBytes: byteLength(...shapeOf(reader, job.task.layer.tensor.name)),
    };
  });
  return results;
}

const shapeOf = (reader: CheckpointReader, name: string): [TensorInfo['dtype'], readonly number[]] => {
  const { dtype, shape } = reader.infos.get(name)!;
  return [dtype, shape];
};

const isThere = (places: readonly { file: string; position: number }[], written: readonly Written[]): boolean =>
  places.length === written.length && places.every((p, i) => readWritten(p, written[i]!.bytes)?.crc32 === written[i]!.crc32);

/** Every other tensor as it is; biases of factored layers under their new names. */
function copies({ o, reader, ref, layers }: Run, taken: ReadonlySet<string>, ranks: Ranks, files: PreparedFiles): Job<FuseTask>[] {
  const renamed = new Map<string, string>();
  if (o.save === 'factors') layers.forEach((l, i) => ranks[i] !== undefined && l.bias !== undefined && renamed.set(l.bias, factorNames(l.module).bias));
  return [...reader.infos.values()]
    .filter((t) => !taken.has(t.name))
    .map(({ name, dtype, shape }) => {
      const base = { checkpoint: ref, name };
      const task: FuseTask = { type: 'fuse', settings: runSettings(o, 'cpu'), base, dtype, target: files.places.get(renamed.get(name) ?? name)! };
      return { task, label: name, bytes: byteLength(dtype, shape), memoryBytes: COPY_BYTES };
    });
}

function report(
  o: FactorizeOptions,
  reader: CheckpointReader,
  layers: readonly LinearLayer[],
  ranks: Ranks,
  results: ReadonlyMap<string, Done>,
  bytes: number,
): FactorizeReport {
  const all = layers.map((l, i) => layerReport(l, ranks[i], results.get(l.module) as FactorizeResult | undefined));
  const raw = [...reader.infos.values()];
  return {
    out: o.out,
    method: o.method.name,
    save: o.save,
    bytes,
    rawBytes: totalByteLength(raw),
    device: 'cpu',
    kept: keptShare(all),
    parameters: parametersOf(outputInfos({ save: 'factors' }, reader, layers, ranks)),
    rawParameters: parametersOf(raw),
    layers: all,
  };
}
