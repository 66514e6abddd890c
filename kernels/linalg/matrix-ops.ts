/** The few matrix primitives that the factorizations are built from, on the machine's BLAS or in plain wasm. Row-major throughout. */
import { loadBlas, type Blas } from '../backend/blas.js';
import { loadWasm } from '../wasm/load.js';

export type Real = Float32Array | Float64Array;

export interface MatrixOps {
  readonly name: string;
  /** For LAPACK; absent in plain wasm. */
  readonly blas: Blas | undefined;
  /** op(A) op(B): (m, k) by (k, n) -> (m, n), f32. */
  multiply(transA: boolean, transB: boolean, m: number, n: number, k: number, a: Float32Array, b: Float32Array): Float32Array;
  /** The same in f64. */
  multiply64(transA: boolean, transB: boolean, m: number, n: number, k: number, a: Float64Array, b: Float64Array): Float64Array;
  /** C = alpha op(A) op(B) + beta C in place, f32; with beta 0 what C held does not matter. */
  gemm(transA: boolean, transB: boolean, m: number, n: number, k: number, alpha: number, a: Float32Array, b: Float32Array, beta: number, c: Float32Array): void;
  /** C = alpha A B + beta C for panels of larger matrices, row-major: ld* are the lengths of whole rows. All f32 or all f64. */
  panels<A extends Real>(m: number, n: number, k: number, alpha: number, a: A, lda: number, b: A, ldb: number, beta: number, c: A, ldc: number): void;
  /** A^T A (n, n), or A A^T (m, m) with `rows`, for A (m, n); f32, both triangles. Into `out` where it is given. */
  gram(a: Float32Array, m: number, n: number, rows: boolean, out?: Float32Array): Float32Array;
}

/** BLAS when the machine has one and `blas` is not false. */
export async function matrixOps(options: { readonly blasThreads: number; readonly blas?: boolean }): Promise<MatrixOps> {
  const blas = options.blas === false ? undefined : loadBlas();
  if (blas === undefined) return plainOps();
  blas.setThreads(options.blasThreads);
  return blasOps(blas);
}

function blasOps(blas: Blas): MatrixOps {
  return {
    name: blas.name,
    blas,
    multiply(ta, tb, m, n, k, a, b) {
      const c = new Float32Array(m * n);
      blas.sgemm(ta, tb, m, n, k, 1, a, ta ? m : k, b, tb ? k : n, 0, c, n);
      return c;
    },
    multiply64(ta, tb, m, n, k, a, b) {
      const c = new Float64Array(m * n);
      blas.dgemm(ta, tb, m, n, k, 1, a, ta ? m : k, b, tb ? k : n, 0, c, n);
      return c;
    },
    gemm(ta, tb, m, n, k, alpha, a, b, beta, c) {
      blas.sgemm(ta, tb, m, n, k, alpha, a, ta ? m : k, b, tb ? k : n, beta, c, n);
    },
    panels(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) {
      if (c instanceof Float32Array) blas.sgemm(false, false, m, n, k, alpha, a as Float32Array, lda, b as Float32Array, ldb, beta, c, ldc);
      else blas.dgemm(false, false, m, n, k, alpha, a as Float64Array, lda, b as Float64Array, ldb, beta, c, ldc);
    },
    gram(a, m, n, rows, out) {
      const p = rows ? m : n;
      const c = out ?? new Float32Array(p * p);
      if (a.length > 0) blas.ssyrk(true, !rows, p, rows ? n : m, 1, a, n, 0, c, p);
      mirror(c, p);
      return c;
    },
  };
}

/** Upper triangle -> lower, by tiles. */
export function mirror(c: Real, p: number): void {
  const tile = 32;
  for (let i0 = 0; i0 < p; i0 += tile) {
    for (let j0 = 0; j0 <= i0; j0 += tile) {
      const iEnd = Math.min(p, i0 + tile);
      const jEnd = Math.min(p, j0 + tile);
      for (let i = i0; i < iEnd; i++)
        for (let j = j0, to = i * p + j0, from = j0 * p + i, end = Math.min(i, jEnd); j < end; j++, to++, from += p) c[to] = c[from]!;
    }
  }
}

interface ProductExports {
  packColumns(a: number, rank: number, n: number, out: number): void;
  product(b: number, packed: number, rows: number, rank: number, n: number, out: number): void;
}

const FIRST_PAGE = 65536;
/** Values of the left matrix per call: what is in flight stays near the cache. */
const LEFT_VALUES = 1 << 16;

