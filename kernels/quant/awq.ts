/**
 * The searches of AWQ ("AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", Lin et al., 2023, arXiv 2306.00978),
 * on the Gram matrix G = X^T X in place of the inputs themselves: every mean squared output is a quadratic form in it.
 *   scales: t = mean|x_j|, s = max(t^alpha, 1e-4) / sqrt(max s min s), alpha = 0, 0.05 .. 0.95 of least tr(D G D^T), D = Q(W s) / s - W
 *   ranges: max|w| (1 - i/20), i = 0 .. 9, by row and group, of least d G_gg d^T
 */
import type { MatrixOps } from '../linalg/matrix-ops.js';

const STEPS = 20;
const LEAST_SCALE = 1e-4;
const RANGE_STEPS = 10;

/** What a weight (m, n) is decoded to. */
export type Rounding = (w: Float32Array) => Float32Array;

export interface ScaleSearch {
  readonly scales: Float32Array;
  readonly alpha: number;
  /** Of its squared output error to that of alpha = 0. */
  readonly gain: number;
}

export function inputScales(absMean: Float32Array, alpha: number): Float32Array {
  const s = absMean.map((t) => Math.max(t ** alpha, LEAST_SCALE));
  const middle = Math.sqrt(s.reduce((a, b) => Math.max(a, b)) * s.reduce((a, b) => Math.min(a, b)));
  return s.map((v) => v / middle);
}

/** W diag(s), or W diag(1 / s). */
export function scaleColumns(w: Float32Array, s: Float32Array, inverse: boolean): Float32Array {
  const n = s.length;
  const factors = inverse ? s.map((v) => 1 / v) : s;
  return w.map((v, i) => v * factors[i % n]!);
}

export function searchScales(w: Float32Array, m: number, absMean: Float32Array, gram: Float32Array, rounding: Rounding, ops: MatrixOps): ScaleSearch {
  const n = absMean.length;
  let best: ScaleSearch | undefined;
  let [first, least] = [0, Infinity];
  for (let step = 0; step < STEPS; step++) {
    const alpha = step / STEPS;
    const scales = inputScales(absMean, alpha);
    const d = scaleColumns(rounding(scaleColumns(w, scales, false)), scales, true);
    for (let i = 0; i < d.length; i++) d[i] = d[i]! - w[i]!;
    const dg = ops.multiply(false, false, m, n, n, d, gram);
    let loss = 0;
    for (let i = 0; i < d.length; i++) loss += d[i]! * dg[i]!;
    if (step === 0) first = loss;
    if (loss < least) [least, best] = [loss, { scales, alpha, gain: first > 0 ? loss / first : 1 }];
  }
  return best ?? { scales: inputScales(absMean, 0), alpha: 0, gain: 1 };
}

/** w with each group's values held to its best range. gram: of the inputs of this w. */
export function searchRanges(w: Float32Array, m: number, n: number, size: number, gram: Float32Array, rounding: Rounding, ops: MatrixOps): Float32Array {
  const groups = Math.ceil(n / size);
  const least = new Float64Array(m * groups).fill(Infinity);
  const factor = new Float32Array(m * groups).fill(1);
  const maxima = new Float32Array(m * groups);
  for (let at = 0; at < w.length; at++) {
    const k = Math.floor(at / n) * groups + Math.floor((at % n) / size);
    maxima[k] = Math.max(maxima[k]!, Math.abs(w[at]!));
  }
  const blocks = Array.from({ length: groups }, (_, g) => diagonalBlock(gram, n, g * size, Math.min(n, (g + 1) * size)));
  for (let step = 0; step < RANGE_STEPS; step++) {
    const share = 1 - step / (2 * RANGE_STEPS);
    const d = rounding(held(w, n, size, maxima, () => share));
    for (let i = 0; i < d.length; i++) d[i] = d[i]! - w[i]!;
    for (const [g, block] of blocks.entries()) {
      const width = Math.sqrt(block.length);
      const part = new Float32Array(m * width);
      for (let i = 0; i < m; i++) part.set(d.subarray(i * n + g * size, i * n + g * size + width), i * width);
      const product = ops.multiply(false, false, m, width, width, part, block);
      for (let i = 0; i < m; i++) {
        let loss = 0;
        for (let k = i * width; k < (i + 1) * width; k++) loss += part[k]! * product[k]!;
        if (loss < least[i * groups + g]!) [least[i * groups + g], factor[i * groups + g]] = [loss, share];
      }
    }
  }
  return held(w, n, size, maxima, (k) => factor[k]!);
}

function diagonalBlock(gram: Float32Array, n: number, from: number, to: number): Float32Array {
  const out = new Float32Array((to - from) ** 2);
  for (let i = from; i < to; i++) out.set(gram.subarray(i * n + from, i * n + to), (i - from) * (to - from));
  return out;
}

function held(w: Float32Array, n: number, size: number, maxima: Float32Array, share: (group: number) => number): Float32Array {
  const groups = Math.ceil(n / size);
  return w.map((v, at) => {
    const k = Math.floor(at / n) * groups + Math.floor((at % n) / size);
    const most = maxima[k]! * share(k);
    return v > most ? most : v < -most ? -most : v;
  });
}
