/**
 * The leading 64 singular triplets of a 4096 x 4096 matrix, warm, on all cores:
 *   node dist/bench/svd.js [--n 4096] [--rank 64] [--repeat 9] [--threads 2] [--exact yes|no]
 * Two matrices: standard normal entries, and singular values i^-0.5 with random orthonormal vectors (sign flips and Hadamard
 * transforms, so n is a power of two). torch.svd_lowrank (q = rank + 10, niter = 2, truncated to the rank) and torch.linalg.svd get
 * the same file; peers/svd.py computes the error of all three by one formula, in f64, and it is checked before the times are shown.
 * GFLOP/s: of the products with the matrix alone, over the whole time; share: of a 2048^3 sgemm on the same library in the same run.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Rng } from '../core/rng.js';
import { matrixOps, transposed, type MatrixOps } from '../kernels/linalg/matrix-ops.js';
import { randomizedSvd, wholeMatrix, type RandomizedSvd } from '../kernels/linalg/randomized-svd.js';
import { machine, option, peer, peerPython, run, table, times, verdicts, workFolder } from './support.js';

const n = Number(option('n', '4096'));
const rank = Number(option('rank', '64'));
const repeat = Number(option('repeat', '9'));
const threads = Number(option('threads', '2'));
const exact = option('exact', 'yes') === 'yes';
/** Columns of a block and steps: what randomizedSvd takes by itself at this rank. */
const [BLOCK, STEPS] = [8 * Math.ceil(rank / 16), 4];
/** Time over torch.svd_lowrank's, and over torch.linalg.svd's. */
const TARGET = { lowrank: 1.3, exact: 1 / 50 };

/** In place over every row: x -> H D x / sqrt(n), H of Hadamard, D of random signs; twice. */
function rotateRows(a: Float32Array, rng: Rng): void {
  const scale = 1 / Math.sqrt(n);
  for (let round = 0; round < 2; round++) {
    const signs = Float32Array.from({ length: n }, () => (rng.uint32() & 1 ? scale : -scale));
    for (let at = 0; at < n * n; at += n) {
      const row = a.subarray(at, at + n);
      for (let j = 0; j < n; j++) row[j] = row[j]! * signs[j]!;
      for (let h = 1; h < n; h *= 2) {
        for (let i = 0; i < n; i += 2 * h) {
          for (let j = i; j < i + h; j++) [row[j], row[j + h]] = [row[j]! + row[j + h]!, row[j]! - row[j + h]!];
        }
      }
    }
  }
}

/** U diag(i^-0.5) V^T */
function decaying(rng: Rng): Float32Array {
  const a = new Float32Array(n * n);
  for (let i = 0; i < n; i++) a[i * n + i] = (i + 1) ** -0.5;
  rotateRows(a, rng.fork('v'));
  const t = transposed(a, n, n);
  rotateRows(t, rng.fork('u'));
  return t;
}

const least = (v: readonly number[]): number => Math.min(...v);

async function timed(w: Float32Array, ops: MatrixOps): Promise<{ svd: RandomizedSvd; ms: number }> {
  const all: number[] = [];
  let svd: RandomizedSvd | undefined;
  for (let i = 0; i <= repeat; i++) {
    const started = performance.now();
    svd = await randomizedSvd(wholeMatrix(w, n, n), { rank, ops, rng: new Rng(i), block: BLOCK, powerSteps: STEPS });
    if (i > 0) all.push(performance.now() - started);
  }
  return { svd: svd!, ms: least(all) };
}

function sgemmRate(ops: MatrixOps): number {
  const side = 2048;
  const a = new Rng(1).symmetric(side * side);
  const all = Array.from({ length: 5 }, () => {
    const started = performance.now();
    ops.multiply(false, false, side, side, side, a, a);
    return performance.now() - started;
  });
  return (2 * side ** 3) / least(all) / 1e6;
}

const percent = (x: number): string => `${(100 * x).toFixed(0)} %`;

const MATRICES = { 'i^-0.5': () => decaying(new Rng(1)), Gaussian: () => new Rng(2).normals(n * n) } as const;

