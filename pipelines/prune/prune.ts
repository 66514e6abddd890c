/** `pith prune`: a checkpoint whose linear layers have zeros where a method or a mask wants them. */
import { basename } from 'node:path';
import { PithError } from '../../core/errors.js';
import type { Pipeline, ProgressEvent } from '../../core/events.js';
import { totalByteLength } from '../../core/shape.js';
import { pithVersion } from '../../core/version.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import * as io from '../../formats/io.js';
import { checkpointStamp } from '../../formats/stamp.js';
import { StatsFile } from '../../formats/stats/file.js';
import { readModelConfig } from '../../workers/adapted-reader.js';
import type { PruneResult } from '../../workers/messages/layers.js';
import type { CheckpointRef } from '../../workers/messages/refs.js';
import { checkpointName, openAny, resolveCheckpoint } from '../../workers/open.js';
import { WorkerPool } from '../../workers/pool.js';
import { deltaEncode } from '../delta-encode.js';
import { hashTokens } from '../calibrate-plan.js';
import { Journal, takeName } from '../journal.js';
import { layerStatistics, sideFiles, sourceHash } from '../layers-run.js';
import { linearLayers, peakBytes, requireMemory, requireStats, type LinearLayer } from '../linear-layers.js';
import { modelRef } from '../model-ref.js';
import { checkOutput, requireSpace, RESULT } from '../publish.js';
import { readerWarnings } from '../reader-warnings.js';
import { resolveRunDevice, runSettings } from '../run-options.js';
import type { StepDone } from '../steps.js';
import { planBlocks, pruneBlocks, type BlockPlan } from './blocks.js';
import { pruneLayers } from './layers.js';
import { inBlocks, layerBytes, loadPruners, maskBytes, ratioOf, requireLayers, structureOf, type PruneOptions, type Pruners } from './plan.js'; // prettier-ignore
import { achieved, doubts, tensorReport, type PrunePrediction, type PruneReport } from './report.js';
import { copyOthers, JOB, MASK, prepareOutput, SPARSE, type Run } from './run.js';

/** What the process takes beside its tasks, measured. */
const MAIN_BYTES = 240 << 20;
const MASK_PUBLISHED = 'mask published';

export async function* prune(given: PruneOptions): Pipeline<PruneReport> {
  const started = performance.now();
  checkOutput(given.out, given.force);
  const pruners = await loadPruners(given);
  const o = { ...given, choose: pruners.choose };
  await using reader = await openAny(o.checkpoint);
  yield* readerWarnings(JOB, reader);
  const layers = linearLayers(o, reader, await readModelConfig(reader));
  const masks = await openOthers('masks' in o.choose ? o.choose.masks : [], layers);
  const [base] = await openOthers(o.base === undefined ? [] : [o.base], layers);
  const withGram = checkStats(o, pruners, layers);
  requireMemory(o, layers, (l) => layerBytes(pruners, l, withGram));
  await using pool = new WorkerPool({ threads: o.threads });
  const blocks = inBlocks(o, pruners.needs) ? await prepareBlocks(o, reader, pool, pruners, layers) : undefined;
  const predicted = predict(o, reader, pruners, layers, withGram, blocks);
  if (o.dryRun) return { ...report(o, reader, layers, pruners, new Map()), bytes: predicted.bytes, plan: predicted };
  // the dense result is beside a sparse one until the end
  requireSpace(o.out, predicted.bytes * (o.save === 'sparse' ? 1.7 : 1) + predicted.spoolBytes);
  const ref = { path: resolveCheckpoint(o.checkpoint), stamp: checkpointStamp(reader) };
  const journal = Journal.open<StepDone>(o.out, identityOf(o, { ref, masks, base }, layers, blocks), { resume: o.resume });
  try {
    if (o.saveMask !== undefined && !journal.done.has(MASK_PUBLISHED)) checkOutput(o.saveMask, o.force);
    const r: Run = { o, reader, ref, masks, ...(base === undefined ? {} : { base }), pruners, layers, pool, journal, withGram };
    const done = yield* run(r, blocks);
    for (const message of done.warnings) yield { type: 'warning', job: JOB, code: 'QUALITY', message };
    publish(r);
    yield { type: 'job.done', job: JOB, ms: performance.now() - started };
    return done;
  } catch (error) {
    // other statistics are another plan
    if (error instanceof PithError && error.code === 'STATS_MODEL') journal.discard();
    else journal.close();
    throw error;
  }
}

