/** Matrices with a known spectrum, and the naive products that kernels are checked against. */
import type { Rng } from '../../core/rng.js';

/** (m, n) row-major product in f64 of (m, k) and (k, n). */
export function naiveProduct(a: ArrayLike<number>, b: ArrayLike<number>, m: number, k: number, n: number): Float64Array {
  const c = new Float64Array(m * n);
  for (let i = 0; i < m; i++) for (let l = 0; l < k; l++) for (let j = 0; j < n; j++) c[i * n + j] = c[i * n + j]! + a[i * k + l]! * b[l * n + j]!;
  return c;
}

/** (rows, k) with orthonormal columns: modified Gram-Schmidt, twice, in f64. */
export function orthonormalColumns(rng: Rng, rows: number, k: number): Float64Array {
  const q = Float64Array.from({ length: rows * k }, () => rng.normal());
  for (let round = 0; round < 2; round++) {
    for (let j = 0; j < k; j++) {
      for (let l = 0; l < j; l++) {
        let dot = 0;
        for (let i = 0; i < rows; i++) dot += q[i * k + l]! * q[i * k + j]!;
        for (let i = 0; i < rows; i++) q[i * k + j] = q[i * k + j]! - dot * q[i * k + l]!;
      }
      let norm = 0;
      for (let i = 0; i < rows; i++) norm += q[i * k + j]! ** 2;
      for (let i = 0; i < rows; i++) q[i * k + j] = q[i * k + j]! / Math.sqrt(norm);
    }
  }
  return q;
}

/** U diag(s) V^T, (m, n) f32, with random orthonormal factors. */
export function withSpectrum(rng: Rng, m: number, n: number, s: ArrayLike<number>): Float32Array {
  const k = s.length;
  const u = orthonormalColumns(rng, m, k);
  const v = orthonormalColumns(rng, n, k);
  const vt = new Float64Array(k * n);
  for (let j = 0; j < n; j++) for (let l = 0; l < k; l++) vt[l * n + j] = v[j * k + l]! * s[l]!;
  return Float32Array.from(naiveProduct(u, vt, m, k, n));
}

export const frobenius = (a: ArrayLike<number>): number => Math.sqrt(Array.from(a).reduce((sum, v) => sum + v * v, 0));

/** ||a - b||_F */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return Math.sqrt(sum);
}

/** The sheet's F2: a low-rank part over a power-law tail, RMS entry 0.001. */
export function f2Delta(rng: Rng): { delta: Float32Array; s: Float64Array; m: number; n: number } {
  const [m, n] = [512, 768];
  const raw = Array.from({ length: m }, (_, i) => Math.exp(-i / 16) + 0.05 * (i + 1) ** -0.5);
  const scale = (0.001 * Math.sqrt(m * n)) / frobenius(raw);
  const s = Float64Array.from(raw, (v) => v * scale);
  return { delta: withSpectrum(rng, m, n, s), s, m, n };
}
