/** How much of a layer is removed, and among which weights it is decided. */

/**
 * What to remove: a share of the layer's weights, or of every row's; or all but `keep` of every `of` consecutive inputs of a row.
 * Exactly floor(ratio m n), or floor(ratio n) a row; of equal scores the lower flat index is removed first.
 */
export type Sparsity =
  | { readonly group: 'layer'; readonly ratio: number }
  | { readonly group: 'row'; readonly ratio: number }
  | { readonly group: 'n:m'; readonly keep: number; readonly of: number };

/** Weights at the end of each row that fill no group of N:M; they stay. */
export const tailOf = (target: Sparsity, n: number): number => (target.group === 'n:m' ? n % target.of : 0);

/** How many of (m, n) a target removes. */
export function removedCount(target: Sparsity, m: number, n: number): number {
  if (target.group === 'layer') return Math.floor(target.ratio * m * n);
  if (target.group === 'row') return m * Math.floor(target.ratio * n);
  return m * Math.floor(n / target.of) * (target.of - target.keep);
}
