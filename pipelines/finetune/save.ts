/** What a run leaves: the adapter, the merged model, or that model as a delta against its base; all in one folder. */
import { join } from 'node:path';
import type { ProgressEvent } from '../../core/events.js';
import type { TensorInfo } from '../../core/tensor.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import * as io from '../../formats/io.js';
import { prepareFiles } from '../../formats/safetensors/prepared.js';
import { modulesOf, shortestNames, type ModelConfig } from '../../models/modules.js';
import type { TrainMergeTask } from '../../workers/messages/train.js';
import type { WorkerPool } from '../../workers/pool.js';
import { deltaEncode } from '../delta-encode.js';
import { RESULT } from '../publish.js';
import type { RunOptions } from '../run-options.js';
import { writeSideFiles } from '../write-side-files.js';

export const SAVE_KINDS = ['adapter', 'delta', 'model'] as const;
export type SaveKind = (typeof SAVE_KINDS)[number];

interface SaveRun {
  readonly o: RunOptions & { readonly checkpoint: string; readonly save: readonly SaveKind[] };
  readonly pool: WorkerPool;
  readonly reader: CheckpointReader;
  readonly journal: { spool(name: string): string };
  /** Trained ones. */
  readonly modules: readonly string[];
  readonly config: ModelConfig;
  readonly base: string;
  readonly taskType: string | null;
  readonly linears: readonly string[];
}

/** Names of what was written in the result's folder. An adapter alone is the folder itself; beside others each has a name of its own. */
export async function* saveOutputs(s: SaveRun): AsyncGenerator<ProgressEvent, string[], void> {
  const { o, journal } = s;
  const result = journal.spool(RESULT);
  io.remove(result);
  io.mkdir(result);
  const place = (name: string): string => (o.save.length === 1 && name !== 'delta.safetensors' ? result : join(result, name));
  const saved: string[] = [];
  if (o.save.includes('adapter')) {
    yield { type: 'phase', job: 'finetune', phase: 'adapter' };
    await saveAdapter(s, place('adapter'));
    saved.push('adapter');
  }
  if (o.save.includes('model') || o.save.includes('delta')) {
    yield { type: 'phase', job: 'finetune', phase: 'model' };
    const model = o.save.includes('model') ? place('model') : journal.spool('model');
    io.remove(model);
    await saveModel(s, model);
    if (o.save.includes('delta')) {
      const { threads, maxMemoryBytes, seed, device, signal } = o;
      const run = { threads, maxMemoryBytes, seed, device, signal, force: true, dryRun: false, resume: false };
      yield* deltaEncode({ ...run, base: o.checkpoint, tuned: model, out: place('delta.safetensors'), method: 'lossless', params: {}, selects: () => true });
      saved.push('delta');
    }
    if (o.save.includes('model')) saved.push('model');
  }
  return saved;
}

type Parts = Pick<SaveRun, 'pool' | 'reader' | 'modules' | 'config' | 'base' | 'taskType' | 'linears'>;

async function saveAdapter({ pool, reader, modules, config, base, taskType, linears }: Parts, folder: string): Promise<void> {
  // what peft calls a module may have a prefix that the checkpoint leaves out
  const known = new Map(modulesOf(reader.infos, config).modules.map((m) => [m.weight.slice(0, -'.weight'.length), m.path]));
  const pathOf = (module: string): string => known.get(module) ?? module;
  const paths = Object.fromEntries(modules.map((m) => [m, pathOf(m)]));
  const targetModules = shortestNames(Object.values(paths), [...linears.map(pathOf), ...known.values()], 'whole');
  await pool.run({ type: 'train-adapter', folder, base, taskType, paths, targetModules });
}

async function saveModel({ pool, reader, modules }: Parts, folder: string): Promise<void> {
  const trained = new Set(modules);
  const parts = new Map<string, { module: string; part: 'weight' | 'bias' }>();
  for (const module of trained) for (const part of ['weight', 'bias'] as const) parts.set(`${module}.${part}`, { module, part });
  const infos = [...reader.infos.values()].map((info): TensorInfo => (parts.has(info.name) ? { ...info, dtype: storedType(info) } : info));
  const files = prepareFiles(folder, infos, { single: false });
  const tensors: TrainMergeTask['tensors'][number][] = [];
  for (const info of infos) {
    const own = parts.get(info.name);
    const at = files.places.get(info.name)!;
    if (own !== undefined) tensors.push({ ...own, dtype: storedType(info), place: at });
    else await copyTensor(reader, info, at);
  }
  await pool.run({ type: 'train-merge', tensors });
  await writeSideFiles(reader, folder);
  files.finish();
}

/** Of a trained tensor: quantized ones become bf16. */
function storedType({ dtype }: TensorInfo): 'BF16' | 'F16' | 'F32' {
  return dtype === 'F32' || dtype === 'F16' ? dtype : 'BF16';
}

async function copyTensor(reader: CheckpointReader, info: TensorInfo, { file, position }: { readonly file: string; readonly position: number }): Promise<void> {
  const { bytes } = await reader.read(info.name);
  const fd = io.openWrite(file, 'r+');
  try {
    io.writeFully(fd, bytes, position, file);
  } finally {
    io.close(fd);
  }
}
