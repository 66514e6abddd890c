/**
 * Half-quadratic quantization (Badri, Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023,
 * https://mobiusml.github.io/hqq_blog/): the zero point, a real number, of least |w - r|^p by alternating minimization.
 *   s' = (2^b - 1) / (max - min), z = -min s';  q = clamp(round(w s' + z)), r = (q - z) / s',  e = shrink_p(w - r, beta),
 *   z = mean(q - (w - e) s'),  beta *= kappa;   shrink_p(x) = sign(x) max(|x| - |x|^(p-1) / beta, 0)
 * It stops when the mean of |w - r| over the layer falls no more. Deviation: the best zero points are kept; the release keeps the last.
 */
const P = 0.7;
const BETA = 10;
const KAPPA = 1.01;
const ITERATIONS = 20;
const MOST_SCALE = 2e4;

/** 1.5 * 2^52: adding and subtracting it rounds to the nearest integer, ties to even. */
const MAGIC = 6755399441055744;

export interface FloatZeroGroups {
  readonly codes: Uint8Array;
  /** 1 / s', one a group. */
  readonly scales: Float32Array;
  readonly zeros: Float32Array;
}

/** w in groups of `size`, the last of each row of n shorter. */
export function halfQuadratic(w: Float32Array, n: number, size: number, bits: number, iterations = ITERATIONS): FloatZeroGroups {
  const groups = Math.ceil(n / size);
  const count = (w.length / n) * groups;
  const part = (k: number): [from: number, to: number] => {
    const [i, g] = [Math.floor(k / groups), k % groups];
    return [i * n + g * size, i * n + Math.min(n, (g + 1) * size)];
  };
  const scales = new Float32Array(count);
  let zeros = new Float32Array(count);
  for (let k = 0; k < count; k++) [scales[k], zeros[k]] = start(w, ...part(k), bits);
  let [best, least, beta] = [zeros, Infinity, BETA];
  for (let step = 0; step <= iterations; step++, beta *= KAPPA) {
    const next = new Float32Array(count);
    let error = 0;
    for (let k = 0; k < count; k++) {
      const fitted = nextZero(w, ...part(k), 1 / scales[k]!, zeros[k]!, 2 ** bits - 1, beta);
      error += fitted.error;
      next[k] = fitted.zero;
    }
    if (error >= least) break;
    [best, least, zeros] = [zeros, error, next];
  }
  const codes = new Uint8Array(w.length);
  for (let k = 0; k < count; k++) {
    const [from, to] = part(k);
    for (let i = from; i < to; i++) codes[i] = rounded(w[i]! / scales[k]! + best[k]!, 2 ** bits - 1);
  }
  return { codes, scales, zeros: best };
}

function rounded(v: number, top: number): number {
  const q = v + MAGIC - MAGIC;
  return q < 0 ? 0 : q > top ? top : q;
}

/** 1 / s' and z of the whole range. */
function start(w: Float32Array, from: number, to: number, bits: number): [scale: number, zero: number] {
  let [lo, hi] = [Infinity, -Infinity];
  for (let i = from; i < to; i++) [lo, hi] = [Math.min(lo, w[i]!), Math.max(hi, w[i]!)];
  const scale = hi > lo ? Math.min(MOST_SCALE, (2 ** bits - 1) / (hi - lo)) : 1;
  return [1 / scale, bits === 4 ? -lo * scale + MAGIC - MAGIC : -lo * scale];
}

/** sum |w - r| under z, and the z after it. */
function nextZero(w: Float32Array, from: number, to: number, scale: number, zero: number, top: number, beta: number): { error: number; zero: number } {
  let [error, next] = [0, 0];
  for (let i = from; i < to; i++) {
    const v = w[i]!;
    const q = rounded(v * scale + zero, top);
    const off = v - (q - zero) / scale;
    const size = Math.abs(off);
    error += size;
    const e = size === 0 ? 0 : Math.sign(off) * Math.max(0, size - size ** (P - 1) / beta);
    next += q - (v - e) * scale;
  }
  return { error, zero: next / (to - from) };
}
