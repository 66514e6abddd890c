/**
 * Dead-zone uniform quantization with centroid reconstruction (Sullivan, "Efficient Scalar Quantization of Exponential and
 * Laplacian Random Variables", IEEE Trans. Inf. Theory 42(5), 1996):
 *   q = sign(x) floor(|x| / step + 0.4)
 * Level l is reconstructed at the mean of what fell into it: c_l = l - 0.4 + u_l / 255 steps, u_l one byte, for l <= 8; at l above.
 */

export const MAX_LEVEL = 32767;
export const ROUNDING = 0.4;
export const CENTROIDS = 8;

/** x -> levels; both of one length. */
export function quantize(x: Float32Array, step: number, levels: Int16Array): void {
  const inverse = 1 / step;
  for (let i = 0; i < x.length; i++) {
    const v = x[i]!;
    const l = Math.min(MAX_LEVEL, Math.floor(Math.abs(v) * inverse + ROUNDING));
    levels[i] = v < 0 ? -l : l;
  }
}

/** Sums of |x| / step by level, over any number of calls. */
export class CentroidSums {
  readonly #sums = new Float64Array(CENTROIDS + 1);
  readonly #counts = new Float64Array(CENTROIDS + 1);

  add(x: Float32Array, levels: Int16Array, step: number): void {
    for (let i = 0; i < x.length; i++) {
      const l = Math.abs(levels[i]!);
      if (l === 0 || l > CENTROIDS) continue;
      this.#sums[l]! += Math.abs(x[i]!) / step;
      this.#counts[l]!++;
    }
  }

  /** What was counted elsewhere: |x| summed and values counted by level, each at its own place. */
  addTotals(sums: ArrayLike<number>, counts: ArrayLike<number>, step: number): void {
    for (let l = 1; l <= CENTROIDS; l++) {
      this.#sums[l]! += sums[l]! / step;
      this.#counts[l]! += counts[l]!;
    }
  }

  /** u_1 .. u_8 */
  bytes(): Uint8Array {
    return Uint8Array.from({ length: CENTROIDS }, (_, i) => {
      const count = this.#counts[i + 1]!;
      const offset = count === 0 ? ROUNDING : this.#sums[i + 1]! / count - (i + 1) + ROUNDING;
      return Math.round(Math.min(1, Math.max(0, offset)) * 255);
    });
  }
}

/** f32 magnitude of every level up to `most`, in steps; normative. */
export function magnitudes(centroids: Uint8Array, most: number): Float32Array {
  return Float32Array.from({ length: most + 1 }, (_, l) => (l === 0 || l > CENTROIDS ? l : (255 * l - 102 + centroids[l - 1]!) / 255));
}

/** Bits of the values under their own distribution, counts by symbol. */
export function entropyBits(counts: ArrayLike<number>): number {
  let total = 0;
  let bits = 0;
  for (let i = 0; i < counts.length; i++) {
    const c = counts[i]!;
    total += c;
    if (c > 0) bits -= c * Math.log2(c);
  }
  return total > 0 ? bits + total * Math.log2(total) : 0;
}