interface Ours {
  readonly ms: number;
  readonly error: number;
  /** GFLOP/s of a 2048^3 sgemm. */
  readonly peak: number;
  readonly library: string;
}

/** One matrix in a process of its own, as the peer has: the matrix and our factors go to `folder`. */
async function measure(name: keyof typeof MATRICES, folder: string): Promise<Ours> {
  const ops = await matrixOps({ blasThreads: threads });
  const peak = sgemmRate(ops);
  const w = MATRICES[name]();
  const { svd, ms } = await timed(w, ops);
  writeFileSync(join(folder, 'w'), w);
  for (const part of ['u', 's', 'vt'] as const) writeFileSync(join(folder, part), svd[part]);
  return { ms, error: svd.residualFro / Math.sqrt(svd.frobeniusSq), peak, library: ops.name };
}

async function main(): Promise<void> {
  if (!Number.isInteger(Math.log2(n))) throw new Error(`--n ${n}: a power of two is needed`);
  using work = workFolder('svd');
  const rows: string[][] = [];
  const checks: [string, boolean][] = [];
  const row = (...cells: (string | number)[]): number => rows.push(cells.map(String));
  const file = (part: string): string => join(work.path, part);
  console.log(`${machine()}; ${threads} threads, best of ${repeat}\n`);
  for (const name of Object.keys(MATRICES)) {
    const child = await run(process.execPath, [...process.execArgv, ...process.argv.slice(1), '--only', name, '--folder', work.path]);
    if (child.code !== 0) throw new Error(child.stderr);
    const { ms, error, peak, library } = JSON.parse(child.stdout) as Ours;
    const rate = (2 * (STEPS + 1) * 2 * n * n * BLOCK) / ms / 1e6;
    const ours = (checked: number): number =>
      row(name, `pith randomizedSvd (${library})`, ms.toFixed(0), '', checked.toFixed(6), rate.toFixed(0), percent(rate / peak));
    if (peerPython() === undefined) {
      ours(error);
      continue;
    }
    const q = rank + 10;
    const args = [file('w'), n, rank, file('u'), file('s'), file('vt'), '--threads', threads, '--repeat', repeat, '--q', q, ...(exact ? [] : ['--no-exact'])];
    const p = (await peer('svd.py', args.map(String))) as unknown as Record<string, number>;
    const get = (key: string): number => p[key] ?? NaN;
    if (!(Math.abs(get('oursError') - error) < 1e-4)) throw new Error(`${name}: we claim an error of ${error}, it is ${get('oursError')}`);
    ours(get('oursError'));
    const theirRate = (6 * 2 * n * n * q) / get('lowrankS') / 1e9;
    const lowrankMs = 1000 * get('lowrankS');
    row('', `torch.svd_lowrank(q=${q}, niter=2)`, lowrankMs.toFixed(0), times(ms / lowrankMs), get('lowrankError').toFixed(6), theirRate.toFixed(0), percent(theirRate / get('gflops'))); // prettier-ignore
    checks.push([
      `${name}: error ${get('oursError').toFixed(6)} <= torch's best of ${repeat} seeds ${get('lowrankError').toFixed(6)}`,
      get('oursError') <= get('lowrankError'),
    ]);
    checks.push([`${name}: time ${times(ms / lowrankMs)} x svd_lowrank's, target ${TARGET.lowrank}`, ms <= TARGET.lowrank * lowrankMs]);
    if (!exact) continue;
    row('', 'torch.linalg.svd', (1000 * get('exactS')).toFixed(0), (ms / 1000 / get('exactS')).toFixed(5), get('exactError').toFixed(6), '', '');
    checks.push([`${name}: time 1/${(get('exactS') / (ms / 1000)).toFixed(0)} of linalg.svd's, target 1/50`, ms / 1000 <= TARGET.exact * get('exactS')]);
  }
  console.log(table(['matrix', 'what', 'ms', 'ours / its', 'relative error', 'GFLOP/s', 'of sgemm'], rows));
  console.log('');
  verdicts(checks);
}

const only = option('only', '');
if (only === '') await main();
else console.log(JSON.stringify(await measure(only as keyof typeof MATRICES, option('folder', ''))));
