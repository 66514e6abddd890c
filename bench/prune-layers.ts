/**
 * Pruning single layers at 50 %, all cores, against the same equations in torch (peers/prune.py):
 *   node dist/bench/prune-layers.js MODEL TEXT [--layers a,b] [--synthetic 4096] [--rounds 2] [--repeat 3] [--threads 2] [--nsamples 32]
 * Layers of MODEL (--layers "": none) with the Gram matrices that `pith calibrate` takes on TEXT, and a synthetic n x n one (eigenvalues that fall, five
 * outlier channels). pith and torch take turns, `rounds` times, best of all repeats; the masks and the errors of the layer's outputs
 * E = sqrt(tr(D G D^T) / tr(W G W^T)) are compared, ties of magnitude apart, before the times are shown. GFLOP/s count what the method needs at least: (2/3) n^3 + m n^2 for
 * sparsegpt, n^3 + 2 (iterations + 1) m n^2 for admm.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Rng } from '../core/rng.js';
import { decodeF32, encodeAs } from '../core/float.js';
import type { TensorView } from '../core/tensor.js';
import { SafetensorsFile } from '../formats/safetensors/file.js';
import { buildHeader, canonicalOrder } from '../formats/safetensors/layout.js';
import { StatsFile } from '../formats/stats/file.js';
import { matrixOps } from '../kernels/linalg/matrix-ops.js';
import { layerError } from '../kernels/linalg/layer-error.js';
import type { Ctx } from '../methods/define.js';
import { loadMethod } from '../methods/index.js';
import type { Sparsity } from '../methods/kinds.js';
import { openAny } from '../workers/open.js';
import { machine, option, peer, peerPython, pith, positionals, table, times, verdicts, workFolder } from './support.js';

const [model = '', text = ''] = positionals(2, 'node dist/bench/prune-layers.js MODEL TEXT [--layers a,b] [--synthetic 4096]');
/** Beyond so many weights a layer is pruned once a round. */
const LARGE = 4e6;
const [rounds, repeats, threads] = [Number(option('rounds', '2')), Number(option('repeat', '3')), Number(option('threads', '2'))];
const repeatsOf = ({ m, n }: Layer): number => (m * n > LARGE ? 1 : repeats);
const nsamples = option('nsamples', '32');
const side = Number(option('synthetic', '4096'));
const chosen = option('layers', 'model.layers.15.self_attn.q_proj,model.layers.15.mlp.gate_proj,model.layers.15.mlp.down_proj')
  .split(',')
  .filter((name) => name !== '');
const ITERATIONS = 20;
/** Share of equal mask entries, relative difference of E, torch's time over ours. */
const TARGET = { mask: 0.999, error: 0.01, speed: { magnitude: 1, wanda: 2, sparsegpt: 1, admm: 1, 'admm-wanda': 1 } } as const;
type Name = keyof typeof TARGET.speed;

interface MethodRun {
  readonly method: string;
  readonly params: object;
  readonly target: Sparsity;
  flops(m: number, n: number): number;
}
const admmFlops = (m: number, n: number): number => n ** 3 + 2 * (ITERATIONS + 1) * m * n * n;
const LAYER = { group: 'layer', ratio: 0.5 } as const;
const ROW = { group: 'row', ratio: 0.5 } as const;
const METHODS: Readonly<Record<Name, MethodRun>> = {
  magnitude: { method: 'magnitude', params: {}, target: LAYER, flops: () => 0 },
  wanda: { method: 'wanda', params: {}, target: ROW, flops: () => 0 },
  sparsegpt: { method: 'sparsegpt', params: {}, target: LAYER, flops: (m, n) => (2 / 3) * n ** 3 + m * n * n },
  admm: { method: 'admm', params: { iterations: ITERATIONS }, target: LAYER, flops: admmFlops },
  'admm-wanda': { method: 'admm', params: { iterations: ITERATIONS, mask: 'wanda' }, target: ROW, flops: admmFlops },
};
const NAMES = Object.keys(METHODS) as readonly Name[];

