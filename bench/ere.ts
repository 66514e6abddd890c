/**
 * Low-rank delta of one pair against mergekit-extract-lora, file to file, both as whole processes:
 *   node dist/bench/ere.js BASE TUNED [--rank 32] [--repeat 3] [--threads 2] [--mergekit RESULT.json] [--set key=value]
 * Residual of a tensor: ||What - W1||_F / ||W1 - W0||_F. pith's is that of the tensor that a restore writes (`error` of --json);
 * mergekit's is given for its factors unrounded and for the fused tensor in the checkpoint's dtype, the same thing as ours.
 * `--mergekit FILE` keeps the peer's result there and takes it from there in the next run (it takes minutes).
 */
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hashTree, machine, MB, option, peer, peerPython, pith, positionals, seconds, table, times, verdicts, workFolder } from './support.js';

const [base, tuned] = positionals(2, 'node dist/bench/ere.js BASE TUNED [--rank 32] [--repeat 3] [--mergekit RESULT.json]') as [string, string];
const rank = option('rank', '32');
const threads = option('threads', '2');
const kept = option('mergekit', '');
const set = option('set', '');

interface Extracted {
  readonly wallS: number;
  readonly bytes: number;
  readonly tensors: Readonly<Record<string, { rank: number; unrounded: number; fused: number }>>;
}
interface Encoded {
  readonly bytes: number;
  readonly rawBytes: number;
  readonly tensors: readonly { readonly name: string; readonly method: string; readonly error?: number }[];
}

async function mergekit(work: string): Promise<Extracted | undefined> {
  if (kept !== '' && existsSync(kept)) return JSON.parse(readFileSync(kept, 'utf8')) as Extracted;
  if (peerPython() === undefined) return undefined;
  const r = (await peer('mergekit_extract.py', [base, tuned, work, '--rank', rank, '--threads', threads])) as unknown as Extracted;
  if (kept !== '') writeFileSync(kept, JSON.stringify(r));
  return r;
}

using work = workFolder('ere');
const where = machine();
hashTree(base);
hashTree(tuned);
const delta = join(work.path, 'd.safetensors');
const args = ['delta', 'encode', '--base', base, '--tuned', tuned, '--out', delta, '--method', 'ere', '--rank', rank, '-j', threads, '--json', '--quiet'];
if (set !== '') args.push('--set', set);
let ms = Infinity;
let ours: Encoded | undefined;
for (let i = 0; i < Number(option('repeat', '3')); i++) {
  rmSync(delta, { force: true });
  const r = await pith(args);
  ours = JSON.parse(r.stdout) as Encoded;
  ms = Math.min(ms, r.ms);
}
const bytes = statSync(delta).size;
const theirs = await mergekit(work.path);
const low = ours!.tensors.filter((t) => t.method === 'ere' && t.error !== undefined);
const median = (v: number[]): number => v.sort((a, b) => a - b)[v.length >> 1] ?? NaN;
const rows = [['pith delta encode --method ere', seconds(ms), (bytes / MB).toFixed(2), String(low.length), median(low.map((t) => t.error!)).toFixed(5), '']];
if (theirs !== undefined) {
  const t = Object.values(theirs.tensors);
  const at = (f: (x: (typeof t)[number]) => number): string => median(t.map(f)).toFixed(5);
  rows.push(['mergekit-extract-lora', theirs.wallS.toFixed(2), (theirs.bytes / MB).toFixed(2), String(t.length), at((x) => x.fused), at((x) => x.unrounded)]);
}
console.log(`${where}; ${threads} threads; rank ${rank}; pith: best of ${option('repeat', '3')}, mergekit: one run\n`);
console.log(table(['', 's', 'MB', 'tensors', 'median residual', 'unrounded'], rows));
if (theirs !== undefined) {
  const pairs = low.filter((t) => theirs.tensors[t.name] !== undefined).map((t) => ({ name: t.name, ratio: t.error! / theirs.tensors[t.name]!.fused }));
  const worst = pairs.reduce((a, b) => (b.ratio > a.ratio ? b : a), { name: 'none', ratio: 0 });
  console.log(
    `\nratio of the residuals, ours / mergekit's, over ${pairs.length} tensors: median ${median(pairs.map((p) => p.ratio)).toFixed(5)}, worst ${worst.ratio.toFixed(5)} (${worst.name})`,
  );
  console.log(`time: ${times((theirs.wallS * 1000) / ms)} x faster\n`);
  verdicts([
    ['>= 8 x faster than mergekit-extract-lora', theirs.wallS * 1000 >= 8 * ms],
    [`every tensor of its adapter is in ours (${pairs.length} of ${Object.keys(theirs.tensors).length})`, pairs.length === Object.keys(theirs.tensors).length],
    ['residual of every tensor <= 1.002 x mergekit', pairs.length > 0 && worst.ratio <= 1.002],
  ]);
}
