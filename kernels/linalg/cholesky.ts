/** Cholesky factorization and triangular work in f64, for the small matrices of the factorizations (n up to a few thousand). */

/** Lower factor of a symmetric positive definite matrix (n, n), row-major; undefined when it is not positive definite. */
export function cholesky(a: Float64Array, n: number): Float64Array | undefined {
  const l = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = a[i * n + j]!;
      for (let k = 0; k < j; k++) sum -= l[i * n + k]! * l[j * n + k]!;
      if (i !== j) l[i * n + j] = sum / l[j * n + j]!;
      else if (sum > 0 && Number.isFinite(sum)) l[i * n + i] = Math.sqrt(sum);
      else return undefined;
    }
  }
  return l;
}

/** Inverse of a lower triangular matrix (n, n). */
export function invertLower(l: Float64Array, n: number): Float64Array {
  const x = new Float64Array(n * n);
  for (let j = 0; j < n; j++) {
    x[j * n + j] = 1 / l[j * n + j]!;
    for (let i = j + 1; i < n; i++) {
      let sum = 0;
      for (let k = j; k < i; k++) sum += l[i * n + k]! * x[k * n + j]!;
      x[i * n + j] = -sum / l[i * n + i]!;
    }
  }
  return x;
}

/** Solves L L^T X = B in place; b: (n, columns). */
export function choleskySolve(l: Float64Array, n: number, b: Float64Array, columns: number): void {
  for (let c = 0; c < columns; c++) {
    for (let i = 0; i < n; i++) {
      let sum = b[i * columns + c]!;
      for (let k = 0; k < i; k++) sum -= l[i * n + k]! * b[k * columns + c]!;
      b[i * columns + c] = sum / l[i * n + i]!;
    }
    for (let i = n - 1; i >= 0; i--) {
      let sum = b[i * columns + c]!;
      for (let k = i + 1; k < n; k++) sum -= l[k * n + i]! * b[k * columns + c]!;
      b[i * columns + c] = sum / l[i * n + i]!;
    }
  }
}

/** A + damp * mean(diag A) * I, with `damp` raised tenfold until it factors. */
export function dampedCholesky(a: Float64Array, n: number, damp: number): { l: Float64Array; damp: number } {
  let mean = 0;
  for (let i = 0; i < n; i++) mean += a[i * n + i]! / n;
  for (let d = damp; ; d = d === 0 ? 1e-10 : d * 10) {
    const b = a.slice();
    for (let i = 0; i < n; i++) b[i * n + i] = b[i * n + i]! + d * (mean > 0 ? mean : 1);
    const l = cholesky(b, n);
    if (l !== undefined) return { l, damp: d };
    if (!(d < 1e6)) return { l: new Float64Array(n * n).fill(NaN), damp: d };
  }
}
