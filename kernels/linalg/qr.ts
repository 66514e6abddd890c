/**
 * Orthonormal bases of tall matrices: CholeskyQR2 (Yamamoto, Nakatsukasa, Yanagisawa, Fukaya, 2015), its shifted form for
 * ill-conditioned input (Fukaya, Kannan, Nakatsukasa, Yamamoto, Yanagisawa, 2020) and Householder QR as the last resort.
 */
import { cholesky, invertLower } from './cholesky.js';
import type { MatrixOps } from './matrix-ops.js';

const UNIT_ROUNDOFF = 2 ** -53;

/**
 * Q (m, k) with orthonormal columns that span those of y (m, k), m >= k. Works in f64.
 * CholeskyQR: R^T R = Y^T Y, Q = Y R^-1; twice where one pass would lose too many digits (cond(Y)^2).
 */
export function orthonormalize(y: Float32Array, m: number, k: number, ops: MatrixOps): Float32Array {
  return orthonormalBasis(y, m, k, ops).q;
}

/** The same, with the span of diag(R): an estimate of cond(Y), Infinity where Cholesky was no way. */
export function orthonormalBasis(y: Float32Array, m: number, k: number, ops: MatrixOps): { q: Float32Array; span: number } {
  const y64 = new Float64Array(y);
  const fast = choleskyQr(y64, m, k, ops);
  return fast === undefined ? { q: new Float32Array(householderQ(y64, m, k)), span: Infinity } : { q: new Float32Array(fast.q), span: fast.span };
}

/**
 * out = a well-conditioned basis of the span of y (m, k) in f32, for the inside of an iteration: Q = Y D^-1 L^-T with D the columns'
 * lengths and L L^T = D^-1 Y^T Y D^-1. The span of diag(L) tells how far it is from orthonormal; beyond what f32 holds the exact
 * way is taken, which uses up y. Columns may differ in length by 1e9.
 */
export function conditionedBasis(y: Float32Array, m: number, k: number, ops: MatrixOps, out: Float32Array): void {
  const h = new Float64Array(ops.multiply(true, false, k, k, m, y, y));
  const inverse = Float64Array.from({ length: k }, (_, j) => (h[j * k + j]! > 0 ? 1 / Math.sqrt(h[j * k + j]!) : 0));
  for (let i = 0; i < k; i++) for (let j = 0; j < k; j++) h[i * k + j] = h[i * k + j]! * inverse[i]! * inverse[j]!;
  const l = cholesky(h, k);
  let low = Infinity;
  for (let i = 0; l !== undefined && i < k; i++) low = Math.min(low, l[i * k + i]!);
  if (l === undefined || low * F32_SPAN < 1) {
    for (let i = 0; i < m; i++) for (let j = 0; j < k; j++) y[i * k + j] = y[i * k + j]! * inverse[j]!;
    out.set(orthonormalBasis(y, m, k, ops).q);
    return;
  }
  const right = new Float32Array(invertLower(l, k));
  for (let i = 0; i < k; i++) for (let j = 0; j <= i; j++) right[i * k + j] = right[i * k + j]! * inverse[j]!;
  ops.gemm(false, true, m, k, k, 1, y, right, 0, out);
}

interface Pass {
  readonly q: Float64Array;
  readonly span: number;
}

function choleskyQr(y: Float64Array, m: number, k: number, ops: MatrixOps): Pass | undefined {
  const first = pass(y, m, k, 0, ops);
  if (first !== undefined) {
    const q = first.span < ONE_PASS_SPAN ? first.q : pass(first.q, m, k, 0, ops)?.q;
    return q === undefined ? undefined : { q, span: first.span };
  }
  // shift 11 (m k + k (k + 1)) u ||Y||_F^2, then the plain two passes
  const norm = y.reduce((sum, v) => sum + v * v, 0);
  const shifted = norm > 0 ? pass(y, m, k, 11 * (m * k + k * (k + 1)) * UNIT_ROUNDOFF * norm, ops) : undefined;
  const second = shifted === undefined ? undefined : pass(shifted.q, m, k, 0, ops);
  const third = second === undefined ? undefined : pass(second.q, m, k, 0, ops);
  return third === undefined ? undefined : { q: third.q, span: Infinity };
}

/** Up to this span of diag(R) one pass in f64 already leaves less than the rounding to f32: cond^2 2^-53. */
const ONE_PASS_SPAN = 1e3;
/** Up to this span Y^T Y in f32 still has its small pivots to two digits: span^2 2^-24. */
const F32_SPAN = 300;
/** Largest loss of orthogonality that a second pass still repairs: diag(R) may span this much. */
const MAX_SPAN = 1e6;

function pass(y: Float64Array, m: number, k: number, shift: number, ops: MatrixOps): Pass | undefined {
  const g = ops.multiply64(true, false, k, k, m, y, y);
  for (let i = 0; i < k; i++) g[i * k + i] = g[i * k + i]! + shift;
  const l = cholesky(g, k);
  if (l === undefined) return undefined;
  const diagonal = Array.from({ length: k }, (_, i) => l[i * k + i]!);
  const span = Math.max(...diagonal) / Math.min(...diagonal);
  if (shift === 0 && span > MAX_SPAN) return undefined;
  // Q = Y L^-T
  return { q: ops.multiply64(false, true, m, k, k, y, invertLower(l, k)), span };
}

/** The explicit Q of Householder QR; columns that vanish are completed to an orthonormal set. */
export function householderQ(a: Float64Array, m: number, k: number): Float64Array {
  const tau = new Float64Array(k);
  for (let j = 0; j < k; j++) {
    let norm = 0;
    for (let i = j; i < m; i++) norm = Math.hypot(norm, a[i * k + j]!);
    if (norm === 0) continue;
    const alpha = a[j * k + j]! > 0 ? -norm : norm;
    const v0 = a[j * k + j]! - alpha;
    for (let i = j + 1; i < m; i++) a[i * k + j] = a[i * k + j]! / v0;
    tau[j] = -v0 / alpha;
    a[j * k + j] = alpha;
    for (let c = j + 1; c < k; c++) reflect(a, m, k, j, tau[j]!, a, c);
  }
  const q = new Float64Array(m * k);
  for (let j = 0; j < k; j++) q[j * k + j] = 1;
  for (let j = k - 1; j >= 0; j--) for (let c = 0; c < k; c++) reflect(a, m, k, j, tau[j]!, q, c);
  return q;
}

/** Column c of `target` -= tau v (v^T column), v = (1, a[j+1.., j]). */
function reflect(a: Float64Array, m: number, k: number, j: number, tau: number, target: Float64Array, c: number): void {
  let dot = target[j * k + c]!;
  for (let i = j + 1; i < m; i++) dot += a[i * k + j]! * target[i * k + c]!;
  dot *= tau;
  target[j * k + c] = target[j * k + c]! - dot;
  for (let i = j + 1; i < m; i++) target[i * k + c] = target[i * k + c]! - dot * a[i * k + j]!;
}
