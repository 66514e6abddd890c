/**
 * Lossless encode and restore, file to file, as processes of their own:
 *   node dist/bench/delta-speed.js BASE TUNED [--repeat 7] [--threads 2]
 * Inputs are in the page cache; wall time from spawn to exit: process start, hashing of base and result, fsync and rename included.
 * Every restored tree is compared with the original by SHA-256. Start: the same command on the tiny pair. Steady: bytes over the time
 * without the start. Floor: the same bytes read, hashed, written and synced by plain Node on two threads, without coding.
 */
import { readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { assertSameTree, hashTree, machine, MB, option, pith, positionals, run, seconds, table, TINY, verdicts, workFolder } from './support.js';

const [base, tuned] = positionals(2, 'node dist/bench/delta-speed.js BASE TUNED [--repeat 7] [--threads 2]') as [string, string];
const repeat = Number(option('repeat', '7'));
const threads = option('threads', '2');
/** Seconds of wall time and MB a second without the start, for a pair of 269 MB on two cores. */
const TARGET = { encodeS: 1.4, restoreS: 0.9, encodeRate: 250, restoreRate: 450 };

interface Times {
  readonly wall: number[];
  readonly cpu: number[];
}

const least = (v: readonly number[]): number => Math.min(...v);
const median = (v: readonly number[]): number => [...v].sort((a, b) => a - b)[v.length >> 1]!;

async function measure(a: string, b: string, work: string): Promise<{ encode: Times; restore: Times; rawBytes: number; files: number }> {
  const [delta, back] = [join(work, 'd.safetensors'), join(work, 'back')];
  const expected = hashTree(b);
  hashTree(a);
  const encode: Times = { wall: [], cpu: [] };
  const restore: Times = { wall: [], cpu: [] };
  let [rawBytes, files] = [0, 0];
  for (let i = 0; i < repeat; i++) {
    for (const p of [delta, back]) rmSync(p, { recursive: true, force: true });
    const e = await pith(['delta', 'encode', '--base', a, '--tuned', b, '--out', delta, '-j', threads, '--json', '--quiet']);
    const r = await pith(['delta', 'restore', '--base', a, '--delta', delta, '--out', back, '-j', threads, '--quiet']);
    ({ rawBytes } = JSON.parse(e.stdout) as { rawBytes: number });
    files = assertSameTree(expected, back);
    encode.wall.push(e.ms);
    encode.cpu.push(e.cpuMs);
    restore.wall.push(r.ms);
    restore.cpu.push(r.cpuMs);
  }
  for (const p of [delta, back]) rmSync(p, { recursive: true, force: true });
  return { encode, restore, rawBytes, files };
}

/** Two threads share the files: each piece is read from both and hashed, and `write` decides whether the second is written too. */
const FLOOR = `
const { Worker, isMainThread, workerData } = require('node:worker_threads');
const fs = require('node:fs');
const { createHash } = require('node:crypto');
if (isMainThread) {
  const [pairs, out, source] = JSON.parse(process.argv[1]);
  const fd = out === '' ? -1 : fs.openSync(out, 'w');
  let left = 2;
  for (const half of [0, 1]) new Worker(source, { eval: true, workerData: [pairs, out, half] }).on('exit', () => {
    if (--left === 0 && fd >= 0) fs.fsyncSync(fd);
  });
} else {
  const [pairs, out, half] = workerData;
  const buffer = new Uint8Array(2 << 20);
  const fd = out === '' ? -1 : fs.openSync(out, 'r+');
  let at = 0;
  for (const [a, b] of pairs) {
    const bytes = fs.statSync(b).size;
    const end = half === 0 ? bytes / 2 : bytes;
    const hash = createHash('sha256');
    const [fa, fb] = [fs.openSync(a), fs.openSync(b)];
    for (let p = half === 0 ? 0 : bytes / 2; p < end; p += buffer.length) {
      for (const f of [fa, fb]) hash.update(buffer.subarray(0, fs.readSync(f, buffer, 0, Math.min(buffer.length, end - p), Math.floor(p))));
      if (fd >= 0) fs.writeSync(fd, buffer, 0, Math.min(buffer.length, end - p), at + Math.floor(p));
    }
    at += bytes;
  }
}`;

async function floor(work: string, write: boolean): Promise<number> {
  const names = readdirSync(tuned).filter((f) => f.endsWith('.safetensors') && statSync(join(base, f), { throwIfNoEntry: false }) !== undefined);
  const out = write ? join(work, 'floor') : '';
  const wall: number[] = [];
  for (let i = 0; i < repeat; i++) {
    rmSync(join(work, 'floor'), { force: true });
    const job = JSON.stringify([names.map((f) => [join(base, f), join(tuned, f)]), out, FLOOR]);
    const r = await run(process.execPath, ['-e', FLOOR, job]);
    if (r.code !== 0) throw new Error(r.stderr);
    wall.push(r.ms);
  }
  rmSync(join(work, 'floor'), { force: true });
  return least(wall);
}

using work = workFolder('delta-speed');
const where = machine();
const start = await measure(join(TINY, 'base'), join(TINY, 'tuned'), work.path);
const pair = await measure(base, tuned, work.path);
let node = Infinity;
for (let i = 0; i < repeat; i++) node = Math.min(node, (await run(process.execPath, ['-e', '0'])).ms);
const floors = { encode: await floor(work.path, false), restore: await floor(work.path, true) };
const rate = (ms: number): number => pair.rawBytes / 1000 / ms;
const rows = (['encode', 'restore'] as const).map((verb) => {
  const [t, s] = [pair[verb], start[verb]];
  const steady = least(t.wall) - least(s.wall);
  const cells = [least(t.wall), median(t.wall), least(t.cpu), least(s.wall), steady].map(seconds);
  return [verb, ...cells, rate(least(t.wall)).toFixed(0), rate(steady).toFixed(0), seconds(floors[verb])];
});
console.log(`${where}; ${threads} threads; best and median of ${repeat}; ${(pair.rawBytes / MB).toFixed(0)} MB of tensors; node -e 0: ${seconds(node)} s\n`);
console.log(table(['', 'best, s', 'median, s', 'CPU, s', 'start, s', 'without start, s', 'MB/s', 'MB/s without start', 'floor, s'], rows));
console.log(
  `\n${pair.files} files equal by sha256 after every restore; floor: read and hash (restore: and write and sync) the same bytes, no coding, Node's start included\n`,
);
const [e, r] = [pair.encode, pair.restore].map((t) => least(t.wall)) as [number, number];
verdicts([
  [`encode: <= ${TARGET.encodeS} s`, e <= TARGET.encodeS * 1000],
  [`restore: <= ${TARGET.restoreS} s`, r <= TARGET.restoreS * 1000],
  [`encode without start: >= ${TARGET.encodeRate} MB/s`, rate(e - least(start.encode.wall)) >= TARGET.encodeRate],
  [`restore without start: >= ${TARGET.restoreRate} MB/s`, rate(r - least(start.restore.wall)) >= TARGET.restoreRate],
]);
