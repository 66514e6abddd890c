/**
 * Exact round trips of real checkpoints, compared file by file with SHA-256 (what `sha256sum` of the folder would say):
 *   node dist/bench/roundtrip.js BASE [TUNED] [--shard-size 60MB]
 * Without TUNED a perturbed copy of BASE is made: every third value of a float tensor moves by a thousandth of itself, one tensor in five is
 * left as it is. With --shard-size both are written again in shards of that size first (the tuned ones half as large).
 */
import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseSize } from '../cli/sizes.js';
import { decodeF32, encodeAs } from '../core/float.js';
import { Rng } from '../core/rng.js';
import { byteLength } from '../core/shape.js';
import type { TensorView } from '../core/tensor.js';
import { checkpointFolder, listSideFiles } from '../formats/open-checkpoint.js';
import { SafetensorsWriter } from '../formats/safetensors/writer.js';
import { openAny } from '../workers/open.js';
import { assertSameTree, hashTree, machine, MB, option, pith, seconds, table, workFolder } from './support.js';

const [base, tuned] = process.argv.slice(2).filter((a, i, all) => !a.startsWith('--') && all[i - 1] !== '--shard-size') as [
  string | undefined,
  string | undefined,
];
if (base === undefined) throw new Error('node dist/bench/roundtrip.js BASE [TUNED] [--shard-size 60MB]');
const shardSize = option('shard-size', '');

/** Writes a checkpoint anew, its side files with it. */
async function rewrite(from: string, to: string, shardBytes: number | undefined, change: (t: TensorView, i: number) => TensorView): Promise<void> {
  await using reader = await openAny(from);
  const infos = [...reader.infos.values()];
  const single = shardBytes === undefined;
  mkdirSync(to);
  const writer = new SafetensorsWriter(single ? join(to, 'model.safetensors') : to, infos, single ? {} : { shardBytes });
  for (const [i, info] of infos.entries()) {
    const bytes = new Uint8Array(byteLength(info.dtype, info.shape));
    await reader.readInto(info.name, 0, bytes);
    await writer.write(change({ ...info, bytes }, i));
  }
  await writer.finalize();
  const folder = checkpointFolder(from);
  if (folder !== undefined) for (const f of listSideFiles(folder, reader.files)) cpSync(f.path, join(to, f.name), { recursive: true });
}

function perturbed(t: TensorView, i: number): TensorView {
  if (i % 5 === 0 || !['F32', 'F16', 'BF16'].includes(t.dtype)) return t;
  const rng = new Rng(i);
  const values = Float32Array.from(decodeF32(t.dtype, t.bytes), (v, j) => (j % 3 === 0 ? v * (1 + 1e-3 * rng.normal()) : v));
  return { ...t, bytes: encodeAs(t.dtype as 'F32' | 'F16' | 'BF16', values) };
}

using work = workFolder('roundtrip');
const at = (name: string): string => join(work.path, name);
let pair: { base: string; tuned: string } = { base, tuned: tuned ?? at('tuned') };
const shardBytes = shardSize === '' ? undefined : parseSize(shardSize);
if (tuned === undefined) await rewrite(base, at('tuned'), undefined, perturbed);
if (shardBytes !== undefined) {
  await rewrite(pair.base, at('base-sharded'), shardBytes, (t) => t);
  await rewrite(pair.tuned, at('tuned-sharded'), shardBytes / 2, (t) => t);
  pair = { base: at('base-sharded'), tuned: at('tuned-sharded') };
}
const encoded = await pith(['delta', 'encode', '--base', pair.base, '--tuned', pair.tuned, '--out', at('d.safetensors'), '--json']);
const restored = await pith(['delta', 'restore', '--base', pair.base, '--delta', at('d.safetensors'), '--out', at('back')]);
const verified = await pith(['delta', 'verify', '--base', pair.base, '--delta', at('d.safetensors'), '--tuned', pair.tuned]);
for (const r of [encoded, restored, verified]) if (r.code !== 0) throw new Error(r.stderr + r.stdout);
const want = hashTree(pair.tuned);
assertSameTree(want, at('back'));
const { bytes, rawBytes } = JSON.parse(encoded.stdout) as { bytes: number; rawBytes: number };
console.log(machine());
console.log(
  table(
    ['tuned, MB', 'delta, MB', 'ratio', 'encode, s', 'restore, s', 'files equal by sha256'],
    [[(rawBytes / MB).toFixed(1), (bytes / MB).toFixed(1), `${((100 * bytes) / rawBytes).toFixed(2)} %`, seconds(encoded.ms), seconds(restored.ms), `${want.size} of ${want.size}`]], // prettier-ignore
  ),
);
