/** Which attention heads may take another head's weights: the most alike first. */

export interface HeadPair {
  /** Index: layer * heads + head. */
  readonly head: number;
  readonly by: number;
  /** Cosine of their weights. */
  readonly similarity: number;
}

/**
 * gram: (layers * heads, layers * heads), products of the heads' weights. Every head of layers from 1 on is matched with the most similar head of an
 * earlier layer; the `count` best matches are taken. A match that is itself replaced stands for its own match: `by` is never among the replaced. Ties
 * go to the lower index.
 */
export function mostSimilarHeads(gram: Float64Array, layers: number, heads: number, count: number): HeadPair[] {
  const all = layers * heads;
  const norms = Float64Array.from({ length: all }, (_, i) => Math.sqrt(gram[i * all + i]!));
  const pairs: HeadPair[] = [];
  for (let head = heads; head < all; head++) {
    let best = { by: 0, similarity: -Infinity };
    for (let by = 0; by < Math.floor(head / heads) * heads; by++) {
      const lengths = norms[head]! * norms[by]!;
      const similarity = lengths > 0 ? gram[head * all + by]! / lengths : 0;
      if (similarity > best.similarity) best = { by, similarity };
    }
    pairs.push({ head, ...best });
  }
  const chosen = pairs.sort((a, b) => b.similarity - a.similarity || a.head - b.head).slice(0, count);
  const next = new Map(chosen.map((p) => [p.head, p.by]));
  const root = (head: number): number => (next.has(head) ? root(next.get(head)!) : head);
  return chosen.map((p) => ({ ...p, by: root(p.by) }));
}
