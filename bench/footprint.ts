/**
 * What a user gets: `npm pack`, the tarball installed into an empty folder without optional peers and without install scripts,
 * its size by part, and the first commands run from there:
 *   node dist/bench/footprint.js [--keep DIR]
 */
import { existsSync, lstatSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MB, option, ROOT, run, table, verdicts, workFolder, type Run } from './support.js';

const LIMIT_BYTES = 150e6;

/** Sizes of the files below a path, as they are (not as blocks on disk). */
function treeBytes(path: string): number {
  const s = lstatSync(path);
  return s.isDirectory() ? readdirSync(path).reduce((sum, n) => sum + treeBytes(join(path, n)), 0) : s.size;
}

async function must(command: string, args: string[], cwd: string): Promise<Run> {
  const r = await run(command, args, { cwd });
  if (r.code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${r.code ?? r.signal}\n${r.stdout}\n${r.stderr}`);
  return r;
}

/** Packages of node_modules, scoped ones by their full name. */
function packages(modules: string): string[] {
  return readdirSync(modules).flatMap((n) => {
    if (n.startsWith('.')) return [];
    return n.startsWith('@') ? readdirSync(join(modules, n)).map((m) => `${n}/${m}`) : [n];
  });
}

using work = workFolder('footprint');
const home = option('keep', work.path);
mkdirSync(home, { recursive: true });
// prepack builds; the tarball is what a registry would hold
const packed = await must('npm', ['pack', '--json', '--pack-destination', home], ROOT);
const [info] = JSON.parse(packed.stdout.slice(packed.stdout.indexOf('[\n'))) as { filename: string; size: number; unpackedSize: number; entryCount: number }[];
const empty = join(home, 'empty');
mkdirSync(empty);
writeFileSync(join(empty, 'package.json'), '{"private":true}\n');
await must('npm', ['install', '--ignore-scripts', '--omit=dev', '--no-audit', '--no-fund', join(home, info!.filename)], empty);

const modules = join(empty, 'node_modules');
const own = join(modules, 'pith');
const sizes = new Map(packages(modules).map((p) => [p, treeBytes(join(modules, p))]));
const total = treeBytes(modules);
const rows = [...sizes].sort((a, b) => b[1] - a[1]);
const big = rows.filter(([, bytes]) => bytes >= MB);
const rest = rows.filter(([, bytes]) => bytes < MB);
const parts = ['dist', 'docs', 'examples', 'bin'].filter((d) => existsSync(join(own, d))).map((d) => [`  pith/${d}`, treeBytes(join(own, d))] as const);
const vendor = existsSync(join(own, 'dist/vendor')) ? [['  pith/dist/vendor (tfjs, Vega)', treeBytes(join(own, 'dist/vendor'))] as const] : [];
const list: (readonly [string, number])[] = [];
for (const r of big) list.push(r, ...(r[0] === 'pith' ? [...parts, ...vendor] : []));
list.push([`${rest.length} packages below 1 MB`, rest.reduce((sum, [, b]) => sum + b, 0)], ['all', total]);
console.log(`tarball ${(info!.size / MB).toFixed(2)} MB, ${info!.entryCount} files, ${sizes.size} packages installed, --ignore-scripts\n`);
console.log(
  table(
    ['part', 'MB'],
    list.map(([n, b]) => [n, (b / MB).toFixed(2)]),
  ),
);

const bin = join(modules, '.bin', 'pith');
const works: [string, boolean][] = [];
for (const args of [['--version'], ['doctor'], ['demo']]) {
  const r = await run(bin, args, { cwd: empty });
  works.push([`pith ${args.join(' ')}`, r.code === 0]);
  console.log(
    `\n$ pith ${args.join(' ')}    (exit ${r.code ?? r.signal ?? '?'}, ${r.ms.toFixed(0)} ms)\n${(r.stdout + (r.code === 0 ? '' : r.stderr)).trimEnd()}`,
  );
}
console.log('');
verdicts([[`installed <= ${LIMIT_BYTES / MB} MB`, total <= LIMIT_BYTES], ...works]);
