/** Wanda's variant: how many of each row's smallest scores sum to at most a share of the row's total. */
import { MAGNITUDE, Selector } from './select.js';
import { wordsOf } from './top-k.js';

/** The paper's code: where the search starts and ends, and how close is close enough. */
const SHARE = { low: 0, high: 0.8, start: 0.4, step: 0.001, tolerance: 0.001 } as const;

/** scores: (m, n), none negative. `counts`: removed in each row; `alpha`: the share that gives `ratio` over the layer. */
export function bisectShare(scores: Float32Array, m: number, n: number, ratio: number, between: () => void): { counts: Uint32Array; alpha: number } {
  const sums = sortedSums(scores, m, n, between);
  const counts = new Uint32Array(m);
  let [low, high, alpha]: [number, number, number] = [SHARE.low, SHARE.high, SHARE.start];
  for (;;) {
    let removed = 0;
    for (let i = 0; i < m; i++) removed += counts[i] = atMost(sums, i * n, n, alpha * sums[(i + 1) * n - 1]!);
    const sparsity = removed / Math.max(1, m * n);
    if (Math.abs(sparsity - ratio) <= SHARE.tolerance || high - low < SHARE.step) return { counts, alpha };
    if (sparsity > ratio) high = alpha;
    else low = alpha;
    alpha = (low + high) / 2;
  }
}

/** Running sums of each row in ascending order. */
function sortedSums(scores: Float32Array, m: number, n: number, between: () => void): Float32Array {
  const sums = scores.slice();
  for (let i = 0; i < m; i++) {
    if (i % 256 === 0) between();
    const row = sums.subarray(i * n, (i + 1) * n).sort();
    let sum = 0;
    for (let j = 0; j < n; j++) row[j] = sum += row[j]!;
  }
  return sums;
}

/** How many of n ascending values are at most `limit`. */
function atMost(values: Float32Array, from: number, n: number, limit: number): number {
  let [low, high] = [0, n];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[from + middle]! <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function removeByCounts(scores: Float32Array, m: number, n: number, counts: Uint32Array): Uint8Array {
  const mask = new Uint8Array(m * n);
  const selector = new Selector(MAGNITUDE);
  const words = wordsOf(scores);
  for (let i = 0; i < m; i++) selector.removeSmallest(words, i * n, (i + 1) * n, counts[i]!, mask);
  return mask;
}