interface Layer {
  readonly name: string;
  readonly m: number;
  readonly n: number;
  readonly w: Float32Array;
  readonly gram: Float32Array;
}

using work = workFolder('prune');
const ops = await matrixOps({ blasThreads: threads });

async function realLayers(): Promise<Layer[]> {
  if (chosen.length === 0) return [];
  const statsPath = join(work.path, 'stats.safetensors');
  const include = chosen.flatMap((name) => ['--include', `${name}.weight`]);
  await pith(['calibrate', model, '--dataset', text, '--nsamples', nsamples, '--seqlen', '512', '--stats', 'gram', ...include, '--out', statsPath]);
  using stats = StatsFile.open(statsPath);
  await using reader = await openAny(model);
  const out: Layer[] = [];
  for (const name of chosen) {
    const view = await reader.read(`${name}.weight`);
    const [m, n] = [view.shape[0]!, view.shape[1]!];
    out.push({ name, m, n, w: decodeF32(view.dtype, view.bytes), gram: stats.read(name, 'inputGram') });
  }
  return out;
}

/** Inputs Z diag(sqrt(lambda)) R with lambda_i = 1/i, R Gaussian; five channels ten times as large. */
function syntheticLayer(n: number): Layer {
  const [rng, tokens] = [new Rng(7), 2 * n];
  const z = rng.normals(tokens * n);
  for (let at = 0; at < z.length; at += n) for (let j = 0; j < n; j++) z[at + j] = z[at + j]! / Math.sqrt(j + 1);
  const x = ops.multiply(false, false, tokens, n, n, z, rng.normals(n * n));
  const outliers = Array.from({ length: 5 }, () => rng.integer(n));
  for (let at = 0; at < x.length; at += n) for (const j of outliers) x[at + j] = 10 * x[at + j]!;
  return { name: 'synthetic', m: n, n, w: rng.normals(n * n).map((v) => v / Math.sqrt(n)), gram: ops.gram(x, tokens, n, false) };
}

const view = (name: string, shape: number[], values: Float32Array): TensorView => ({ name, dtype: 'F32', shape, bytes: encodeAs('F32', values) });

function writeLayer(path: string, { name, m, n, w, gram }: Layer): void {
  const views = canonicalOrder([view(`${name}.weight`, [m, n], w), view(`${name}.inputGram`, [n, n], gram)]);
  writeFileSync(path, Buffer.concat([buildHeader(views, {}, path).header, ...views.map((v) => v.bytes)]));
}

const ctx: Ctx = { device: 'cpu', rng: new Rng(0), blasThreads: threads, memoryBytes: 4e9, report: () => undefined, checkpointCancel: () => undefined };

interface Result {
  ms: number;
  w: Float32Array;
  mask: Uint8Array;
}

/** Copies of the inputs are not timed, as with the peer. */
async function ours(layer: Layer, name: Name): Promise<Result> {
  const { method, params, target } = METHODS[name];
  const pruner = (await loadMethod('prune', method)).create(params);
  const { m, n } = layer;
  const inputSqNorm = Float32Array.from({ length: n }, (_, j) => layer.gram[j * (n + 1)]!);
  let best: Result = { ms: Infinity, w: layer.w, mask: new Uint8Array(0) };
  for (let i = 0; i < repeatsOf(layer); i++) {
    const [w, inputGram] = [layer.w.slice(), layer.gram.slice()];
    const started = performance.now();
    const done = await pruner.prune(ctx, { name: layer.name, m, n, w }, { tokens: 1, inputSqNorm, inputGram }, target);
    best = { ms: Math.min(best.ms, performance.now() - started), w: done.w, mask: done.mask };
  }
  return best;
}

