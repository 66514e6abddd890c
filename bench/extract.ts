/**
 * A LoRA adapter of one pair against mergekit-extract-lora, both as whole processes, with the same flags (embeddings, head and norms
 * saved whole):
 *   node dist/bench/extract.js BASE TUNED [--rank 32] [--repeat 5] [--threads 2] [--mergekit RESULT.json]
 * Residual of a tensor: ||What - W1||_F / ||W1 - W0||_F, by one formula for both adapters (peers/mergekit_extract.py): `unrounded`
 * with What in f32, `fused` with What rounded to the checkpoint's type. `--mergekit FILE` keeps the peer's result for the next run.
 */
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hashTree, machine, MB, option, peer, peerPython, pith, positionals, seconds, table, times, verdicts, workFolder } from './support.js';

const [base, tuned] = positionals(2, 'node dist/bench/extract.js BASE TUNED [--rank 32] [--repeat 5] [--mergekit RESULT.json]') as [string, string];
const rank = option('rank', '32');
const threads = option('threads', '2');
const repeat = Number(option('repeat', '5'));
const kept = option('mergekit', '');

type Residuals = Readonly<Record<string, { rank: number; unrounded: number; fused: number }>>;
interface Extracted {
  readonly wallS: number;
  readonly bytes: number;
  readonly tensors: Residuals;
}

async function mergekit(work: string): Promise<Extracted> {
  if (kept !== '' && existsSync(kept)) return JSON.parse(readFileSync(kept, 'utf8')) as Extracted;
  const r = (await peer('mergekit_extract.py', [base, tuned, work, '--rank', rank, '--threads', threads])) as unknown as Extracted;
  if (kept !== '') writeFileSync(kept, JSON.stringify(r));
  return r;
}

using work = workFolder('extract');
const where = machine();
hashTree(base);
hashTree(tuned);
const out = join(work.path, 'ours');
const all: number[] = [];
let cpuMs = 0;
for (let i = 0; i < repeat; i++) {
  rmSync(out, { recursive: true, force: true });
  const r = await pith(['adapter', 'extract', '--base-model', base, '--model', tuned, '--out-path', out, '--max-rank', rank, '-j', threads, '--quiet']);
  all.push(r.ms);
  cpuMs = r.cpuMs;
}
const ms = Math.min(...all);
const median = (v: readonly number[]): number => [...v].sort((a, b) => a - b)[v.length >> 1] ?? NaN;
const size = statSync(join(out, 'adapter_model.safetensors')).size;
console.log(
  `${where}; ${threads} threads; rank ${rank}; pith: best of ${repeat} (median ${seconds(median(all))} s, CPU ${seconds(cpuMs)} s), mergekit: one run\n`,
);
if (peerPython() === undefined) console.log(table(['', 's', 'MB'], [['pith adapter extract', seconds(ms), (size / MB).toFixed(2)]]));
else {
  const ours = (await peer('mergekit_extract.py', [base, tuned, work.path, '--adapter', out])) as unknown as Extracted;
  const theirs = await mergekit(work.path);
  const row = (name: string, s: string, bytes: number, r: Residuals): string[] => {
    const t = Object.values(r);
    return [name, s, (bytes / MB).toFixed(2), String(t.length), median(t.map((x) => x.unrounded)).toFixed(5), median(t.map((x) => x.fused)).toFixed(5)];
  };
  const rows = [
    row('pith adapter extract', seconds(ms), size, ours.tensors),
    row('mergekit-extract-lora', theirs.wallS.toFixed(2), theirs.bytes, theirs.tensors),
  ];
  console.log(table(['', 's', 'MB', 'tensors', 'median unrounded', 'median fused'], rows));
  const names = Object.keys(theirs.tensors);
  const ratios = (of: 'unrounded' | 'fused'): number[] => names.map((n) => (ours.tensors[n]?.[of] ?? Infinity) / theirs.tensors[n]![of]);
  for (const of of ['unrounded', 'fused'] as const) {
    console.log(`ratio of the residuals, ours / mergekit's, ${of}: median ${median(ratios(of)).toFixed(5)}, worst ${Math.max(...ratios(of)).toFixed(5)}`);
  }
  console.log(`time: ${times((theirs.wallS * 1000) / ms)} x faster\n`);
  verdicts([
    ['>= 8 x faster than mergekit-extract-lora', theirs.wallS * 1000 >= 8 * ms],
    [`every tensor of its adapter is in ours (${names.length})`, names.every((n) => ours.tensors[n] !== undefined)],
    ['residual of every tensor <= 1.002 x mergekit, unrounded', Math.max(...ratios('unrounded')) <= 1.002],
    ['residual of every tensor <= 1.002 x mergekit, fused', Math.max(...ratios('fused')) <= 1.002],
  ]);
}
