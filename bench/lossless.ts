/**
 * Lossless delta of one pair, file to file, against z4ai, ZipNN and zstd in one run on the same input:
 *   node dist/bench/lossless.js BASE TUNED [--repeat 5] [--threads 2] [--zstd 19]
 * Everything is in the page cache. pith: whole processes, its start, the hashing of base and result, fsync and the side files
 * included; restored files are compared by SHA-256. Peers: tensor data only, file to file inside a running Python (their favour);
 * the last columns add their interpreter's start.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import {
  assertSameTree,
  hashTree,
  machine,
  MB,
  option,
  peer,
  peerPython,
  pith,
  positionals,
  seconds,
  table,
  times,
  verdicts,
  workFolder,
  type PeerResult,
} from './support.js';

const [base, tuned] = positionals(2, 'node dist/bench/lossless.js BASE TUNED [--repeat 5] [--threads 2] [--zstd 19]') as [string, string];
const repeat = option('repeat', '5');
const threads = option('threads', '2');
const zstdLevel = option('zstd', '19');

interface Row {
  readonly name: string;
  readonly bytes: number;
  readonly encodeS: number;
  readonly restoreS: number;
  /** Start of the interpreter; already inside the times of pith. */
  readonly startS: number;
  readonly note?: string;
}

interface Ours extends Row {
  readonly rawBytes: number;
  readonly files: number;
  readonly cpu: string;
}

async function ours(name: string, baseArg: string, work: string): Promise<Ours> {
  const delta = join(work, 'd.safetensors');
  const out = join(work, 'restored');
  const expected = hashTree(tuned);
  hashTree(base);
  let [encodeS, restoreS, encodeCpu, restoreCpu] = [Infinity, Infinity, Infinity, Infinity];
  let report = { bytes: 0, rawBytes: 0 };
  let files = 0;
  for (let i = 0; i < Number(repeat); i++) {
    for (const p of [delta, out]) rmSync(p, { recursive: true, force: true });
    const e = await pith(['delta', 'encode', '--base', baseArg, '--tuned', tuned, '--out', delta, '-j', threads, '--json', '--quiet']);
    report = JSON.parse(e.stdout) as typeof report;
    const r = await pith(['delta', 'restore', ...(baseArg === 'none' ? [] : ['--base', baseArg]), '--delta', delta, '--out', out, '-j', threads, '--quiet']);
    files = assertSameTree(expected, out);
    encodeS = Math.min(encodeS, e.ms / 1000);
    restoreS = Math.min(restoreS, r.ms / 1000);
    encodeCpu = Math.min(encodeCpu, e.cpuMs);
    restoreCpu = Math.min(restoreCpu, r.cpuMs);
  }
  for (const p of [delta, out]) rmSync(p, { recursive: true, force: true });
  return { name, ...report, encodeS, restoreS, startS: 0, files, cpu: `${seconds(encodeCpu)} s in, ${seconds(restoreCpu)} s out` };
}

async function theirs(name: string, script: string, baseArg: string, work: string, more: string[] = []): Promise<Row> {
  const r: PeerResult = await peer(script, [baseArg, tuned, work, '--threads', threads, '--repeat', '3', ...more]);
  if (r['exact'] !== true) throw new Error(`${name}: the round trip is not exact`);
  return { name, bytes: r.bytes, encodeS: r.encodeS, restoreS: r.restoreS, startS: Number(r['startS']) };
}

using work = workFolder('lossless');
mkdirSync(work.path, { recursive: true });
const where = machine();
const pair = await ours('pith delta encode', base, work.path);
const alone = await ours('pith delta encode --base none', 'none', work.path);
const paired: Row[] = [];
const single: Row[] = [];
if (peerPython() === undefined) console.log('PITH_PEERS is not set: pith alone (bench/README.md)\n');
else {
  paired.push(await theirs('z4ai 0.2.0 compress_delta', 'z4ai_delta.py', base, work.path));
  paired.push(await theirs('ZipNN 0.5.4 on the XOR', 'zipnn_xor.py', base, work.path));
  paired.push(await theirs('zstd -3 of the XOR', 'zstd_xor.py', base, work.path, ['--level', '3']));
  paired.push(await theirs(`zstd -${zstdLevel} of the XOR`, 'zstd_xor.py', base, work.path, ['--level', zstdLevel, '--repeat', '1']));
  single.push(await theirs('ZipNN 0.5.4, standalone', 'zipnn_xor.py', 'none', work.path));
}

const raw = pair.rawBytes;
const row = (mine: Ours, r: Row): string[] => [
  r.name,
  (r.bytes / MB).toFixed(2),
  `${((r.bytes / raw) * 100).toFixed(2)} %`,
  r.encodeS.toFixed(2),
  r.restoreS.toFixed(2),
  r === mine ? '' : (mine.bytes / r.bytes).toFixed(3),
  r === mine ? '' : times(r.encodeS / mine.encodeS),
  r === mine ? '' : times(r.restoreS / mine.restoreS),
  r === mine ? '' : `${times((r.encodeS + r.startS) / mine.encodeS)} / ${times((r.restoreS + r.startS) / mine.restoreS)}`,
];
const head = ['', 'MB', 'of bf16', 's in', 's out', 'our bytes / its', 'its s in / ours', 'out', 'with its start, in / out'];
console.log(`${where}; ${threads} threads; best of ${repeat} (peers: of 3; zstd -${zstdLevel}: 1); ${(raw / MB).toFixed(0)} MB of tensors\n`);
console.log(table(head, [row(pair, pair), ...paired.map((r) => row(pair, r)), row(alone, alone), ...single.map((r) => row(alone, r))]));
console.log(`\npith: ${pair.files} files equal by sha256 after every restore; least CPU time of a run: pair ${pair.cpu}; alone ${alone.cpu}`);
console.log(`pith, MB of tensors a second: pair ${(raw / MB / pair.encodeS).toFixed(0)} in, ${(raw / MB / pair.restoreS).toFixed(0)} out\n`);

const [z4ai, zipnn, , zstd] = paired;
const checks: [string, boolean][] = [
  ['size <= 8.0 % of the bf16 bytes', pair.bytes <= 0.08 * raw],
  ['encode <= 1.4 s, restore <= 0.9 s (for the 269 MB pair)', pair.encodeS <= (1.4 * raw) / 269e6 && pair.restoreS <= (0.9 * raw) / 269e6],
];
if (z4ai !== undefined && zipnn !== undefined && zstd !== undefined) {
  checks.push(['size <= 0.60 x z4ai', pair.bytes <= 0.6 * z4ai.bytes]);
  checks.push(['size <= 0.45 x ZipNN on the XOR', pair.bytes <= 0.45 * zipnn.bytes]);
  checks.push([`size < zstd -${zstdLevel} of the XOR`, pair.bytes < zstd.bytes]);
  checks.push(['standalone not larger than ZipNN', alone.bytes <= single[0]!.bytes]);
  checks.push(['in: >= 10 x z4ai, its start not counted', z4ai.encodeS >= 10 * pair.encodeS]);
  checks.push(['out: >= 3 x z4ai, its start not counted', z4ai.restoreS >= 3 * pair.restoreS]);
  checks.push(['out: >= 3 x z4ai, process start in both', z4ai.restoreS + z4ai.startS >= 3 * pair.restoreS]);
}
verdicts(checks);
