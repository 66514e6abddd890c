/**
 * The iteration that the ADMM pruners share. With Z the projection of S = V + U on the sparse matrices, the scaled dual U is S where the
 * mask is 0 and 0 elsewhere, and Z is S where it is 1: S and the mask hold both.
 *
 *   S = V + U;   R = T + rho (Z - U) = T + rho S where kept, T - rho S where removed;   V = R (A + rho I)^-1
 * Rows are independent but for the mask, so all is done in row panels, V in place. Matrices are (m, n), row-major f32.
 */
import { panelRows } from '../linalg/row-panels.js';

export interface Splitting {
  readonly m: number;
  readonly n: number;
  readonly v: Float32Array;
  /** V_0 A */
  readonly t: Float32Array;
  readonly s: Float32Array;
  readonly mask: Uint8Array;
}

/** out = R (A + rho I)^-1 for `rows` rows. R may be used up. */
export type ApplyInverse = (r: Float32Array, rows: number, out: Float32Array) => void;

export function startSplitting(m: number, n: number, v: Float32Array, t: Float32Array): Splitting {
  return { m, n, v, t, s: v.slice(), mask: new Uint8Array(m * n).fill(1) };
}

/** S = V + U */
export function gatherSum({ v, s, mask }: Splitting): void {
  // arithmetic instead of a branch on the mask, which no processor foresees
  for (let i = 0; i < s.length; i++) s[i] = v[i]! + (1 - mask[i]!) * s[i]!;
}

/** U *= factor: the unscaled dual rho U stays when rho changes, or is forgotten. */
export function scaleDual({ s, mask }: Splitting, factor: number): void {
  for (let i = 0; i < s.length; i++) if (mask[i] === 0) s[i] = factor * s[i]!;
}

/** V = R (A + rho I)^-1 */
export function solveSplit({ m, n, v, t, s, mask }: Splitting, rho: number, apply: ApplyInverse, between: () => void): void {
  const rows = panelRows(m, n);
  const scratch = new Float32Array(rows * n);
  for (let i = 0; i < m; i += rows) {
    between();
    const count = Math.min(rows, m - i);
    const [from, to] = [i * n, (i + count) * n];
    for (let p = from, o = 0; p < to; p++, o++) scratch[o] = t[p]! + rho * (2 * mask[p]! - 1) * s[p]!;
    apply(scratch, count, v.subarray(from, to));
  }
}
