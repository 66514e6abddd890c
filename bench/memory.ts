/**
 * Peak resident memory of encode, restore and verify of checkpoints far larger than --max-memory:
 *   node dist/bench/memory.js [--gb 24] [--verify-gb 48] [--max-memory 1GB] [--dir DIR]
 * Makes a sharded bf16 pair of the shape of a Llama (4096 wide, 14336 inside, 128256 tokens) with as many layers as fit: sparse files,
 * one layer in seven and one embedding row in seven changed and stored for real, holes (zeros, equal in both) elsewhere.
 * Needs room in DIR for the restored checkpoint (it has no holes) and for the changed data of base and tuned.
 * Limit: max-memory + 200 MB + the largest tensor in f32; and the peaks of the two sizes within 10 %. Everything is deleted at the end.
 */
import { closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, readdirSync, rmSync, statfsSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeAs } from '../core/float.js';
import { Rng } from '../core/rng.js';
import { byteLength, elementCount } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import { buildHeader, canonicalOrder } from '../formats/safetensors/layout.js';
import { parseSize } from '../cli/sizes.js';
import { hashFile, machine, MB, option, pith, seconds, table, verdicts, type Run } from './support.js';

const [HIDDEN, INNER, KEYS, TOKENS] = [4096, 14336, 1024, 128256];
const SHARD_BYTES = 5e9;
/** One layer, and one block of embedding rows, in so many is changed. */
const CHANGED_EVERY = 7;
const BLOCK_ELEMENTS = 1 << 22;

const bf16 = (name: string, shape: number[]): TensorInfo => ({ name, dtype: 'BF16', shape });

function layer(i: number): TensorInfo[] {
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

function model(bytes: number): TensorInfo[] {
  const all = [bf16('model.embed_tokens.weight', [TOKENS, HIDDEN]), bf16('lm_head.weight', [TOKENS, HIDDEN])];
  let total = all.reduce((sum, t) => sum + byteLength(t.dtype, t.shape), 0);
  for (let i = 0; ; i++) {
    const next = layer(i);
    total += next.reduce((sum, t) => sum + byteLength(t.dtype, t.shape), 0);
    if (total > bytes) return all;
    all.push(...next);
  }
}

/** Ranges of a tensor, in bytes, that hold real data. */
function* changedRanges(t: TensorInfo): Generator<[number, number]> {
  const bytes = byteLength(t.dtype, t.shape);
  const at = /layers\.(\d+)\./.exec(t.name)?.[1];
  if (at !== undefined) {
    if (Number(at) % CHANGED_EVERY === 0) yield [0, bytes];
    return;
  }
  for (let b = 0; b < bytes; b += CHANGED_EVERY * 8 * MB) yield [b, Math.min(bytes, b + 8 * MB)];
}

/** A block of weights (standard deviation 0.02) and the same after a small step; written again and again, shifted. */
function blocks(): { base: Uint8Array; tuned: Uint8Array } {
  const w = new Rng(1).normals(BLOCK_ELEMENTS).map((v) => v * 0.02);
  const d = new Rng(2).normals(BLOCK_ELEMENTS);
  return {
    base: encodeAs('BF16', w),
    tuned: encodeAs(
      'BF16',
      w.map((v, i) => v + d[i]! * 1e-4),
    ),
  };
}

function writeCheckpoint(folder: string, tensors: readonly TensorInfo[], block: Uint8Array): { bytes: number; changed: number } {
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
      for (const [from, to] of changedRanges(t)) {
        changed += to - from;
        for (let at = from; at < to;) {
          const n = Math.min(to - at, block.length);
          writeSync(fd, block, 0, n, header.length + offsets.get(t.name)!.begin + at);
          at += n;
        }
      }
    }
    closeSync(fd);
  });
  writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ metadata: { total_size: total }, weight_map: weightMap }));
  return { bytes: total, changed };
}

/** Bytes that the files take on disk, holes not counted. */
const onDisk = (folder: string): number => readdirSync(folder).reduce((sum, f) => sum + statSync(join(folder, f)).blocks * 512, 0);

