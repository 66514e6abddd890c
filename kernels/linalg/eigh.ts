/**
 * Eigenvalues and eigenvectors of a symmetric matrix in f64: LAPACK's dsyevd, or Householder tridiagonalization and the
 * implicit QL method (Bowdler, Martin, Reinsch, Wilkinson: tred2 and tql2, Handbook for Automatic Computation II, 1971).
 */
import { PithError } from '../../core/errors.js';
import type { Blas } from '../backend/blas.js';

export interface Eigen {
  /** Ascending. */
  readonly values: Float64Array;
  /** (n, n) row-major: row i is the eigenvector of values[i]. Empty when only values were asked for. */
  readonly vectors: Float64Array;
}

/** a: (n, n) symmetric, left as it is. */
export function eigh(a: Float64Array, n: number, options: { readonly blas?: Blas | undefined; readonly vectors?: boolean } = {}): Eigen {
  const vectors = options.vectors !== false;
  if (n === 0) return { values: new Float64Array(0), vectors: new Float64Array(0) };
  if (options.blas?.lapack !== undefined) {
    const work = a.slice();
    const values = new Float64Array(n);
    const info = options.blas.lapack.dsyevd(vectors, n, work, values);
    if (info !== 0) throw new PithError('NOT_FINITE', { message: `dsyevd ended with ${info}` });
    // column-major columns are row-major rows
    return { values, vectors: vectors ? work : new Float64Array(0) };
  }
  const v = a.slice();
  const d = new Float64Array(n);
  const e = new Float64Array(n);
  tridiagonalize(v, d, e, n);
  implicitQl(v, d, e, n);
  return sorted(v, d, n);
}

/** The same by LAPACK's ssyevd, in half the time: vectors orthonormal to 1e-6, values to 1e-6 of the largest; from f64 without LAPACK. */
export function eigh32(a: Float32Array, n: number, options: { readonly blas?: Blas | undefined } = {}): { values: Float32Array; vectors: Float32Array } {
  const lapack = options.blas?.lapack;
  if (n > 0 && lapack !== undefined) {
    const work = a.slice();
    const values = new Float32Array(n);
    if (lapack.ssyevd(n, work, values) === 0) return { values, vectors: work };
  }
  const { values, vectors } = eigh(new Float64Array(a), n, options);
  return { values: new Float32Array(values), vectors: new Float32Array(vectors) };
}

function sorted(v: Float64Array, d: Float64Array, n: number): Eigen {
  const order = Array.from(d.keys()).sort((i, j) => d[i]! - d[j]!);
  const vectors = new Float64Array(n * n);
  for (const [i, from] of order.entries()) for (let k = 0; k < n; k++) vectors[i * n + k] = v[k * n + from]!;
  return { values: Float64Array.from(order, (i) => d[i]!), vectors };
}

/** v: the matrix, becomes the accumulated transformation; d: diagonal, e: subdiagonal. */
function tridiagonalize(v: Float64Array, d: Float64Array, e: Float64Array, n: number): void {
  for (let j = 0; j < n; j++) d[j] = v[(n - 1) * n + j]!;
  for (let i = n - 1; i > 0; i--) {
    let scale = 0;
    let h = 0;
    for (let k = 0; k < i; k++) scale += Math.abs(d[k]!);
    if (scale === 0) {
      e[i] = d[i - 1]!;
      for (let j = 0; j < i; j++) {
        d[j] = v[(i - 1) * n + j]!;
        v[i * n + j] = 0;
        v[j * n + i] = 0;
      }
    } else {
      for (let k = 0; k < i; k++) {
        d[k] = d[k]! / scale;
        h += d[k]! * d[k]!;
      }
      h = householderStep(v, d, e, n, i, scale, h);
    }
    d[i] = h;
  }
  for (let i = 0; i < n - 1; i++) {
    v[(n - 1) * n + i] = v[i * n + i]!;
    v[i * n + i] = 1;
    const h = d[i + 1]!;
    if (h !== 0) {
      for (let k = 0; k <= i; k++) d[k] = v[k * n + i + 1]! / h;
      for (let j = 0; j <= i; j++) {
        let g = 0;
        for (let k = 0; k <= i; k++) g += v[k * n + i + 1]! * v[k * n + j]!;
        for (let k = 0; k <= i; k++) v[k * n + j] = v[k * n + j]! - g * d[k]!;
      }
    }
    for (let k = 0; k <= i; k++) v[k * n + i + 1] = 0;
  }
  for (let j = 0; j < n; j++) {
    d[j] = v[(n - 1) * n + j]!;
    v[(n - 1) * n + j] = 0;
  }
  v[n * n - 1] = 1;
  e[0] = 0;
}

