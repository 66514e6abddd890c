/** Exports of kernels/wasm/assembly/pruned.ts; see there. All pointers are byte offsets in the memory. */
type Fn = (...args: number[]) => number;
type Act = (...args: number[]) => void;

export interface PrunedExports {
  splitHalves: Fn;
  mark: Fn;
  sums: Act;
  mostInGroup: Fn;
  toPatterns: Act;
  fromPatterns: Fn;
  packBits: Act;
  unpackBits: Act;
  countOnes: Fn;
  gridContexts: Act;
  keptContexts: Act;
  histogram: Act;
  gather: Act;
  valueTokens: Fn;
  packRaw: Act;
  countZero: Fn;
  valueWords: Act;
  scatter16: Act;
  scatter32: Act;
  wordsBegin: Act;
  words: Fn;
  ransEncode: Act;
  ransDecode: Act;
  buildSlots: Act;
}
