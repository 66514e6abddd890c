/**
 * A store of twenty variants of the tiny base, and kill -9 at random moments of an add and of a gc:
 *   node dist/bench/store.js [--moments 30] [--seed N] [--only kills]
 */
import { join } from 'node:path';
import { Rng } from '../core/rng.js';
import { killStore, prepareStore, type StoreKillReport } from '../test/kill/store-kill.js';
import { writeSafetensors } from '../test/support/files.js';
import { writeVariants } from '../test/support/variants.js';
import type { StoreAddReport } from '../pipelines/store-add.js';
import type { StoreListReport } from '../pipelines/store-list.js';
import { assertSameTree, hashTree, machine, MB, option, pith, seconds, table, TINY, verdicts, workFolder } from './support.js';

const moments = Number(option('moments', '30'));
const seed = Number(option('seed', String(Date.now() % 1_000_000_007)));
/** Of the model whose objects a gc sweeps while it is killed. */
const LOST_TENSORS = 600;

using work = workFolder('store');
const at = (name: string): string => join(work.path, name);
const document = async <T>(...args: string[]): Promise<T> => JSON.parse((await pith([...args, '--json', '--quiet'])).stdout) as T;

console.log(`${machine()}\n`);
const checks: [string, boolean][] = option('only', '') === 'kills' ? [] : await variantsTable();

const rng = new Rng(1);
const lost = at('lost.safetensors');
writeSafetensors(
  lost,
  Array.from({ length: LOST_TENSORS }, (_, i) => ({ name: `t${i}`, dtype: 'BF16', shape: [32], bytes: Uint8Array.from({ length: 64 }, () => rng.uint32()) })),
);
const models = new Map([['base', join(TINY, 'base')]]);
prepareStore(at('for-add'), models);
prepareStore(at('for-gc'), models, [lost]);
const add = await killStore({ prepared: at('for-add'), models, add: { name: 'tuned', path: join(TINY, 'tuned') }, work: work.path, moments, seed });
const gc = await killStore({ prepared: at('for-gc'), models, work: work.path, moments, seed });
const row = (name: string, r: StoreKillReport): string[] => [name, String(moments), seconds(r.ms), String(r.killed), String(r.midway), String(r.faults.length)];
console.log(`kill -9, seed ${seed}\n`);
console.log(`${table(['', 'moments', 'undisturbed, s', 'killed alive', 'store half changed', 'faults'], [row('store add', add), row('store gc', gc)])}\n`);
for (const f of [...add.faults, ...gc.faults]) console.log(f);
verdicts([
  ...checks,
  [`add: nothing lost in ${moments} kills`, add.faults.length === 0],
  [`gc: nothing lost in ${moments} kills`, gc.faults.length === 0],
  ['nine kills in ten met a living process', add.killed >= 0.9 * moments && gc.killed >= 0.9 * moments],
]);

async function variantsTable(): Promise<[string, boolean][]> {
  const store = at('store');
  const paths = await writeVariants(at('variants'));
  await pith(['store', 'init', store]);
  const rows: string[][] = [];
  for (const [name, path] of paths) {
    const dry = await document<StoreAddReport>('store', 'add', store, path, '--dry-run');
    const started = performance.now();
    const r = await document<StoreAddReport>('store', 'add', store, path);
    const addMs = performance.now() - started;
    const get = await pith(['store', 'get', store, name, '--out', at('back'), '--force', '--quiet']);
    assertSameTree(hashTree(path), at('back'));
    const count = (how: string): number => r.tensors.filter((t) => t.how === how).length;
    rows.push([
      name,
      (r.rawBytes / MB).toFixed(2),
      (r.bytes / MB).toFixed(3),
      `${(100 * r.ratio).toFixed(2)} %`,
      (dry.bytes / MB).toFixed(3),
      `${count('reused')} / ${count('delta')} / ${count('alone')}`,
      String(Math.max(0, ...r.tensors.map((t) => t.depth ?? 0))),
      seconds(addMs),
      seconds(get.ms),
    ]);
  }
  const head = ['variant', 'raw, MB', 'added, MB', 'of raw', 'predicted, MB', 'reused / delta / alone', 'depth', 'add, s', 'get, s'];
  const list = await document<StoreListReport>('store', 'list', store);
  rows.push(['all', (list.rawBytes / MB).toFixed(2), (list.bytes / MB).toFixed(3), `${(100 * list.ratio).toFixed(2)} %`, '', '', '', '', '']);
  console.log(`${table(head, rows)}\n`);
  const verified = await document<{ ok: boolean }>('store', 'verify', store);
  return [
    ['20 variants in at most 25 % of their bytes', paths.size === 20 && list.ratio <= 0.25],
    ['each came back byte for byte, and verify holds', verified.ok],
  ];
}
