/** Checkpoints of the shape of an 8 B Llama that take hardly any disk: what the memory benches run on. */
import { closeSync, ftruncateSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { byteLength } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import { buildHeader, canonicalOrder } from '../formats/safetensors/layout.js';

export const [HIDDEN, INNER, KEYS, TOKENS] = [4096, 14336, 1024, 128256];
const SHARD_BYTES = 5e9;

export const bf16 = (name: string, shape: number[]): TensorInfo => ({ name, dtype: 'BF16', shape });

export function layer(i: number): TensorInfo[] {
  const p = `model.layers.${i}`;
  return [
    bf16(`${p}.self_attn.q_proj.weight`, [HIDDEN, HIDDEN]),
    bf16(`${p}.self_attn.k_proj.weight`, [KEYS, HIDDEN]),
    bf16(`${p}.self_attn.v_proj.weight`, [KEYS, HIDDEN]),
    bf16(`${p}.self_attn.o_proj.weight`, [HIDDEN, HIDDEN]),
    bf16(`${p}.mlp.gate_proj.weight`, [INNER, HIDDEN]),
    bf16(`${p}.mlp.up_proj.weight`, [INNER, HIDDEN]),
    bf16(`${p}.mlp.down_proj.weight`, [HIDDEN, INNER]),
    bf16(`${p}.input_layernorm.weight`, [HIDDEN]),
    bf16(`${p}.post_attention_layernorm.weight`, [HIDDEN]),
  ];
}

/** What stands before and after the layers, the final norm left out. */
export const ends = (): TensorInfo[] => [bf16('model.embed_tokens.weight', [TOKENS, HIDDEN]), bf16('lm_head.weight', [TOKENS, HIDDEN])];

/** What of a checkpoint is no hole: in these ranges of each tensor's bytes the block lies, again and again. */
export interface Filled {
  readonly block: Uint8Array;
  readonly ranges: (t: TensorInfo) => Iterable<readonly [from: number, to: number]>;
}

/** Shards and their index; zeros (holes of the file system) where nothing is `filled`. */
export function writeSparse(folder: string, tensors: readonly TensorInfo[], filled?: Filled): { bytes: number; changed: number } {
  mkdirSync(folder);
  const shards: TensorInfo[][] = [[]];
  let size = 0;
  for (const t of canonicalOrder(tensors)) {
    const bytes = byteLength(t.dtype, t.shape);
    if (size + bytes > SHARD_BYTES) {
      shards.push([]);
      size = 0;
    }
    shards.at(-1)!.push(t);
    size += bytes;
  }
  const weightMap: Record<string, string> = {};
  let [total, changed] = [0, 0];
  shards.forEach((infos, i) => {
    const name = `model-${String(i + 1).padStart(5, '0')}-of-${String(shards.length).padStart(5, '0')}.safetensors`;
    const { header, offsets, fileBytes } = buildHeader(infos, { format: 'pt' }, name);
    const fd = openSync(join(folder, name), 'w');
    ftruncateSync(fd, fileBytes);
    writeSync(fd, header, 0, header.length, 0);
    for (const t of infos) {
      weightMap[t.name] = name;
      total += byteLength(t.dtype, t.shape);
      for (const [from, to] of filled?.ranges(t) ?? []) {
        changed += to - from;
        for (let at = from; at < to;) {
          const n = Math.min(to - at, filled!.block.length);
          writeSync(fd, filled!.block, 0, n, header.length + offsets.get(t.name)!.begin + at);
          at += n;
        }
      }
    }
    closeSync(fd);
  });
  writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ metadata: { total_size: total }, weight_map: weightMap }));
  return { bytes: total, changed };
}
