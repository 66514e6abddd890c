/**
 * What pruned checkpoints shrink to, file to file, against a bitmap with the kept words, their order-0 entropy, zstd and ZipNN:
 *   node dist/bench/sparse-size.js MODEL [--stats STATS.safetensors] [--threads 2] [--zstd 19]
 * MODEL in bf16 is pruned to half here: by magnitude in every row, in every layer, 2:4; with statistics of `pith calibrate` by Wanda's
 * scores in every row and 2:4. Linear layers of the blocks alone. Each file is restored and compared by SHA-256 before its size counts.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { decodeF32 } from '../core/float.js';
import { SafetensorsWriter } from '../formats/safetensors/writer.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { openAny } from '../workers/open.js';
import { assertSameTree, hashTree, machine, MB, option, peer, peerPython, pith, positionals, seconds, table, verdicts, workFolder } from './support.js';

const [model] = positionals(1, 'node dist/bench/sparse-size.js MODEL [--stats STATS.safetensors] [--threads 2] [--zstd 19]') as [string];
const threads = option('threads', '2');
const [statsPath, zstdLevel] = [option('stats', ''), option('zstd', '19')];

type Group = 'row' | 'layer' | '2:4';
interface Case {
  readonly name: string;
  readonly wanda: boolean;
  readonly group: Group;
}
const CASES: Case[] = [
  { name: 'magnitude, rows', wanda: false, group: 'row' },
  { name: 'magnitude, layers', wanda: false, group: 'layer' },
  { name: 'magnitude, 2:4', wanda: false, group: '2:4' },
  ...(statsPath === '' ? [] : ([{ name: 'Wanda, rows', wanda: true, group: 'row' }, { name: 'Wanda, 2:4', wanda: true, group: '2:4' }] as const)), // prettier-ignore
];

interface Bounds {
  words: number;
  kept: number;
  entropyBits: number;
}

const entropy = (counts: ArrayLike<number>): number => {
  const all = Array.from(counts).filter((c) => c > 0);
  const total = all.reduce((a, b) => a + b, 0);
  return all.reduce((bits, c) => bits - c * Math.log2(c / total), 0);
};

/** Squared norms of a layer's inputs; undefined for magnitude. */
async function norms(stats: CheckpointReader, name: string): Promise<Float32Array> {
  const alias = JSON.parse(stats.metadata['alias'] ?? '{}') as Record<string, string>;
  const module = name.replace(/\.weight$/, '');
  const t = await stats.read(`${alias[module] ?? module}.inputSqNorm`);
  return decodeF32('F32', t.bytes);
}

/** Places fit beside a score's bits in the 53 bits of a number. */
const PLACES = 2 ** 21;

/** Clears half of the words, in place: the smaller scores of every group, of two equal ones the earlier. Scores are not negative. */
function halve(words: Uint16Array, scores: Float32Array, n: number, group: Group): void {
  const size = group === 'row' ? n : group === '2:4' ? 4 : words.length;
  if (size > PLACES) throw new Error(`a group of ${size} weights`);
  const bits = new Uint32Array(scores.buffer, scores.byteOffset, scores.length);
  const keys = new Float64Array(size);
  for (let at = 0; at < words.length; at += size) {
    for (let i = 0; i < size; i++) keys[i] = bits[at + i]! * PLACES + i;
    keys.sort();
    for (let i = 0; i < Math.floor(size / 2); i++) words[at + (keys[i]! % PLACES)] = 0;
  }
}

async function prune(reader: CheckpointReader, c: Case, out: string): Promise<Bounds> {
  mkdirSync(out);
  const writer = new SafetensorsWriter(join(out, 'model.safetensors'), [...reader.infos.values()], {});
  await using stats = c.wanda ? await openAny(statsPath) : undefined;
  const bounds: Bounds = { words: 0, kept: 0, entropyBits: 0 };
  for (const info of reader.infos.values()) {
    const t = await reader.read(info.name);
    if (info.shape.length !== 2 || !info.name.includes('.layers.')) {
      await writer.write(t);
      continue;
    }
    const n = info.shape[1]!;
    const bytes = t.bytes.slice();
    const words = new Uint16Array(bytes.buffer);
    const scores = decodeF32('BF16', bytes).map(Math.abs);
    if (stats !== undefined) {
      const squares = await norms(stats, info.name);
      for (let i = 0; i < scores.length; i++) scores[i]! *= Math.sqrt(squares[i % n]!);
    }
    halve(words, scores, n, c.group);
    await writer.write({ ...t, bytes });
    const exponents = new Float64Array(256);
    let kept = 0;
    for (const w of words) {
      if (w === 0) continue;
      kept++;
      exponents[(w >> 7) & 255]!++;
    }
    bounds.words += words.length;
    bounds.kept += kept;
    bounds.entropyBits += entropy([kept, words.length - kept]) + 8 * kept + entropy(exponents);
  }
  await writer.finalize();
  return bounds;
}

