/** Weights that are taken out of a layer and stored beside its codes. */
import { MAGNITUDE, Selector } from '../sparse/select.js';
import { wordsOf } from '../sparse/top-k.js';

/** Flat places of the `count` scores of largest magnitude, ascending; of equal ones the higher place goes first. scores stays as it is. */
export function largest(scores: Float32Array, count: number): Int32Array {
  const mask = new Uint8Array(scores.length);
  new Selector(MAGNITUDE).removeSmallest(wordsOf(scores), 0, scores.length, scores.length - count, mask);
  const out = new Int32Array(count);
  for (let i = 0, k = 0; i < mask.length; i++) if (mask[i] === 1) out[k++] = i;
  return out;
}
