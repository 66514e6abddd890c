/** The sheet's F1, and what pruned layers are judged by. */
import { Rng } from '../../core/rng.js';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import { orthonormalize } from '../../kernels/linalg/qr.js';
import type { Ctx } from '../../methods/define.js';
import { loadMethod } from '../../methods/index.js';
import type { KeepMask, LayerStats, LayerWeight, Pruned, Pruner, Sparsity } from '../../methods/kinds.js';

export const ops = await matrixOps({ blasThreads: 1 });

export const ctx = (seed = 1): Ctx => ({
  device: 'cpu',
  rng: new Rng(seed),
  blasThreads: 1,
  memoryBytes: 1e9,
  report: () => undefined,
  checkpointCancel: () => undefined,
});

export const pruner = async (name: string, params: object = {}): Promise<Pruner> => (await loadMethod('prune', name)).create(params);

export interface Layer {
  readonly layer: LayerWeight;
  readonly stats: Required<LayerStats>;
}

/** Statistics of inputs x: (tokens, n). */
export function statsOf(x: Float32Array, tokens: number, n: number): Required<LayerStats> {
  const inputGram = ops.gram(x, tokens, n, false);
  const inputAbsMean = new Float32Array(n);
  for (let i = 0; i < x.length; i++) inputAbsMean[i % n] = inputAbsMean[i % n]! + Math.abs(x[i]!) / tokens;
  return { tokens, inputGram, inputAbsMean, inputSqNorm: Float32Array.from({ length: n }, (_, j) => inputGram[j * n + j]!) };
}

/** n 512, m 256, 2048 tokens, eigenvalues 1/i, five outlier channels; W Gaussian / sqrt(n). Smaller ones are for tests of exactness. */
export function f1(rng: Rng, m = 256, n = 512, tokens = 2048): Layer {
  const raw = Array.from({ length: n }, (_, i) => 1 / (i + 1));
  const mean = raw.reduce((a, b) => a + b, 0) / n;
  const q = orthonormalize(rng.normals(n * n), n, n, ops);
  const roots = raw.map((v) => Math.sqrt(v / mean));
  const z = rng.normals(tokens * n).map((v, i) => v * roots[i % n]!);
  const x = ops.multiply(false, true, tokens, n, n, z, q);
  const outliers = new Set<number>();
  while (outliers.size < Math.min(5, n)) outliers.add(rng.integer(n));
  for (let i = 0; i < x.length; i++) if (outliers.has(i % n)) x[i] = 10 * x[i]!;
  const w = rng.normals(m * n).map((v) => v / Math.sqrt(n));
  return { layer: { name: 'layers.0.proj', m, n, w }, stats: statsOf(x, tokens, n) };
}

/** Prunes copies: the layer and its statistics stay. */
export async function pruned(name: string, { layer, stats }: Layer, target: Sparsity, params: object = {}): Promise<Pruned> {
  const method = await pruner(name, params);
  return method.prune(ctx(), { ...layer, w: layer.w.slice() }, copyOf(stats), target);
}

export async function updated(name: string, { layer, stats }: Layer, mask: KeepMask, params: object = {}): Promise<Pruned> {
  const method = await pruner(name, params);
  return method.update!(ctx(), { ...layer, w: layer.w.slice() }, copyOf(stats), mask);
}

const copyOf = (stats: LayerStats): LayerStats => ({ ...stats, ...(stats.inputGram === undefined ? {} : { inputGram: stats.inputGram.slice() }) });

/** sqrt(tr(D G D^T) / tr(W G W^T)), D = What - W */
export function outputError(what: ArrayLike<number>, { layer: { w, m, n }, stats }: Layer): number {
  const gram = new Float64Array(stats.inputGram);
  const energy = (x: Float64Array): number => {
    const xg = ops.multiply64(false, false, m, n, n, x, gram);
    let sum = 0;
    for (let i = 0; i < x.length; i++) sum += xg[i]! * x[i]!;
    return Math.max(0, sum);
  };
  return Math.sqrt(energy(Float64Array.from(w, (v, i) => what[i]! - v)) / energy(new Float64Array(w)));
}

export const zeros = (mask: Uint8Array, from = 0, to = mask.length): number => mask.subarray(from, to).reduce((count, v) => count + (v === 0 ? 1 : 0), 0);
