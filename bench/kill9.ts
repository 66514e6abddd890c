/**
 * kill -9 at random moments of an encode and of a restore, each followed by the same command:
 *   node dist/bench/kill9.js BASE TUNED [--moments 30] [--seed N]
 */
import { join } from 'node:path';
import { killRuns, type KillReport } from '../test/kill/kill-nine.js';
import { machine, option, pith, positionals, seconds, table, verdicts, workFolder } from './support.js';

const [base, tuned] = positionals(2, 'node dist/bench/kill9.js BASE TUNED [--moments 30] [--seed N]') as [string, string];
const moments = Number(option('moments', '30'));
const seed = Number(option('seed', String(Date.now() % 1_000_000_007)));

using work = workFolder('kill9');
const kept = join(work.path, 'kept.delta.safetensors');
await pith(['delta', 'encode', '--base', base, '--tuned', tuned, '--out', kept, '--quiet']);
const [d, back] = [join(work.path, 'd.safetensors'), join(work.path, 'back')];
const encode = await killRuns({ args: ['delta', 'encode', '--base', base, '--tuned', tuned, '--out', d], out: d, moments, seed });
const restore = await killRuns({ args: ['delta', 'restore', '--base', base, '--delta', kept, '--out', back], out: back, moments, seed });

const row = (name: string, r: KillReport): string[] => [
  name,
  String(moments),
  seconds(r.ms),
  String(r.killed),
  String(r.resumed),
  String(moments - r.resumed - r.complete),
  String(r.complete),
  String(r.faults.length),
];
console.log(`${machine()}; seed ${seed}\n`);
const head = ['', 'moments', 'undisturbed, s', 'killed alive', 'rerun resumed', 'rerun from the start', 'result already whole', 'faults'];
console.log(`${table(head, [row('delta encode', encode), row('delta restore', restore)])}\n`);
for (const f of [...encode.faults, ...restore.faults]) console.log(f);
verdicts([
  [`encode: right bytes and nothing left behind after each of ${moments} kills`, encode.faults.length === 0],
  [`restore: right bytes and nothing left behind after each of ${moments} kills`, restore.faults.length === 0],
]);