async function theirs(layer: Layer, file: string): Promise<Map<Name, Result>> {
  const out = join(work.path, 'peer.safetensors');
  const args = [file, out, '--layer', layer.name, '--methods', NAMES.join(','), '--ratio', '0.5', '--repeat', repeatsOf(layer), '--threads', threads];
  const { seconds } = (await peer('prune.py', args.map(String))) as unknown as { seconds: Record<Name, number> };
  using st = SafetensorsFile.open(out);
  const read = (part: string): Uint8Array => st.read(part).bytes;
  return new Map(NAMES.map((name) => [name, { ms: 1000 * seconds[name], w: decodeF32('F32', read(`${name}.weight`)), mask: read(`${name}.mask`) }]));
}

async function inTurns(layer: Layer): Promise<Record<'ours' | 'theirs', Map<Name, Result>>> {
  const file = join(work.path, 'layer.safetensors');
  writeLayer(file, layer);
  const all = { ours: new Map<Name, Result>(), theirs: new Map<Name, Result>() };
  const keep = (into: Map<Name, Result>, name: Name, r: Result): unknown => into.set(name, { ...r, ms: Math.min(r.ms, into.get(name)?.ms ?? Infinity) });
  for (let round = 0; round < rounds; round++) {
    for (const name of NAMES) keep(all.ours, name, await ours(layer, name));
    if (peerPython() === undefined) continue;
    for (const [name, r] of await theirs(layer, file)) keep(all.theirs, name, r);
  }
  return all;
}

/** The size of weight that is partly kept and partly not: bf16 has few of them, and torch removes all or none. */
const largestRemoved = (w: Float32Array, mask: Uint8Array): number => w.reduce((top, v, i) => (mask[i] === 0 ? Math.max(top, Math.abs(v)) : top), 0);

const rows: string[][] = [];
const checks: [string, boolean][] = [];

function compare(layer: Layer, name: Name, mine: Result, its: Result | undefined): void {
  const { m, n } = layer;
  const error = (r: Result): number => layerError(layer.w, r.w, m, n, layer.gram, ops);
  const flops = METHODS[name].flops(m, n);
  const [e, rate] = [error(mine), flops === 0 ? '' : (flops / 1e6 / mine.ms).toFixed(0)];
  const head = [name === NAMES[0] ? `${layer.name.replace('model.layers.', '')} ${m} x ${n}` : '', name, mine.ms.toFixed(1), rate];
  if (its === undefined) return void rows.push([...head, '', '', e.toFixed(5), '', '']);
  const theirE = error(its);
  const tie = name === 'magnitude' ? largestRemoved(layer.w, mine.mask) : NaN;
  const same = mine.mask.reduce((count, v, i) => count + (v === its.mask[i] || Math.abs(layer.w[i]!) === tie ? 1 : 0), 0) / mine.mask.length;
  rows.push([...head, its.ms.toFixed(1), times(its.ms / mine.ms), e.toFixed(5), theirE.toFixed(5), `${(100 * same).toFixed(3)} %`]);
  const what = `${layer.name} ${name}`;
  checks.push([`${what}: ${(100 * same).toFixed(3)} % of the mask as torch's, target 99.9`, same >= TARGET.mask]);
  checks.push([`${what}: E ${e.toFixed(5)}, torch's ${theirE.toFixed(5)}, target within 1 %`, Math.abs(e / theirE - 1) <= TARGET.error]);
  checks.push([`${what}: ${times(its.ms / mine.ms)} x torch's speed, target ${TARGET.speed[name]}`, its.ms / mine.ms >= TARGET.speed[name]]);
}

const before = machine();
for (const layer of [...(await realLayers()), ...(side > 0 ? [syntheticLayer(side)] : [])]) {
  const all = await inTurns(layer);
  for (const name of NAMES) compare(layer, name, all.ours.get(name)!, all.theirs.get(name));
}
console.log(`${before}, after ${machine().split('load before ')[1] ?? '?'}; ${threads} threads, best of ${rounds} x ${repeats}\n`);
console.log(table(['layer', 'method', 'ms', 'GFLOP/s', 'torch ms', 'its / ours', 'E', 'torch E', 'same mask'], rows), '\n');
verdicts(checks);
