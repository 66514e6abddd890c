/**
 * The machine's own BLAS and LAPACK, called through koffi straight on typed arrays (views of the wasm heap included).
 * Any of OpenBLAS, MKL, BLIS or Accelerate, found by name or by PITH_BLAS (a library's path, or `none`).
 */
import koffi from 'koffi';

type KoffiLib = ReturnType<typeof koffi.load>;

/** Row-major; op(X) is X or its transpose. */
export interface Blas {
  /** Library family: openblas, mkl, blis, accelerate or cblas. */
  readonly name: string;
  readonly path: string;
  readonly threads: number;
  /** Process-wide in every BLAS: set once, before the work. */
  setThreads(n: number): void;
  sgemm: Gemm<Float32Array>;
  dgemm: Gemm<Float64Array>;
  /** C = alpha A A^T + beta C, or A^T A with `trans`; only one triangle of C (n x n) is written. */
  ssyrk(upper: boolean, trans: boolean, n: number, k: number, alpha: number, a: Float32Array, lda: number, beta: number, c: Float32Array, ldc: number): void;
  /** Solves L^T X = B in place. l: (n, n) lower triangular, b: (n, columns). */
  solveLowerTransposed(n: number, columns: number, l: Float64Array, b: Float64Array): void;
  readonly lapack: Lapack | undefined;
}

/** C (m x n) = alpha op(A) op(B) + beta C. */
type Gemm<A> = (
  transA: boolean,
  transB: boolean,
  m: number,
  n: number,
  k: number,
  alpha: number,
  a: A,
  lda: number,
  b: A,
  ldb: number,
  beta: number,
  c: A,
  ldc: number,
) => void;

/** Works in place on the triangle `uplo` of a column-major (n, n) matrix. */
type Triangle = (uplo: 'L' | 'U', n: number, a: Float32Array | Float64Array) => number;

/** Column-major, each returning LAPACK's info: 0 is success. f32 or f64 by the array, where there is no type in the name. */
export interface Lapack {
  /** Cholesky factor. */
  potrf: Triangle;
  /** Inverse of A from its Cholesky factor. */
  potri: Triangle;
  /** Inverse of a triangular matrix. */
  trtri: Triangle;
  /** a: (n, n) symmetric, overwritten by the eigenvectors when `vectors`; w: eigenvalues, ascending. */
  dsyevd(vectors: boolean, n: number, a: Float64Array, w: Float64Array): number;
  /** The same with vectors in f32. */
  ssyevd(n: number, a: Float32Array, w: Float32Array): number;
  /** a is destroyed; s: min(m, n); u: (m, min), vt: (min, n), thin. */
  dgesdd(m: number, n: number, a: Float64Array, s: Float64Array, u: Float64Array, vt: Float64Array): number;
}

const CANDIDATES: Partial<Record<NodeJS.Platform, readonly string[]>> = {
  linux: ['libopenblas.so.0', 'libopenblas.so', 'libmkl_rt.so.2', 'libmkl_rt.so', 'libblis.so.4', 'libblis.so', 'libcblas.so.3'],
  darwin: ['/System/Library/Frameworks/Accelerate.framework/Accelerate', 'libopenblas.dylib', '/opt/homebrew/opt/openblas/lib/libopenblas.dylib'],
  win32: ['libopenblas.dll', 'openblas.dll', 'mkl_rt.2.dll', 'mkl_rt.dll'],
};
const FAMILIES = ['openblas', 'mkl', 'blis', 'accelerate'];

export interface BlasSearch {
  readonly blas: Blas | undefined;
  /** Every library that was tried and what came of it. */
  readonly tried: readonly { readonly path: string; readonly message: string }[];
}

let found: BlasSearch | undefined;

/** Looks once per thread. `tried` says why nothing was found. */
export function searchBlas(): BlasSearch {
  if (found !== undefined) return found;
  const wanted = process.env['PITH_BLAS'];
  const tried: { path: string; message: string }[] = [];
  if (wanted === 'none') return (found = { blas: undefined, tried: [{ path: 'none', message: 'switched off by PITH_BLAS' }] });
  for (const path of wanted === undefined ? (CANDIDATES[process.platform] ?? []) : [wanted]) {
    try {
      const blas = bind(path, koffi.load(path));
      return (found = { blas, tried: [...tried, { path, message: 'found' }] });
    } catch (error) {
      tried.push({ path, message: error instanceof Error ? error.message.split('\n')[0]! : String(error) });
    }
  }
  return (found = { blas: undefined, tried });
}

export function loadBlas(): Blas | undefined {
  return searchBlas().blas;
}

const ROW_MAJOR = 101;
const trans = (t: boolean): number => (t ? 112 : 111);

