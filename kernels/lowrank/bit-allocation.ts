/**
 * How many bits each singular direction gets, under a budget sum_k bits_k ("Delta-CoMe", arXiv 2406.08903: bands; and the greedy choice).
 *   greedy: minimize sum_k s_k^2 c(bits_k),  c(b) = 2 e_b^2 + e_b^4,  c(0) = 1,
 * e_b: relative error of a factor of b bits, asymmetric, rounded to nearest in groups of 128 of a Gaussian. Both factors carry it once and
 * their product once more. Separable and convex along the hull of c: water-filling is optimal up to one step.
 */
import { withinBytes, type RateCurve } from './water-fill.js';

export const LEAST_BITS = 2;
export const MOST_BITS = 8;
/** What a direction starts with when widths are free: 2 bits lose more than they save (c(2) against 3 bits for fewer directions). */
export const FIRST_BITS = 3;
/** e_b for b = 0 .. 8; measured (test/kernels/lowrank/bit-allocation.test.ts). */
export const FACTOR_ERROR = [1, 1, 0.502, 0.215, 0.1004, 0.0486, 0.0239, 0.0119, 0.0059] as const;

/** Share of s_k^2 that is lost with `bits` bits. */
export const lostShare = (bits: number): number => (bits === 0 ? 1 : 2 * FACTOR_ERROR[bits]! ** 2 + FACTOR_ERROR[bits]! ** 4);

export interface Band {
  readonly bits: number;
  /** undefined: as many as the budget allows. */
  readonly count: number | undefined;
}

/**
 * Bits of the leading directions, band after band, at most `side` of them. With an open band the budget holds for all: what a band
 * cannot pay for is left out. Without one the counts stand as they are.
 */
export function bandBits(bands: readonly Band[], side: number, budget: number): number[] {
  const open = bands.some((b) => b.count === undefined);
  const out: number[] = [];
  let left = open ? budget : Infinity;
  for (const { bits, count } of bands) {
    const n = Math.min(count ?? Infinity, side - out.length, Math.floor(left / bits));
    for (let i = 0; i < n; i++) out.push(bits);
    left -= n * bits;
  }
  return out;
}

/** s: falling. Bits of each direction (0: dropped), their sum at most `budget`. */
export function greedyBits(s: ArrayLike<number>, budget: number): number[] {
  const widths = [0, ...Array.from({ length: MOST_BITS - LEAST_BITS + 1 }, (_, i) => LEAST_BITS + i)];
  const curves = Array.from(s, (v): RateCurve => ({ bytes: widths, errorSq: widths.map((b) => v * v * lostShare(b)), deltaSq: v * v }));
  return withinBytes(curves, budget).points.map((p) => widths[p]!);
}

/** Sum of s_k^2 that is lost by these bits; directions beyond them are dropped. */
export function lostEnergy(s: ArrayLike<number>, bits: readonly number[]): number {
  let lost = 0;
  for (let k = 0; k < s.length; k++) lost += s[k]! ** 2 * lostShare(bits[k] ?? 0);
  return lost;
}