/** The mask first: a run that ends between the two goes on with the result alone. */
function publish({ o, journal }: Run): void {
  if (o.saveMask !== undefined) {
    if (!journal.done.has(MASK_PUBLISHED)) journal.append(MASK_PUBLISHED, { parts: [] });
    takeName(journal.spool(MASK), o.saveMask, { force: o.force || journal.done.has(MASK_PUBLISHED) });
  }
  journal.publishing();
  takeName(journal.spool(o.save === 'sparse' ? SPARSE : RESULT), o.out, o);
  journal.remove();
}

/** Other checkpoints, or masks, each with every layer. */
async function openOthers(paths: readonly string[], layers: readonly LinearLayer[]): Promise<CheckpointRef[]> {
  const refs: CheckpointRef[] = [];
  for (const path of paths) {
    await using reader = await openAny(path);
    requireLayers(reader, layers);
    refs.push({ path: resolveCheckpoint(path), stamp: checkpointStamp(reader) });
  }
  return refs;
}

/** Whether layers come with their Gram matrix. */
function checkStats(o: PruneOptions, { needs }: Pruners, layers: readonly LinearLayer[]): boolean {
  if (o.stats === undefined) return o.data !== undefined && needs.includes('inputGram');
  using stats = StatsFile.open(o.stats);
  requireStats(stats, needs, layers);
  return layers.some((l) => stats.has(l.module, 'inputGram'));
}

async function prepareBlocks(
  o: PruneOptions,
  reader: CheckpointReader,
  pool: WorkerPool,
  pruners: Pruners,
  layers: readonly LinearLayer[],
): Promise<BlockPlan> {
  // one BLAS thread: the masks, and so the bytes, must not depend on --threads
  const settings = { ...runSettings(o, await resolveRunDevice(o.device)), memoryBytes: o.maxMemoryBytes };
  const model = await modelRef(o.checkpoint, reader);
  const shape = await pool.run({ type: 'model-shape', settings, model });
  const data = await o.data!.windows(reader, shape.maxPositions);
  const longest = data.sequences.reduce((most, s) => Math.max(most, s.length), 0);
  if (longest === 0) throw new PithError('DATASET_EMPTY', { file: data.name, message: 'it gives no tokens' });
  if (longest > shape.maxPositions) throw new PithError('SEQLEN', { file: o.checkpoint, expected: shape.maxPositions, got: longest });
  const watched = new Set(shape.blocks.flatMap((b) => b.linears.map((l) => l.module)));
  const other = layers.find((l) => !watched.has(l.module));
  if (other !== undefined) throw new PithError('USAGE', { message: `${o.checkpoint}: the inputs of "${other.module}" cannot be watched; --exclude it` });
  return planBlocks(o, pruners, layers, { model, shape, data, longest, settings });
}

function identityOf(o: PruneOptions, refs: object, layers: readonly LinearLayer[], blocks: BlockPlan | undefined): object {
  const { choose, update, seed, save, oneShot, trueSequential, saveMask } = o;
  const stats = o.stats === undefined ? undefined : { file: o.stats, ...io.stat(o.stats) };
  const modules = layers.map((l) => l.module);
  const text = blocks === undefined ? o.data?.identity : { device: blocks.settings.device, tokens: hashTokens(blocks.data.sequences), memory: blocks.memory };
  return {
    command: JOB,
    version: pithVersion(),
    ...refs,
    choose,
    update,
    seed,
    save,
    oneShot,
    trueSequential,
    saveMask: saveMask !== undefined,
    stats,
    text,
    modules,
  };
}

function predict(
  o: PruneOptions,
  reader: CheckpointReader,
  pruners: Pruners,
  layers: readonly LinearLayer[],
  withGram: boolean,
  blocks: BlockPlan | undefined,
): PrunePrediction {
  const layersPeak = peakBytes(o, layers, (l) => layerBytes(pruners, l, withGram));
  const spoolBytes = (blocks?.spoolBytes ?? 0) + (o.saveMask === undefined ? 0 : maskBytes(layers));
  return { bytes: totalByteLength(reader.infos.values()), spoolBytes, peakBytes: MAIN_BYTES + Math.max(layersPeak, blocks?.peakBytes ?? 0) };
}

