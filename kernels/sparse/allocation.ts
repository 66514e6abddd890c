/**
 * How much each part of a model loses, so that all together lose a given share. OWL: "Outlier Weighed Layerwise Sparsity (OWL): A Missing
 * Secret Sauce for Pruning LLMs to High Sparsity", Lu Yin et al., 2023, https://arxiv.org/abs/2310.05175.
 *
 *   D_l = share of the scores |W| ||x|| of block l that exceed M times their mean   (M = 5)
 *   density_l = 2 lambda (D_l - min D) / (max D - min D), shifted so that its mean is 1 - p   (lambda = 0.08)
 * A block is a decoder layer, the scores of all its linears taken together. Deviations: the mean is weighted by the blocks' sizes, where
 * the authors' blocks are of one size; near p = 0 or 1 lambda shrinks until every density is a share.
 */

export interface Part {
  /** Weights of the part. */
  readonly size: number;
  /** D_l: what makes a part worth more. */
  readonly share: number;
}

export const OWL = { multiple: 5, lambda: 0.08 } as const;

/** Every part the same. */
export const uniformRatios = (parts: readonly Part[], ratio: number): number[] => parts.map(() => ratio);

/** Ratios of removed weights, in the order of the parts; their mean, weighted by size, is `ratio`. */
export function owlRatios(parts: readonly Part[], ratio: number, lambda: number = OWL.lambda): number[] {
  const shares = parts.map((p) => p.share);
  const [least, most] = [Math.min(...shares), Math.max(...shares)];
  if (!(most > least)) return uniformRatios(parts, ratio);
  const size = parts.reduce((sum, p) => sum + p.size, 0);
  const raw = shares.map((d) => (2 * lambda * (d - least)) / (most - least));
  const mean = raw.reduce((sum, v, i) => sum + (v * parts[i]!.size) / size, 0);
  const deviations = raw.map((v) => v - mean);
  // the densest part keeps no more than all, the sparsest no less than nothing
  const room = Math.min(1, ratio / Math.max(...deviations), (1 - ratio) / -Math.min(...deviations));
  return deviations.map((v) => ratio - room * v);
}

/** Sum of scores, none negative. */
export function scoreSum(scores: Float32Array): number {
  let sum = 0;
  for (const v of scores) sum += v;
  return sum;
}

export function countAbove(scores: Float32Array, limit: number): number {
  let count = 0;
  for (const v of scores) if (v > limit) count++;
  return count;
}

/** D_l of a block; `scores` gives those of its layers anew each time, one at a time. */
export function outlierShare(scores: () => Iterable<Float32Array>, multiple: number = OWL.multiple): number {
  let [sum, count, above] = [0, 0, 0];
  for (const s of scores()) {
    sum += scoreSum(s);
    count += s.length;
  }
  if (count === 0) return 0;
  for (const s of scores()) above += countAbove(s, (multiple * sum) / count);
  return above / count;
}
