/**
 * Peak resident memory of encode, restore and verify of checkpoints far larger than --max-memory:
 *   node dist/bench/memory.js [--gb 24] [--verify-gb 48] [--max-memory 1GB] [--dir DIR]
 * Makes a sharded bf16 pair of the shape of a Llama (4096 wide, 14336 inside, 128256 tokens) with as many layers as fit: sparse files,
 * one layer in seven and one embedding row in seven changed and stored for real, holes (zeros, equal in both) elsewhere.
 * Needs room in DIR for the restored checkpoint (it has no holes) and for the changed data of base and tuned.
 * Limit: max-memory + 200 MB + the largest tensor in f32; and the peaks of the two sizes within 10 %. Everything is deleted at the end.
 */
import { mkdtempSync, readdirSync, rmSync, statfsSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeAs } from '../core/float.js';
import { Rng } from '../core/rng.js';
import { byteLength, elementCount } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import { parseSize } from '../cli/sizes.js';
import { ends, HIDDEN, layer, TOKENS, writeSparse } from './synthetic.js';
import { hashFile, machine, MB, option, pith, seconds, table, verdicts, type Run } from './support.js';

/** One layer, and one block of embedding rows, in so many is changed. */
const CHANGED_EVERY = 7;
const BLOCK_ELEMENTS = 1 << 22;

function model(bytes: number): TensorInfo[] {
  const all = ends();
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
    const { bytes, changed } = writeSparse(p('base'), tensors, { block: block.base, ranges: changedRanges });
    writeSparse(p('tuned'), tensors, { block: block.tuned, ranges: changedRanges });
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