function bind(path: string, lib: KoffiLib): Blas {
  const gemm = (symbol: string, real: string): ((...args: unknown[]) => void) =>
    lib.func(
      `void ${symbol}(int order, int ta, int tb, int m, int n, int k, ${real} alpha, const ${real} *a, int lda, const ${real} *b, int ldb, ${real} beta, ${real} *c, int ldc)`,
    ) as (...args: unknown[]) => void;
  const sgemm = gemm('cblas_sgemm', 'float');
  const dgemm = gemm('cblas_dgemm', 'double');
  const ssyrk = lib.func('void cblas_ssyrk(int order, int uplo, int trans, int n, int k, float alpha, const float *a, int lda, float beta, float *c, int ldc)');
  const dtrsm = lib.func(
    'void cblas_dtrsm(int order, int side, int uplo, int trans, int diag, int m, int n, double alpha, const double *a, int lda, double *b, int ldb)',
  );
  const setter = firstOf(
    lib,
    ['openblas_set_num_threads', 'MKL_Set_Num_Threads', 'bli_thread_set_num_threads'].map((s) => `void ${s}(int n)`),
  );
  const call =
    (f: (...args: unknown[]) => void) =>
    (
      ta: boolean,
      tb: boolean,
      m: number,
      n: number,
      k: number,
      alpha: number,
      a: unknown,
      lda: number,
      b: unknown,
      ldb: number,
      beta: number,
      c: unknown,
      ldc: number,
    ) => {
      if (m > 0 && n > 0 && k > 0) f(ROW_MAJOR, trans(ta), trans(tb), m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    };
  let threads = 0;
  return {
    name: FAMILIES.find((f) => path.toLowerCase().includes(f)) ?? 'cblas',
    path,
    get threads() {
      return threads;
    },
    setThreads(n) {
      // the process's other threads may have set it since
      setter?.(n);
      threads = n;
    },
    sgemm: call(sgemm),
    dgemm: call(dgemm),
    ssyrk(upper, t, n, k, alpha, a, lda, beta, c, ldc) {
      if (n > 0) ssyrk(ROW_MAJOR, upper ? 121 : 122, trans(t), n, k, alpha, a, lda, beta, c, ldc);
    },
    solveLowerTransposed(n, columns, l, b) {
      // left, lower, transposed, with its own diagonal
      if (n > 0 && columns > 0) dtrsm(ROW_MAJOR, 141, 122, trans(true), 131, n, columns, 1, l, n, b, columns);
    },
    lapack: bindLapack(lib),
  };
}

function firstOf(lib: KoffiLib, prototypes: readonly string[]): ((...args: unknown[]) => unknown) | undefined {
  for (const p of prototypes) {
    try {
      return lib.func(p) as (...args: unknown[]) => unknown;
    } catch {
      // the library is of another family
    }
  }
  return undefined;
}

/** Fortran calls: everything by reference. undefined when the library has BLAS only. */
function bindLapack(lib: KoffiLib): Lapack | undefined {
  const syevd = (symbol: string, real: string): ReturnType<typeof firstOf> =>
    firstOf(lib, [
      `void ${symbol}(const char *jobz, const char *uplo, const int *n, ${real} *a, const int *lda, ${real} *w, ${real} *work, const int *lwork, int *iwork, const int *liwork, int *info)`,
    ]);
  const [dsyevd, ssyevd] = [syevd('dsyevd_', 'double'), syevd('ssyevd_', 'float')];
  const dgesdd = firstOf(lib, [
    'void dgesdd_(const char *jobz, const int *m, const int *n, double *a, const int *lda, double *s, double *u, const int *ldu, double *vt, const int *ldvt, double *work, const int *lwork, int *iwork, int *info)',
  ]);
  const [potrf, potri, trtri] = [triangle(lib, 'potrf'), triangle(lib, 'potri'), triangle(lib, 'trtri', 'N')];
  if (dsyevd === undefined || ssyevd === undefined || dgesdd === undefined) return undefined;
  if (potrf === undefined || potri === undefined || trtri === undefined) return undefined;
  const int = (n: number): Int32Array => Int32Array.of(n);
  return {
    potrf,
    potri,
    trtri,
    dsyevd(vectors, n, a, w) {
      const info = int(0);
      const job = vectors ? 'V' : 'N';
      const [size, isize] = [new Float64Array(1), int(0)];
      dsyevd(job, 'L', int(n), a, int(n), w, size, int(-1), isize, int(-1), info);
      const work = new Float64Array(Math.max(1, size[0]!));
      const iwork = new Int32Array(Math.max(1, isize[0]!));
      dsyevd(job, 'L', int(n), a, int(n), w, work, int(work.length), iwork, int(iwork.length), info);
      return info[0]!;
    },
    ssyevd(n, a, w) {
      const info = int(0);
      // with vectors: 1 + 6 n + 2 n^2 and 3 + 5 n
      const [work, iwork] = [new Float32Array(1 + 6 * n + 2 * n * n), new Int32Array(3 + 5 * n)];
      ssyevd('V', 'L', int(n), a, int(n), w, work, int(work.length), iwork, int(iwork.length), info);
      return info[0]!;
    },
    dgesdd(m, n, a, s, u, vt) {
      const info = int(0);
      const k = Math.min(m, n);
      const iwork = new Int32Array(8 * k);
      const size = new Float64Array(1);
      dgesdd('S', int(m), int(n), a, int(m), s, u, int(m), vt, int(k), size, int(-1), iwork, info);
      const work = new Float64Array(Math.max(1, size[0]!));
      dgesdd('S', int(m), int(n), a, int(m), s, u, int(m), vt, int(k), work, int(work.length), iwork, info);
      return info[0]!;
    },
  };
}

/** spotrf_ and dpotrf_, say; `diag`: an argument that triangular routines have after uplo. */
function triangle(lib: KoffiLib, name: string, diag?: string): Triangle | undefined {
  const of = (real: string): ReturnType<typeof firstOf> =>
    firstOf(lib, [
      `void ${real[0]!.replace('f', 's')}${name}_(const char *uplo,${diag === undefined ? '' : ' const char *diag,'} const int *n, ${real} *a, const int *lda, int *info)`,
    ]);
  const [single, double] = [of('float'), of('double')];
  if (single === undefined || double === undefined) return undefined;
  return (uplo, n, a) => {
    const info = Int32Array.of(0);
    const call = a instanceof Float32Array ? single : double;
    const side = Int32Array.of(n);
    call(uplo, ...(diag === undefined ? [] : [diag]), side, a, side, info);
    return info[0]!;
  };
}
