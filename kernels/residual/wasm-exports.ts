/** Exports of kernels/wasm/assembly/residual.ts; see there. All pointers are byte offsets in the memory. */
type Fn = (...args: number[]) => number;

export interface ResidualExports {
  countChanged: Fn;
  orWords: Fn;
  sumRows(...args: number[]): void;
  blockLevel: Fn;
  bitsBegin(p: number): void;
  bitsEnd(): number;
  bits(): number;
  setLevel(v: number): void;
  denseTokens(...args: number[]): void;
  planeTokens(...args: number[]): void;
  findChanged: Fn;
  sparseTokens(...args: number[]): void;
  wordsBegin(p: number): void;
  words(): number;
  ransEncode(...args: number[]): void;
  ransDecode(...args: number[]): void;
  enter(chunk: number): void;
  denseDecodePair(...args: number[]): void;
  denseDecode: Fn;
  planeDecode: Fn;
  sparsePositions: Fn;
  sparseContexts(...args: number[]): void;
  sparseApply(...args: number[]): void;
  buildSlots(...args: number[]): void;
}
