/**
 * GPTQ and round-to-nearest of single layers, against the release's loop restated in torch (peers/quant.py), warm, the same threads:
 *   PITH_PEERS=python node dist/bench/quant-layers.js [--sizes 576x576,1536x576,576x1536,2048x2048] [--bits 4] [--repeat 5] [--threads 2]
 * Inputs with a spectrum i^-1 and outlier channels (F1 of the tests). The output errors of both are computed by the peer, in f64, and are
 * checked to be the same within 1 % before the times are shown: a value on a boundary rounds one way or the other, and those after it.
 * MB/s: of f32 weights that rtn reads.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Rng } from '../core/rng.js';
import { matrixOps } from '../kernels/linalg/matrix-ops.js';
import { gptq } from '../kernels/quant/gptq.js';
import { IntGrid } from '../kernels/quant/int-grid.js';
import { machine, MB, option, peer, peerPython, table, times, verdicts, workFolder } from './support.js';

const sizes = option('sizes', '576x576,1536x576,576x1536,2048x2048')
  .split(',')
  .map((s) => s.split('x').map(Number) as [m: number, n: number]);
const bits = Number(option('bits', '4'));
const repeat = Number(option('repeat', '5'));
const threads = Number(option('threads', '2'));
const GROUP = 128;

const ops = await matrixOps({ blasThreads: threads });
using work = workFolder('quant');

/** X^T X of inputs whose channels are mixed from falling ones, five of them ten times as large. */
function gramOf(n: number, rng: Rng): Float32Array {
  const tokens = 2 * n;
  const z = rng.normals(tokens * n).map((v, i) => v * Math.sqrt(1 / ((i % n) + 1)));
  const mix = rng.normals(n * n).map((v) => v / Math.sqrt(n));
  const x = ops.multiply(false, false, tokens, n, n, z, mix);
  const outliers = new Set(Array.from({ length: 5 }, () => rng.integer(n)));
  for (let i = 0; i < x.length; i++) if (outliers.has(i % n)) x[i] = 10 * x[i]!;
  return ops.gram(x, tokens, n, false);
}

function least<T>(act: () => T): { value: T; ms: number } {
  let ms = Infinity;
  let value = act();
  for (let i = 0; i < repeat; i++) {
    const started = performance.now();
    value = act();
    ms = Math.min(ms, performance.now() - started);
  }
  return { value, ms };
}

const where = machine();
const rows: string[][] = [];
const checks: [string, boolean][] = [];
for (const [m, n] of sizes) {
  const rng = new Rng(m + n);
  const [w, gram] = [rng.normals(m * n).map((v) => v / Math.sqrt(n)), gramOf(n, rng)];
  const grid = (): IntGrid => new IntGrid(m, n, { bits, symmetric: false, groupSize: GROUP, scales: 'F32' });
  const ours = least(() => gptq(w, m, n, gram, grid().fitOnTheWay(), { ops, damping: 0.01 }).w);
  const rtn = least(() => grid().fitStatic(w).nearest(w));
  const row = [`${m}x${n}`, ours.ms.toFixed(1), rtn.ms.toFixed(2), ((4 * m * n) / rtn.ms / (MB / 1000)).toFixed(0)];
  if (peerPython() !== undefined) {
    const files = [w, gram, ours.value].map((values, i) => {
      const path = join(work.path, `${i}.f32`);
      writeFileSync(path, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      return path;
    }) as [string, string, string];
    const p = (await peer('quant.py', [files[0], files[1], String(m), String(n), files[2], '--bits', String(bits), '--threads', String(threads), '--repeat', String(repeat)])) as unknown as Record<string, number>; // prettier-ignore
    row.push((1000 * p['gptqS']!).toFixed(1), (1000 * p['rtnS']!).toFixed(2), times((1000 * p['gptqS']!) / ours.ms), times((1000 * p['rtnS']!) / rtn.ms), p['oursError']!.toFixed(5), p['theirsError']!.toFixed(5), `${(100 * p['same']!).toFixed(1)} %`); // prettier-ignore
    checks.push([`${m}x${n}: output error within 1 % of torch's`, Math.abs(p['oursError']! / p['theirsError']! - 1) <= 0.01]);
    checks.push([`${m}x${n}: gptq at least as fast as torch`, 1000 * p['gptqS']! >= ours.ms]);
  }
  rows.push(row);
}
const theirs = ['torch gptq ms', 'torch rtn ms', 'gptq x', 'rtn x', 'error', 'torch error', 'same values'];
console.log(`${where}\n\n${table(['layer', 'gptq ms', 'rtn ms', 'rtn MB/s', ...(peerPython() === undefined ? [] : theirs)], rows)}\n`);
verdicts(checks);
