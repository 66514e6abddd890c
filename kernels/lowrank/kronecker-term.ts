/**
 * The Kronecker product nearest to a matrix (Van Loan and Pitsianis, "Approximation with Kronecker Products", 1993): with the blocks of W as the
 * rows of R, ||W - C x D||_F = ||R - vec(C) vec(D)^T||_F, so the leading singular triplet of R is the best C and D. LoKr's starting point.
 */
import type { Rng } from '../../core/rng.js';
import type { MatrixOps } from '../linalg/matrix-ops.js';
import { truncatedSvd } from '../linalg/truncated-svd.js';

export interface KroneckerTerm {
  /** (p, q) */
  readonly c: Float32Array;
  /** (m / p, n / q); both carry the root of the singular value. */
  readonly d: Float32Array;
  /** ||W - C x D||_F */
  readonly residualFro: number;
}

/** w: (m, n) f32, finite (NOT_FINITE otherwise); p divides m, q divides n. */
export async function nearestKronecker(
  w: Float32Array,
  m: number,
  n: number,
  [p, q]: readonly [number, number],
  ops: MatrixOps,
  rng: Rng,
): Promise<KroneckerTerm> {
  const [bm, bn] = [m / p, n / q];
  if (!Number.isInteger(bm) || !Number.isInteger(bn)) throw new RangeError(`(${m}, ${n}) has no blocks by (${p}, ${q})`);
  const r = new Float32Array(w.length);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      const block = Math.floor(i / bm) * q + Math.floor(j / bn);
      r[block * bm * bn + (i % bm) * bn + (j % bn)] = w[i * n + j]!;
    }
  }
  const { u, s, vt, residualFro } = await truncatedSvd(r, p * q, bm * bn, { rank: 1, ops, rng });
  const root = Math.sqrt(s[0] ?? 0);
  const scaled = (v: Float32Array, length: number): Float32Array => Float32Array.from({ length }, (_, i) => root * (v[i] ?? 0));
  return { c: scaled(u, p * q), d: scaled(vt, bm * bn), residualFro };
}