async function* run(r: Run, blocks: BlockPlan | undefined): AsyncGenerator<ProgressEvent, PruneReport, void> {
  const { o, reader, layers, pruners, journal } = r;
  const layersRun = { ...r, job: JOB, spool: (name: string) => journal.spool(name) };
  const before = journal.done.get('source')?.result as string | undefined;
  const source = yield* sourceHash(layersRun, before);
  if (before === undefined) journal.append('source', { parts: [], result: source });
  const out = prepareOutput(r, metadataOf(r, source, 0));
  const results =
    blocks === undefined
      ? yield* pruneLayers(r, out, yield* layerStatistics(layersRun, pruners.needs, layers, source))
      : yield* pruneBlocks(r, out, blocks, source);
  yield* copyOthers(r, out);
  if (o.save === 'sparse' || !o.out.endsWith('.safetensors')) await sideFiles(reader, journal.spool(RESULT), out.files.files);
  out.files.restate(metadataOf(r, source, achieved(results.values())));
  out.files.finish();
  out.mask?.finish();
  const bytes = o.save === 'sparse' ? yield* encodeSparse(r) : out.files.bytes;
  return { ...report(o, reader, layers, pruners, results), bytes, source };
}

/** The dense result as a sparse container: its size. */
async function* encodeSparse({ o, journal }: Run): AsyncGenerator<ProgressEvent, number, void> {
  const { threads, maxMemoryBytes, seed, device, signal } = o;
  const run = { threads, maxMemoryBytes, seed, device, signal, force: true, dryRun: false, resume: false };
  const { bytes } = yield* deltaEncode({
    ...run,
    base: undefined,
    tuned: journal.spool(RESULT),
    title: basename(o.out, '.safetensors'),
    out: journal.spool(SPARSE),
    method: 'pruned',
    params: {},
    selects: () => true,
  });
  return bytes;
}

/** What the output says of itself. The share of zeros is known at the end, and has as many digits at the start. */
function metadataOf({ o, layers, reader, pruners }: Run, source: string, share: number): Record<string, string> {
  const { choose, update } = o;
  const target = ratioOf(choose);
  const by = 'method' in choose ? { ...choose.method, target: choose.target } : { name: 'mask', combine: choose.combine };
  const from = { model: checkpointName(o.checkpoint), source, layers: layers.length, of: reader.infos.size };
  return {
    sparsity: `{"target":${target === undefined ? 'null' : String(target)},"achieved":${share.toFixed(6)},"structure":${JSON.stringify(structureOf(choose))}}`,
    'pith.prune': JSON.stringify({
      version: pithVersion(),
      method: by,
      ...(update === undefined ? {} : { update }),
      mode: modeOf(o, pruners),
      seed: o.seed,
      ...from,
    }),
  };
}

function modeOf(o: PruneOptions, { needs }: Pruners): string {
  if (needs.length === 0 && o.stats === undefined) return 'weights';
  if (o.stats !== undefined) return 'stats';
  return o.oneShot ? 'one-shot' : o.trueSequential ? 'true-sequential' : 'sequential';
}

function report(
  o: PruneOptions,
  reader: CheckpointReader,
  layers: readonly LinearLayer[],
  pruners: Pruners,
  results: ReadonlyMap<string, PruneResult>,
): PruneReport {
  const tensors = layers.flatMap((l) => (results.has(l.module) ? [tensorReport(l, results.get(l.module)!)] : []));
  const target = ratioOf(o.choose);
  return {
    out: o.out,
    method: 'method' in o.choose ? o.choose.method.name : 'mask',
    ...(o.update === undefined ? {} : { update: o.update.name }),
    structure: structureOf(o.choose),
    ...(target === undefined ? {} : { target }),
    sparsity: achieved(results.values()),
    mode: modeOf(o, pruners),
    bytes: 0,
    rawBytes: totalByteLength(reader.infos.values()),
    device: 'cpu',
    ...(o.saveMask === undefined ? {} : { mask: o.saveMask }),
    layers: layers.length,
    tensors,
    warnings: doubts(tensors),
  };
}