using work = workFolder('sparse-size');
const where = machine();
const rows: string[][] = [];
const speed: string[][] = [];
const checks: [string, boolean][] = [];
await using reader = await openAny(model);
const percent = (x: number): string => (100 * x).toFixed(2);
for (const c of CASES) {
  const [folder, file, back] = ['pruned', 'p.safetensors', 'back'].map((f) => join(work.path, f)) as [string, string, string];
  const bounds = await prune(reader, c, folder);
  const expected = hashTree(folder);
  const e = await pith(['delta', 'encode', '--base', 'none', '--tuned', folder, '--method', 'pruned', '--out', file, '-j', threads, '--json', '--quiet']);
  const report = JSON.parse(e.stdout) as { bytes: number; rawBytes: number; tensors: { method: string; bytes: number; rawBytes: number }[] };
  const r = await pith(['delta', 'restore', '--delta', file, '--out', back, '-j', threads, '--quiet']);
  assertSameTree(expected, back);
  const coded = report.tensors.filter((t) => t.method === 'pruned');
  const [bytes, raw] = [coded.reduce((s, t) => s + t.bytes, 0), coded.reduce((s, t) => s + t.rawBytes, 0)];
  if (raw !== 2 * bounds.words) throw new Error(`${c.name}: ${raw} bytes were coded as pruned, ${2 * bounds.words} are`);
  const [ratio, whole] = [bytes / raw, report.bytes / report.rawBytes];
  const bitmap = (bounds.words / 8 + 2 * bounds.kept) / raw;
  const peers: string[] = [];
  if (peerPython() !== undefined) {
    for (const [script, more] of [
      ['zstd_xor.py', ['--level', zstdLevel]],
      ['zipnn_xor.py', []],
    ] as const) {
      const p = await peer(script, ['none', folder, work.path, '--threads', threads, '--repeat', '1', ...more]);
      if (p['exact'] !== true) throw new Error(`${script}: the round trip is not exact`);
      peers.push(percent(p.bytes / report.rawBytes));
      checks.push([`${c.name}: smaller than ${script}`, report.bytes < p.bytes]);
    }
  }
  rows.push([c.name, percent(ratio), percent(bounds.entropyBits / 8 / raw), percent(bitmap), percent(whole), ...peers]);
  speed.push([c.name, seconds(e.ms), seconds(e.cpuMs), (report.rawBytes / MB / (e.cpuMs / 1000)).toFixed(0), seconds(r.ms), seconds(r.cpuMs), (report.rawBytes / MB / (r.cpuMs / 1000)).toFixed(0)]); // prettier-ignore
  checks.push([`${c.name}: pruned tensors <= 37 % of their dense bytes`, ratio <= 0.37], [`${c.name}: the file <= 43.5 % of the dense one`, whole <= 0.435]);
  for (const p of [folder, file, back]) rmSync(p, { recursive: true, force: true });
}
const peerNames = peerPython() === undefined ? [] : [`zstd -${zstdLevel}`, 'ZipNN'];
console.log(`${where}; ${threads} threads; per cent of the dense bf16 bytes; every file restored and compared by sha256\n`);
console.log(table(['half of the weights', 'pruned tensors', 'order-0 entropy', 'bitmap + words', 'whole file', ...peerNames], rows));
console.log('\nWhole processes, hashing, fsync and the embeddings (coded losslessly) included; MB/s: of the dense file by CPU time\n');
console.log(table(['', 's in', 'CPU s', 'MB/s', 's out', 'CPU s', 'MB/s'], speed));
console.log();
verdicts(checks);