const gb = Number(option('gb', '24'));
const verifyGb = Number(option('verify-gb', '48'));
const maxMemory = option('max-memory', '1GB');
const dir = mkdtempSync(join(option('dir', tmpdir()), 'pith-bench-memory-'));
const p = (name: string): string => join(dir, name);
const free = (): number => statfsSync(dir).bavail * statfsSync(dir).bsize;
const rows: string[][] = [];
const peaks = new Map<string, number>();
const largest = byteLength('F32', [TOKENS, HIDDEN]);
const limit = parseSize(maxMemory) + 200 * MB + largest;

async function measure(size: number, verb: string, bytes: number, args: string[]): Promise<Run> {
  const r = await pith(['delta', verb, ...args, '--max-memory', maxMemory, '-j', '2', '--quiet']);
  peaks.set(`${verb} ${size}`, r.peakBytes);
  rows.push([
    `delta ${verb}, ${size} GB`,
    (bytes / MB).toFixed(0),
    seconds(r.ms),
    (bytes / MB / (r.ms / 1000)).toFixed(0),
    (r.peakBytes / MB).toFixed(0),
    (limit / MB).toFixed(0),
  ]);
  console.log(`  ${rows.at(-1)!.join('  ')}`);
  return r;
}

try {
  console.log(`${machine()}; ${(free() / 1e9).toFixed(0)} GB free\n`);
  const block = blocks();
  const restored: string[] = [];
  for (const size of [gb, verifyGb]) {
    const tensors = model(size * 1e9);
    const elements = tensors.reduce((sum, t) => sum + elementCount(t.shape), 0);
    const { bytes, changed } = writeCheckpoint(p('base'), tensors, block.base);
    writeCheckpoint(p('tuned'), tensors, block.tuned);
    console.log(
      `${size} GB: ${tensors.length} tensors, ${(elements / 1e9).toFixed(2)} G elements, ${((changed / bytes) * 100).toFixed(1)} % changed, ` +
        `${(onDisk(p('tuned')) / 1e9).toFixed(1)} GB of the tuned files on disk`,
    );
    await measure(size, 'encode', bytes, ['--base', p('base'), '--tuned', p('tuned'), '--out', p('d.safetensors')]);
    await measure(size, 'verify', bytes, ['--base', p('base'), '--delta', p('d.safetensors')]);
    if (free() < bytes + 2e9) restored.push(`${size} GB: not restored, the disk has only ${(free() / 1e9).toFixed(0)} GB free`);
    else if (size === gb) {
      await measure(size, 'restore', bytes, ['--base', p('base'), '--delta', p('d.safetensors'), '--out', p('back')]);
      console.log(`  the restored files take ${(onDisk(p('back')) / 1e9).toFixed(1)} GB on disk`);
      const files = readdirSync(p('tuned'));
      for (const f of files) if (hashFile(join(p('tuned'), f)) !== hashFile(join(p('back'), f))) throw new Error(`restored ${f} differs`);
      restored.push(`${size} GB: ${files.length} of ${files.length} restored files equal by sha256`);
    }
    for (const name of ['base', 'tuned', 'back', 'd.safetensors']) rmSync(p(name), { recursive: true, force: true });
  }
  console.log(`\n${table(['', 'MB', 's', 'MB/s', 'peak RSS, MB', 'limit, MB'], rows)}\n\n${restored.join('\n')}`);
  const within = (verb: string): boolean => {
    const [a, b] = [peaks.get(`${verb} ${gb}`)!, peaks.get(`${verb} ${verifyGb}`)!];
    return Math.max(a, b) <= 1.1 * Math.min(a, b);
  };
  verdicts([
    [`every peak <= ${(limit / MB).toFixed(0)} MB (${maxMemory} + 200 MB + ${(largest / MB).toFixed(0)} MB)`, [...peaks.values()].every((v) => v <= limit)],
    [`the peaks of ${gb} and ${verifyGb} GB within 10 %: encode`, within('encode')],
    [`the peaks of ${gb} and ${verifyGb} GB within 10 %: verify`, within('verify')],
  ]);
} finally {
  rmSync(dir, { recursive: true, force: true });
}
