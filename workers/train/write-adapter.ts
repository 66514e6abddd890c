/** A trained adapter on disk: as peft names and shapes it, or in pith's own form (adapter tensors by module, what they are in the header). */
import { join } from 'node:path';
import { encodeAs } from '../../core/float.js';
import type { TensorInfo } from '../../core/tensor.js';
import { ADAPTER_FILE, CONFIG_FILE, KEY_PREFIX } from '../../formats/adapter/adapter.js';
import * as io from '../../formats/io.js';
import { prepareFiles } from '../../formats/safetensors/prepared.js';
import type { TrainAdapterTask } from '../messages/train.js';
import type { TrainSession } from './session.js';

export const NATIVE_FILE = 'pith_adapter.safetensors';
export const NATIVE_CONFIG = 'pith_adapter.json';

export function writeAdapter(session: TrainSession, task: TrainAdapterTask): { readonly peft: boolean } {
  const { peft } = session.source.adapter;
  const { layers } = session.trainables;
  const tensors = new Map<string, { info: TensorInfo; values: Float32Array }>();
  for (const { layer, plan, values, frozen } of layers) {
    const specs = { ...plan.frozen, ...plan.trainable };
    for (const [name, { shape }] of Object.entries(specs)) {
      if (peft !== undefined && peft.keys[name] === undefined) continue;
      const path = task.paths[layer.module] ?? layer.module;
      const key = peft === undefined ? `${path}.${name}` : `${KEY_PREFIX}${path}.${peft.keys[name]!}`;
      tensors.set(key, { info: { name: key, dtype: 'F32', shape: [...shape] }, values: values[name] ?? frozen[name]! });
    }
  }
  io.mkdir(task.folder);
  const infos = [...tensors.values()].map((t) => t.info);
  const file = join(task.folder, peft === undefined ? NATIVE_FILE : ADAPTER_FILE);
  const prepared = prepareFiles(file, infos, { single: true, ...(peft === undefined ? { metadata: { format: 'pith-adapter/1' } } : {}) });
  for (const [key, { values }] of tensors) write(prepared.places.get(key)!, encodeAs('F32', values));
  prepared.finish();
  const transposed = layers[0]?.transposed === true;
  const own = peft?.config(
    layers.map((l) => ({ ...l.layer, module: task.paths[l.layer.module] ?? l.layer.module })),
    transposed,
    task.targetModules,
  );
  const document: Record<string, unknown> = {
    auto_mapping: null,
    base_model_name_or_path: task.base,
    inference_mode: true,
    revision: null,
    target_modules: task.targetModules,
    task_type: task.taskType,
    ...(peft === undefined ? {} : { peft_type: peft.type, peft_version: '0.21.2' }),
    ...own,
  };
  const sorted = Object.fromEntries(Object.entries(document).sort(([a], [b]) => (a < b ? -1 : 1)));
  io.writeFileDurably(join(task.folder, peft === undefined ? NATIVE_CONFIG : CONFIG_FILE), Buffer.from(`${JSON.stringify(sorted, null, 2)}\n`, 'utf8'));
  return { peft: peft !== undefined };
}

function write({ file, position }: { readonly file: string; readonly position: number }, bytes: Uint8Array): void {
  const fd = io.openWrite(file, 'r+');
  try {
    io.writeFully(fd, bytes, position, file);
  } finally {
    io.close(fd);
  }
}
