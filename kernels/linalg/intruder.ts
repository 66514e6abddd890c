/**
 * Intruder dimensions: "LoRA vs Full Fine-tuning: An Illusion of Equivalence", Reece Shuttleworth, Jacob Andreas, Antonio
 * Torralba, Pratyusha Sharma, 2024, arXiv 2410.21228.
 *
 *   W = U S V^T, W' = W + D = U' S' V'^T (w: (out, in))
 *   u'_j, j < k, is an intruder  <=>  max_i |<u'_j, u_i>| < epsilon, over all left singular vectors u_i of W   (Definition 1)
 *
 * Deviations: where singular values of W agree to 1e-6 of themselves their vectors are any basis of one subspace, so the cosine is
 * that with the subspace, sqrt(sum <u'_j, u_i>^2); directions with s_i <= 1e-7 s_1 are rounding and do not count as vectors.
 */
import { PithError } from '../../core/errors.js';
import { eigh } from './eigh.js';
import { gram64 } from './gram.js';
import type { MatrixOps } from './matrix-ops.js';
import { effectiveRank, sumOfSquares } from './truncated-svd.js';

export interface IntruderOptions {
  /** k: how many leading vectors of W' are looked at. */
  readonly top: number;
  /** epsilon: a cosine below it makes an intruder. */
  readonly cosine: number;
  readonly ops: MatrixOps;
}

export interface LeadingVector {
  /** j, from 0. */
  readonly index: number;
  /** s'_j */
  readonly value: number;
  /** max_i |<u'_j, u_i>| */
  readonly cosine: number;
}

export interface Intruders {
  /** The leading vectors of W', min(k, its rank) of them. */
  readonly leading: readonly LeadingVector[];
  /** Those of them that are intruders. */
  readonly intruders: readonly LeadingVector[];
  /** Effective ranks of W and W'. */
  readonly effectiveRank: { readonly base: number; readonly tuned: number };
}

/** Relative distance at which two singular values count as one. */
const SAME = 1e-6;
/** Singular values below this share of the first are rounding. */
const NULL_SHARE = 1e-7;

/** base, tuned: W and W', (m, n) f32, finite (NOT_FINITE otherwise). All of W's spectrum in f64: O(m n min(m, n)). */
export function intruderDimensions(base: Float32Array, tuned: Float32Array, m: number, n: number, options: IntruderOptions): Intruders {
  for (const w of [base, tuned]) if (!Number.isFinite(sumOfSquares(w))) throw new PithError('NOT_FINITE', { message: `(${m}, ${n})` });
  const { ops } = options;
  const w1 = spectrumOf(tuned, m, n, ops);
  const k = Math.min(options.top, w1.rank);
  const top = leftVectors(tuned, m, n, w1, k, ops);
  const w0 = spectrumOf(base, m, n, ops);
  const inner = innerProducts(base, m, n, w0, top, k, ops);
  const leading = Array.from({ length: k }, (_, j) => ({ index: j, value: w1.s[j]!, cosine: largestCosine(w0, inner, j, k) }));
  return {
    leading,
    intruders: leading.filter((v) => v.cosine < options.cosine),
    effectiveRank: { base: effectiveRank(w0.s), tuned: effectiveRank(w1.s) },
  };
}

interface Spectrum {
  /** min(m, n) singular values, falling. */
  readonly s: Float64Array;
  /** Singular values that are no rounding. */
  readonly rank: number;
  /** (side, side): row i is the singular vector of s_i on the shorter side: left for m <= n, right otherwise. */
  readonly vectors: Float64Array;
}

function spectrumOf(w: Float32Array, m: number, n: number, ops: MatrixOps): Spectrum {
  const side = Math.min(m, n);
  const { values, vectors } = eigh(gram64(w, m, n, m <= n, ops), side, { blas: ops.blas });
  const s = Float64Array.from({ length: side }, (_, i) => Math.sqrt(Math.max(0, values[side - 1 - i]!)));
  const falling = new Float64Array(side * side);
  for (let i = 0; i < side; i++) falling.set(vectors.subarray((side - 1 - i) * side, (side - i) * side), i * side);
  return { s, rank: s.filter((v) => v > NULL_SHARE * s[0]!).length, vectors: falling };
}

const PANEL_VALUES = 1 << 20;

/** (k, m): the k leading left singular vectors as rows; for m > n u_j = W v_j / s_j. */
function leftVectors(w: Float32Array, m: number, n: number, { s, vectors }: Spectrum, k: number, ops: MatrixOps): Float64Array {
  if (m <= n) return vectors.subarray(0, k * m);
  const u = new Float64Array(k * m);
  const step = Math.max(1, Math.floor(PANEL_VALUES / n));
  for (let at = 0; at < m; at += step) {
    const rows = Math.min(step, m - at);
    const panel = new Float64Array(w.subarray(at * n, (at + rows) * n));
    const part = ops.multiply64(false, true, k, rows, n, vectors.subarray(0, k * n), panel);
    for (let j = 0; j < k; j++) for (let i = 0; i < rows; i++) u[j * m + at + i] = part[j * rows + i]! / s[j]!;
  }
  return u;
}

/** (rank, k): <u_i, u'_j>. For m > n u_i = W v_i / s_i, so the product is v_i^T (W^T u'_j) / s_i: U itself is never made. */
function innerProducts(w: Float32Array, m: number, n: number, { s, rank, vectors }: Spectrum, top: Float64Array, k: number, ops: MatrixOps): Float64Array {
  if (m <= n) return ops.multiply64(false, true, rank, k, m, vectors.subarray(0, rank * m), top);
  // (k, n): U'^T W
  const projected = new Float64Array(k * n);
  const step = Math.max(1, Math.floor(PANEL_VALUES / n));
  for (let at = 0; at < m; at += step) {
    const rows = Math.min(step, m - at);
    const left = new Float64Array(k * rows);
    for (let j = 0; j < k; j++) left.set(top.subarray(j * m + at, j * m + at + rows), j * rows);
    const part = ops.multiply64(false, false, k, n, rows, left, new Float64Array(w.subarray(at * n, (at + rows) * n)));
    for (let i = 0; i < part.length; i++) projected[i] = projected[i]! + part[i]!;
  }
  const inner = ops.multiply64(false, true, rank, k, n, vectors.subarray(0, rank * n), projected);
  for (let i = 0; i < rank; i++) for (let j = 0; j < k; j++) inner[i * k + j] = inner[i * k + j]! / s[i]!;
  return inner;
}

/** The largest over single vectors and clusters of equal singular values. */
function largestCosine({ s, rank }: Spectrum, inner: Float64Array, j: number, k: number): number {
  let [largest, cluster] = [0, 0];
  for (let i = 0; i < rank; i++) {
    const c = inner[i * k + j]!;
    cluster = i > 0 && s[i - 1]! - s[i]! <= SAME * s[i - 1]! ? cluster + c * c : c * c;
    largest = Math.max(largest, cluster);
  }
  // rounding may lift a cosine past 1
  return Math.min(1, Math.sqrt(largest));
}
