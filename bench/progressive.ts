/**
 * A delta of two layers against one lossless layer, and what of it a lossy read over HTTP ranges transfers:
 *   node dist/bench/progressive.js BASE TUNED [--sizes 1,2.5,5] [--method auto]
 * Sizes: of the lossy layer, in percent of the raw bytes.
 */
import { readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileServer } from '../test/support/http.js';
import { assertSameTree, hashFile, hashTree, machine, MB, option, pith, positionals, seconds, table, times, verdicts, workFolder } from './support.js';

const [base, tuned] = positionals(2, 'node dist/bench/progressive.js BASE TUNED [--sizes 1,2.5,5]') as [string, string];
const sizes = option('sizes', '1,2.5,5').split(',').map(Number);
const method = option('method', 'auto');
const MOST_TRANSFER = 1.05;

using work = workFolder('progressive');
const at = (name: string): string => join(work.path, name);
const where = machine();
const pair = ['--base', base, '--tuned', tuned, '--quiet', '--json'];
await pith(['delta', 'encode', ...pair, '--out', at('lossless')]);
const lossless = statSync(at('lossless')).size;
const original = hashTree(tuned);

const rows: string[][] = [];
const checks: [string, boolean][] = [];
for (const size of sizes) {
  const encoded = await pith(['delta', 'encode', ...pair, '--method', method, '--target-ratio', String(100 / size), '--progressive', '--out', at('d')]);
  const { bytes, layers, error } = JSON.parse(encoded.stdout) as { bytes: number; layers: { lossy: number; exact: number }; error: number };
  await pith(['delta', 'restore', '--base', base, '--delta', at('d'), '--out', at('exact'), '--quiet']);
  const equal = assertSameTree(original, at('exact'));
  await using server = await fileServer({ d: readFileSync(at('d')) });
  await pith(['delta', 'restore', '--base', base, '--delta', `${server.url}/d`, '--quality', 'lossy', '--out', at('remote'), '--quiet']);
  await pith(['delta', 'split', at('d'), '--lossy', at('l'), '--exact', at('e')]);
  await pith(['delta', 'restore', '--base', base, '--delta', at('l'), '--out', at('cut'), '--quiet']);
  assertSameTree(hashTree(at('cut')), at('remote'));
  await pith(['delta', 'join', at('l'), at('e'), '--out', at('joined')]);
  const transfer = server.sent / layers.lossy;
  rows.push([
    `${size} %`,
    (layers.lossy / MB).toFixed(3),
    (layers.exact / MB).toFixed(3),
    (bytes / MB).toFixed(3),
    (bytes / lossless).toFixed(3),
    error.toFixed(4),
    String(server.requests.length),
    (server.sent / MB).toFixed(3),
    times(transfer),
    `${equal} of ${original.size}`,
    seconds(encoded.ms),
  ]);
  checks.push([`${size} %: a lossy read over HTTP transfers <= ${MOST_TRANSFER} x the lossy layer`, transfer <= MOST_TRANSFER]);
  checks.push([`${size} %: cut and joined it is the same file`, hashFile(at('joined')) === hashFile(at('d'))]);
  for (const name of ['d', 'l', 'e', 'joined', 'exact', 'remote', 'cut']) rmSync(at(name), { recursive: true });
}
const head = [
  'lossy layer asked',
  'lossy, MB',
  'exact, MB',
  'both, MB',
  'both / lossless',
  'error',
  'requests',
  'sent, MB',
  'sent / lossy',
  'files equal, exact',
  's encode',
];
console.log(`${where}; lossless delta ${(lossless / MB).toFixed(3)} MB\n\n${table(head, rows)}\n`);
verdicts(checks);