/** Plain wasm SIMD for f32, TypeScript for the small f64 products. */
async function plainOps(): Promise<MatrixOps> {
  const { memory, exports } = await loadWasm<ProductExports>('lowrank', 2 * FIRST_PAGE);
  const multiply: MatrixOps['multiply'] = (ta, tb, m, n, k, a, b) => {
    const left = ta ? transposed(a, k, m) : a;
    const right = tb ? transposed(b, n, k) : b;
    const rows = Math.max(1, Math.min(m, Math.floor(LEFT_VALUES / Math.max(1, k))));
    const packed = Math.ceil(n / 8) * 8 * k * 4;
    const scratch = FIRST_PAGE + packed;
    const need = scratch + Math.max(4 * right.length, 4 * rows * (k + n)) + 64;
    if (memory.buffer.byteLength < need) memory.grow(Math.ceil((need - memory.buffer.byteLength) / FIRST_PAGE));
    new Float32Array(memory.buffer, scratch, right.length).set(right);
    exports.packColumns(scratch, k, n, FIRST_PAGE);
    const c = new Float32Array(m * n);
    for (let i = 0; i < m; i += rows) {
      const count = Math.min(rows, m - i);
      const out = scratch + 4 * count * k;
      new Float32Array(memory.buffer, scratch, count * k).set(left.subarray(i * k, (i + count) * k));
      exports.product(scratch, FIRST_PAGE, count, k, n, out);
      c.set(new Float32Array(memory.buffer, out, count * n), i * n);
    }
    return c;
  };
  return {
    name: 'wasm',
    blas: undefined,
    multiply,
    multiply64: multiply64,
    gemm(ta, tb, m, n, k, alpha, a, b, beta, c) {
      const product = multiply(ta, tb, m, n, k, a, b);
      for (let i = 0; i < product.length; i++) c[i] = alpha * product[i]! + (beta === 0 ? 0 : beta * c[i]!);
    },
    panels(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) {
      const ab =
        c instanceof Float32Array
          ? multiply(false, false, m, n, k, packed(a as Float32Array, m, k, lda), packed(b as Float32Array, k, n, ldb))
          : multiply64(false, false, m, n, k, packed(a as Float64Array, m, k, lda), packed(b as Float64Array, k, n, ldb));
      for (let i = 0; i < m; i++) {
        for (let j = 0, to = i * ldc; j < n; j++, to++) c[to] = alpha * ab[i * n + j]! + (beta === 0 ? 0 : beta * c[to]!);
      }
    },
    gram(a, m, n, rows, out) {
      const g = rows ? multiply(false, true, m, m, n, a, a) : multiply(true, false, n, n, m, a, a);
      if (out === undefined) return g;
      out.set(g);
      return out;
    },
  };
}

/** The first `columns` of each of `rows` rows that are `ld` long. */
function packed<A extends Real>(a: A, rows: number, columns: number, ld: number): A {
  if (ld === columns) return a.subarray(0, rows * columns) as A;
  const out = new (a.constructor as new (length: number) => A)(rows * columns);
  for (let i = 0; i < rows; i++) out.set(a.subarray(i * ld, i * ld + columns), i * columns);
  return out;
}

/** a: (rows, columns) -> (columns, rows) */
export function transposed(a: Float32Array, rows: number, columns: number): Float32Array {
  return byTiles(a, new Float32Array(a.length), rows, columns);
}

/** The same in f64. */
export function transposed64(a: Float64Array, rows: number, columns: number): Float64Array {
  return byTiles(a, new Float64Array(a.length), rows, columns);
}

/** The same of bytes. */
export function transposedBytes(a: Uint8Array, rows: number, columns: number): Uint8Array {
  return byTiles(a, new Uint8Array(a.length), rows, columns);
}

function byTiles<A extends Float32Array | Float64Array | Uint8Array>(a: A, out: A, rows: number, columns: number): A {
  const tile = 32;
  for (let i0 = 0; i0 < rows; i0 += tile) {
    for (let j0 = 0; j0 < columns; j0 += tile) {
      for (let i = i0; i < Math.min(rows, i0 + tile); i++) for (let j = j0; j < Math.min(columns, j0 + tile); j++) out[j * rows + i] = a[i * columns + j]!;
    }
  }
  return out;
}

function multiply64(ta: boolean, tb: boolean, m: number, n: number, k: number, a: Float64Array, b: Float64Array): Float64Array {
  const c = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let l = 0; l < k; l++) {
      const x = ta ? a[l * m + i]! : a[i * k + l]!;
      if (x === 0) continue;
      for (let j = 0; j < n; j++) c[i * n + j] = c[i * n + j]! + x * (tb ? b[j * k + l]! : b[l * n + j]!);
    }
  }
  return c;
}
