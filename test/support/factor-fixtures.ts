/** The sheet's F1, and gradients with known covariances: what factorizers are judged on. */
import type { Rng } from '../../core/rng.js';
import { matrixOps } from '../../kernels/linalg/matrix-ops.js';
import type { Ctx } from '../../methods/define.js';
import { loadMethod } from '../../methods/index.js';
import type { Decomposition, FactorStats, LayerWeight } from '../../methods/kinds.js';
import { orthonormalColumns, withSpectrum } from './random-matrix.js';

export const ops = await matrixOps({ blasThreads: 1 });

export const ctx = (rng: Rng): Ctx => ({ device: 'cpu', rng, blasThreads: 1, memoryBytes: 1e9, report: () => undefined, checkpointCancel: () => undefined });

export async function decompose(rng: Rng, name: string, layer: LayerWeight, stats: FactorStats, params: object = {}): Promise<Decomposition> {
  const method = (await loadMethod('factor', name)).create(params);
  return method.decompose(ctx(rng), layer, stats);
}

/** A B, (m, n) */
export function productOf(d: Decomposition, rank: number, m: number, n: number): Float32Array {
  const { a, b } = d.factors(rank);
  return ops.multiply(false, false, m, n, rank, a, b);
}

export interface F1 {
  readonly layer: LayerWeight;
  readonly stats: Required<Pick<FactorStats, 'inputGram' | 'inputAbsMean' | 'tokens'>>;
}

/** n 512, m 256, 2048 tokens, five outlier channels; W has the spectrum i^-0.5. */
export function f1(rng: Rng): F1 {
  const [m, n, tokens] = [256, 512, 2048];
  const raw = Array.from({ length: n }, (_, i) => 1 / (i + 1));
  const mean = raw.reduce((a, b) => a + b, 0) / n;
  const q = new Float32Array(orthonormalColumns(rng, n, n));
  const z = rng.normals(tokens * n).map((v, i) => v * Math.sqrt(raw[i % n]! / mean));
  const x = ops.multiply(false, true, tokens, n, n, z, q);
  const outliers = new Set<number>();
  while (outliers.size < 5) outliers.add(rng.integer(n));
  for (let i = 0; i < x.length; i++) if (outliers.has(i % n)) x[i] = 10 * x[i]!;
  const inputAbsMean = new Float32Array(n);
  for (let i = 0; i < x.length; i++) inputAbsMean[i % n] = inputAbsMean[i % n]! + Math.abs(x[i]!) / tokens;
  const w = withSpectrum(
    rng,
    m,
    n,
    Array.from({ length: m }, (_, i) => (i + 1) ** -0.5),
  );
  return { layer: { name: 'layer', m, n, w }, stats: { tokens, inputGram: ops.gram(x, tokens, n, false), inputAbsMean } };
}

/** sqrt(tr(D G D^T) / tr(W G W^T)), D = What - W */
export function outputError(what: Float32Array, { w, m, n }: LayerWeight, gram: Float32Array): number {
  const energy = (x: Float32Array): number => {
    const xg = ops.multiply64(false, false, m, n, n, new Float64Array(x), new Float64Array(gram));
    return Math.max(
      0,
      xg.reduce((sum, v, i) => sum + v * x[i]!, 0),
    );
  };
  return Math.sqrt(energy(what.map((v, i) => v - w[i]!)) / energy(w));
}

/** Gradients g x^T whose covariances have spectra 1/i in random bases. */
export interface Outer {
  readonly g: readonly Float64Array[];
  readonly x: readonly Float64Array[];
}

export function outerGradients(rng: Rng, m: number, n: number, count: number): Outer {
  const drawer = (size: number): (() => Float64Array) => {
    const q = orthonormalColumns(rng, size, size);
    return () => {
      const z = Array.from({ length: size }, (_, i) => rng.normal() / Math.sqrt(i + 1));
      return Float64Array.from({ length: size }, (_, r) => z.reduce((sum, v, k) => sum + v * q[r * size + k]!, 0));
    };
  };
  const [left, right] = [drawer(m), drawer(n)];
  return { g: Array.from({ length: count }, left), x: Array.from({ length: count }, right) };
}

/** The statistics of such gradients: row sums of squares, and the leading Kronecker pair by power iteration. */
export function fisherStats({ g, x }: Outer, m: number, n: number): Required<Pick<FactorStats, 'fisherRow' | 'fisherA' | 'fisherB'>> {
  const fisherRow = new Float32Array(m);
  g.forEach((v, t) => {
    const xx = x[t]!.reduce((sum, u) => sum + u * u, 0);
    for (let i = 0; i < m; i++) fisherRow[i] = fisherRow[i]! + v[i]! ** 2 * xx;
  });
  // G A G^T = g (x^T A x) g^T
  const weighted = (of: readonly Float64Array[], by: readonly Float64Array[], metric: Float64Array): Float64Array => {
    const [size, other] = [of[0]!.length, by[0]!.length];
    const out = new Float64Array(size * size);
    of.forEach((v, t) => {
      const u = by[t]!;
      let c = 0;
      for (let i = 0; i < other; i++) for (let j = 0; j < other; j++) c += u[i]! * metric[i * other + j]! * u[j]!;
      c /= of.length;
      for (let i = 0; i < size; i++) for (let j = 0; j < size; j++) out[i * size + j] = out[i * size + j]! + c * v[i]! * v[j]!;
    });
    return out;
  };
  const unit = (a: Float64Array): Float64Array => {
    const norm = Math.sqrt(a.reduce((sum, v) => sum + v * v, 0));
    return a.map((v) => v / norm);
  };
  let a = unit(Float64Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0)));
  for (let sweep = 0; sweep < 8; sweep++) a = unit(weighted(x, g, unit(weighted(g, x, a))));
  return { fisherRow, fisherA: new Float32Array(a), fisherB: new Float32Array(weighted(g, x, a)) };
}

/** mean_t <G_t, D>^2 */
export function fisherLoss({ g, x }: Outer, d: Float64Array | Float32Array, m: number, n: number): number {
  let total = 0;
  g.forEach((v, t) => {
    const u = x[t]!;
    let dot = 0;
    for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) dot += v[i]! * d[i * n + j]! * u[j]!;
    total += dot * dot;
  });
  return total / g.length;
}
