/** f32 scores as unsigned integers of the same order: what a threshold over many layers is found by, 16 bits at a time. */

/** (key of a) < (key of b) where a < b; -0 is below +0. */
export function scoreKeys(scores: Float32Array): Uint32Array {
  const bits = new Uint32Array(scores.buffer, scores.byteOffset, scores.length);
  return Uint32Array.from(bits, (b) => (b >>> 31 === 0 ? b | 0x80000000 : ~b) >>> 0);
}

/** How often each upper half occurs; or each lower half among the keys whose upper half is `high`. 65536 counts. */
export function countKeys(keys: Uint32Array, high?: number): Uint32Array {
  const counts = new Uint32Array(1 << 16);
  for (const key of keys) {
    if (high === undefined) counts[key >>> 16]!++;
    else if (key >>> 16 === high) counts[key & 0xffff]!++;
  }
  return counts;
}

/** The bin in which the `remove`-th smallest lies, counting from 0, and how many lie in the bins below it. */
export function cutBin(counts: ArrayLike<number>, remove: number): { readonly bin: number; readonly below: number } {
  let below = 0;
  for (let bin = 0; bin < counts.length; bin++) {
    if (below + counts[bin]! > remove) return { bin, below };
    below += counts[bin]!;
  }
  return { bin: counts.length, below };
}

/** 1 keeps, 0 removes: keys below `key`, and the first `ties` of those that have it. */
export function cutMask(keys: Uint32Array, key: number, ties: number): Uint8Array {
  let left = ties;
  return Uint8Array.from(keys, (k) => (k > key || (k === key && left-- <= 0) ? 1 : 0));
}
