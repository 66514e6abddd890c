/** Small adapters and bases for tests. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeF32, encodeAs } from '../../core/float.js';
import type { Pipeline } from '../../core/events.js';
import type { Rng } from '../../core/rng.js';
import type { TensorView } from '../../core/tensor.js';
import { openAny } from '../../workers/open.js';
import { writeSafetensors } from './files.js';

export const RUN = { threads: 2, maxMemoryBytes: 1e9, seed: 0, device: 'cpu' as const, signal: new AbortController().signal };
export const WRITE = { force: false, dryRun: false };
export const PREFIX = 'base_model.model.';

export async function drain<R>(pipeline: Pipeline<R>): Promise<R> {
  for (;;) {
    const step = await pipeline.next();
    if (step.done === true) return step.value;
  }
}

export const view = (name: string, shape: readonly number[], values: Float32Array, dtype: 'BF16' | 'F16' | 'F32' = 'F32'): TensorView => ({
  name,
  dtype,
  shape,
  bytes: encodeAs(dtype, values),
});

/** A tensor of standard normals. */
export const random = (rng: Rng, name: string, ...shape: number[]): TensorView => view(name, shape, rng.normals(shape.reduce((a, b) => a * b, 1)));

/** Config fields beyond peft_type, r 4 and lora_alpha 8. */
export function writeAdapter(folder: string, tensors: readonly TensorView[], config: Readonly<Record<string, unknown>> = {}): string {
  mkdirSync(folder, { recursive: true });
  writeSafetensors(join(folder, 'adapter_model.safetensors'), tensors, { format: 'pt' });
  writeFileSync(join(folder, 'adapter_config.json'), JSON.stringify({ peft_type: 'LORA', r: 4, lora_alpha: 8, target_modules: ['q'], ...config }));
  return folder;
}

export function writeBase(folder: string, tensors: readonly TensorView[], config: Readonly<Record<string, unknown>> = {}): string {
  mkdirSync(folder, { recursive: true });
  writeSafetensors(join(folder, 'model.safetensors'), tensors, { format: 'pt' });
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ model_type: 'llama', architectures: ['LlamaForCausalLM'], ...config }, null, 2));
  return folder;
}

/** Every tensor of a checkpoint as f32. */
export async function load(path: string): Promise<Map<string, Float32Array>> {
  await using reader = await openAny(path);
  const out = new Map<string, Float32Array>();
  for (const [name, info] of reader.infos) out.set(name, decodeF32(info.dtype, (await reader.read(name)).bytes));
  return out;
}

/** max |a - b| / max |b| */
export function maxError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [error, top] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    error = Math.max(error, Math.abs(a[i]! - b[i]!));
    top = Math.max(top, Math.abs(b[i]!));
  }
  return a.length === b.length ? error / top : Infinity;
}
