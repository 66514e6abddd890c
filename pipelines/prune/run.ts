/** What the parts of a prune run share: the output that is being filled, the task of a layer, what is known of those that are done. */
import { relative } from 'node:path';
import { byteLength } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import type { ProgressEvent } from '../../core/events.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import { prepareFiles, type PreparedFiles } from '../../formats/safetensors/prepared.js';
import type { FuseTask } from '../../workers/messages/adapters.js';
import type { PruneResult, PruneTask, ScoreCut } from '../../workers/messages/layers.js';
import type { CheckpointRef, FilePlace, LayerRef, Written } from '../../workers/messages/refs.js';
import type { Sparsity } from '../../methods/kinds.js';
import type { WorkerPool } from '../../workers/pool.js';
import type { Journal } from '../journal.js';
import type { LinearLayer } from '../linear-layers.js';
import { RESULT } from '../publish.js';
import { runSettings } from '../run-options.js';
import { runJobs, type Job } from '../schedule.js';
import type { SpoolPart, StepDone } from '../steps.js';
import { layerBytes, maskInfos, shardsOf, type PruneOptions, type Pruners } from './plan.js';

export const JOB = 'prune';
export const MASK = 'mask.safetensors';
/** The sparse container, made of the dense result. */
export const SPARSE = 'sparse.safetensors';
const COPY_BYTES = 48 << 20;

export interface Run {
  readonly o: PruneOptions;
  readonly reader: CheckpointReader;
  readonly ref: CheckpointRef;
  readonly masks: readonly CheckpointRef[];
  /** Before fine-tuning. */
  readonly base?: CheckpointRef;
  readonly pruners: Pruners;
  readonly layers: readonly LinearLayer[];
  readonly pool: WorkerPool;
  readonly journal: Journal<StepDone>;
  readonly withGram: boolean;
}

export interface Output {
  readonly files: PreparedFiles;
  readonly mask?: PreparedFiles;
}

/** Headers of the result in the spool; what an earlier run wrote into it stays. */
export function prepareOutput({ o, reader, layers, journal }: Run, metadata: Readonly<Record<string, string>>): Output {
  const single = o.save === 'dense' && o.out.endsWith('.safetensors');
  const shards = shardsOf(reader);
  const infos = [...reader.infos.values()];
  const files = prepareFiles(journal.spool(RESULT), infos, { single, resume: true, metadata, ...(shards === undefined ? {} : { files: shards }) });
  if (o.saveMask === undefined) return { files };
  const mask = prepareFiles(journal.spool(MASK), maskInfos(layers), { single: true, resume: true, metadata: { 'pith.format': 'mask' } });
  return { files, mask };
}

export interface LayerSource {
  readonly stats?: string;
  readonly cut?: ScoreCut;
  /** Where the weight goes beside the output. */
  readonly beside?: FilePlace;
}

export function layerRef({ ref, base }: Run, l: LinearLayer, stats: string | undefined): LayerRef {
  const tensor = { checkpoint: ref, name: l.weight.name };
  return { tensor, module: l.module, transposed: l.transposed, ...(base === undefined ? {} : { base }), ...(stats === undefined ? {} : { stats }) };
}

export function layerJob(r: Run, out: Output, l: LinearLayer, { stats, cut, beside }: LayerSource): Job<PruneTask> {
  const { o, masks, pruners, withGram } = r;
  const { choose } = o;
  const layer = layerRef(r, l, stats);
  const task: PruneTask = {
    type: 'prune',
    settings: runSettings(o, 'cpu'),
    layer,
    choose: 'method' in choose ? { method: choose.method, target: cut ?? (choose.target as Sparsity) } : { masks, combine: choose.combine },
    ...(o.update === undefined ? {} : { update: o.update }),
    places: [out.files.places.get(l.weight.name)!, ...(beside === undefined ? [] : [beside])],
    ...(out.mask === undefined ? {} : { mask: out.mask.places.get(l.weight.name)! }),
  };
  return { task, label: l.module, bytes: byteLength(l.weight.dtype, l.weight.shape), memoryBytes: layerBytes(pruners, l, withGram) };
}

/** What a layer's task left in the output, for the journal. */
export function partsOf({ journal }: Run, out: Output, l: LinearLayer, { written, maskWritten }: PruneResult): SpoolPart[] {
  const part = ({ file, position }: FilePlace, w: Written): SpoolPart => ({ file: relative(journal.spool(''), file), position, ...w });
  const weight = part(out.files.places.get(l.weight.name)!, written[0]!);
  return maskWritten === undefined ? [weight] : [weight, part(out.mask!.places.get(l.weight.name)!, maskWritten)];
}

/** Names in the spool of all that outlasts the run's steps. */
export const outputNames = ({ journal }: Run, out: Output): string[] =>
  [...out.files.files, ...(out.mask?.files ?? [])].map((file) => relative(journal.spool(''), file));

/** Every tensor that is no layer, as it is. Done anew in every run: it costs little, and nothing is to be proven. */
export async function* copyOthers(r: Run, out: Output): AsyncGenerator<ProgressEvent, void, void> {
  const { o, reader, ref, layers, pool } = r;
  const taken = new Set(layers.map((l) => l.weight.name));
  const others = [...reader.infos.values()].filter((t) => !taken.has(t.name));
  const jobs = others.map(({ name, dtype, shape }: TensorInfo): Job<FuseTask> => {
    const task: FuseTask = { type: 'fuse', settings: runSettings(o, 'cpu'), base: { checkpoint: ref, name }, dtype, target: out.files.places.get(name)! };
    return { task, label: name, bytes: byteLength(dtype, shape), memoryBytes: COPY_BYTES };
  });
  const totalBytes = jobs.reduce((sum, j) => sum + j.bytes, 0);
  yield { type: 'phase', job: JOB, phase: 'other tensors' };
  yield* runJobs(jobs, { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes, doneBytes: pool.doneBytes }, () => undefined);
}

export function layerDone({ o }: Run, l: LinearLayer): ProgressEvent {
  const rawBytes = byteLength(l.weight.dtype, l.weight.shape);
  return { type: 'tensor.done', job: JOB, tensor: l.weight.name, method: 'method' in o.choose ? o.choose.method.name : 'mask', bytes: rawBytes, rawBytes };
}