function householderStep(v: Float64Array, d: Float64Array, e: Float64Array, n: number, i: number, scale: number, h0: number): number {
  let f = d[i - 1]!;
  let g = f > 0 ? -Math.sqrt(h0) : Math.sqrt(h0);
  e[i] = scale * g;
  const h = h0 - f * g;
  d[i - 1] = f - g;
  for (let j = 0; j < i; j++) e[j] = 0;
  for (let j = 0; j < i; j++) {
    f = d[j]!;
    v[j * n + i] = f;
    g = e[j]! + v[j * n + j]! * f;
    for (let k = j + 1; k < i; k++) {
      g += v[k * n + j]! * d[k]!;
      e[k] = e[k]! + v[k * n + j]! * f;
    }
    e[j] = g;
  }
  f = 0;
  for (let j = 0; j < i; j++) {
    e[j] = e[j]! / h;
    f += e[j]! * d[j]!;
  }
  const hh = f / (h + h);
  for (let j = 0; j < i; j++) e[j] = e[j]! - hh * d[j]!;
  for (let j = 0; j < i; j++) {
    f = d[j]!;
    g = e[j]!;
    for (let k = j; k < i; k++) v[k * n + j] = v[k * n + j]! - (f * e[k]! + g * d[k]!);
    d[j] = v[(i - 1) * n + j]!;
    v[i * n + j] = 0;
  }
  return h;
}

const MAX_SWEEPS = 60;

function implicitQl(v: Float64Array, d: Float64Array, e: Float64Array, n: number): void {
  for (let i = 1; i < n; i++) e[i - 1] = e[i]!;
  e[n - 1] = 0;
  let f = 0;
  let largest = 0;
  for (let l = 0; l < n; l++) {
    largest = Math.max(largest, Math.abs(d[l]!) + Math.abs(e[l]!));
    let m = l;
    while (m < n - 1 && Math.abs(e[m]!) > Number.EPSILON * largest) m++;
    for (let sweep = 0; m > l && Math.abs(e[l]!) > Number.EPSILON * largest; sweep++) {
      if (sweep === MAX_SWEEPS || Number.isNaN(largest)) throw new PithError('NOT_FINITE', { message: 'the eigenvalues did not converge' });
      f += qlSweep(v, d, e, n, l, m);
    }
    d[l] = d[l]! + f;
    e[l] = 0;
  }
}

/** One implicit QL sweep on rows l..m; returns the shift. */
function qlSweep(v: Float64Array, d: Float64Array, e: Float64Array, n: number, l: number, m: number): number {
  let g = d[l]!;
  let p = (d[l + 1]! - g) / (2 * e[l]!);
  let r = p < 0 ? -Math.hypot(p, 1) : Math.hypot(p, 1);
  d[l] = e[l]! / (p + r);
  d[l + 1] = e[l]! * (p + r);
  const next = d[l + 1]!;
  const shift = g - d[l];
  for (let i = l + 2; i < n; i++) d[i] = d[i]! - shift;
  p = d[m]!;
  const e1 = e[l + 1]!;
  let [c, c2, c3, s, s2] = [1, 1, 1, 0, 0];
  for (let i = m - 1; i >= l; i--) {
    c3 = c2;
    c2 = c;
    s2 = s;
    g = c * e[i]!;
    const h = c * p;
    r = Math.hypot(p, e[i]!);
    e[i + 1] = s * r;
    s = e[i]! / r;
    c = p / r;
    p = c * d[i]! - s * g;
    d[i + 1] = h + s * (c * g + s * d[i]!);
    for (let k = 0; k < n; k++) {
      const x = v[k * n + i + 1]!;
      v[k * n + i + 1] = s * v[k * n + i]! + c * x;
      v[k * n + i] = c * v[k * n + i]! - s * x;
    }
  }
  p = (-s * s2 * c3 * e1 * e[l]!) / next;
  e[l] = s * p;
  d[l] = c * p;
  return shift;
}
