/**
 * The best approximation of a low-rank product by fewer components, without the product itself.
 *   B^T B = U L U^T,  T = L^1/2 U^T:  B = Q T with Q orthonormal;  M = T A A^T T^T = P S^2 P^T
 *   B A = (Q P) S (S^-1 P^T T A);  B' = B T^+ P_r S_r^1/2,  A' = S_r^-1/2 P_r^T T A        (Eckart-Young on the small core)
 * In f64; components below 1e-7 of the largest are rounding of the factors' own f32 and count as zero.
 */
import { eigh } from '../linalg/eigh.js';
import type { MatrixOps } from '../linalg/matrix-ops.js';

export interface ProductSvd {
  /** Singular values of B A, falling, without those that are rounding. */
  readonly s: Float64Array;
  /** The first `rank` components, balanced: b (m, rank), a (rank, n). */
  keep(rank: number): { readonly a: Float32Array; readonly b: Float32Array };
}

const NOISE = 1e-7;

const NOTHING: ProductSvd = { s: new Float64Array(0), keep: () => ({ a: new Float32Array(0), b: new Float32Array(0) }) };

/** a: (r, n), b: (m, r) f32, finite. */
export function productSvd(a: Float32Array, b: Float32Array, r: number, ops: MatrixOps): ProductSvd {
  const [m, n] = [b.length / r, a.length / r];
  const [a64, b64] = [new Float64Array(a), new Float64Array(b)];
  const side = Math.min(m, n);
  if (side === 0) return NOTHING;
  if (r <= side) return factoredSvd(a64, b64, m, n, r, ops);
  // more components than the product can have: the product itself is the smaller factor
  const product = ops.multiply64(false, false, m, n, r, b64, a64);
  return m <= n ? factoredSvd(product, identity(m), m, n, m, ops) : factoredSvd(identity(n), product, m, n, n, ops);
}

function identity(n: number): Float64Array {
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i++) out[i * n + i] = 1;
  return out;
}

function factoredSvd(a64: Float64Array, b64: Float64Array, m: number, n: number, r: number, ops: MatrixOps): ProductSvd {
  const gram = eigh(ops.multiply64(true, false, r, r, m, b64, b64), r, { blas: ops.blas });
  const top = Math.max(0, gram.values[r - 1] ?? 0);
  const live = Array.from(gram.values.keys()).filter((i) => gram.values[i]! > NOISE * NOISE * top);
  const q = live.length;
  if (q === 0) return NOTHING;
  // t: (q, r), its pseudoinverse inverse: (r, q)
  const t = new Float64Array(q * r);
  const inverse = new Float64Array(r * q);
  live.forEach((from, i) => {
    const root = Math.sqrt(gram.values[from]!);
    for (let k = 0; k < r; k++) {
      t[i * r + k] = root * gram.vectors[from * r + k]!;
      inverse[k * q + i] = gram.vectors[from * r + k]! / root;
    }
  });
  const ta = ops.multiply64(false, false, q, n, r, t, a64);
  const core = eigh(ops.multiply64(false, true, q, q, n, ta, ta), q, { blas: ops.blas });
  const all = Float64Array.from({ length: q }, (_, i) => Math.sqrt(Math.max(0, core.values[q - 1 - i]!)));
  const s = all.filter((v) => v > NOISE * all[0]!);
  return {
    s,
    keep(rank) {
      // rows of p: the leading eigenvectors; left: (r, rank), right: (rank, q)
      const left = new Float64Array(q * rank);
      const right = new Float64Array(rank * q);
      for (let k = 0; k < rank; k++) {
        const root = Math.sqrt(s[k]!);
        for (let i = 0; i < q; i++) {
          const p = core.vectors[(q - 1 - k) * q + i]!;
          left[i * rank + k] = p * root;
          right[k * q + i] = p / root;
        }
      }
      const mixed = ops.multiply64(false, false, r, rank, q, inverse, left);
      return {
        b: new Float32Array(ops.multiply64(false, false, m, rank, r, b64, mixed)),
        a: new Float32Array(ops.multiply64(false, false, rank, n, q, right, ta)),
      };
    },
  };
}
