/** Sets of byte ranges. */

/** Bytes [begin, end). */
export type Interval = readonly [begin: number, end: number];

/** Sorted and disjoint; ranges that touch, or have at most `gap` bytes between them, become one. Empty ones are left out. */
export function coalesced(ranges: readonly Interval[], gap = 0): Interval[] {
  const out: [number, number][] = [];
  for (const [begin, end] of [...ranges].filter(([b, e]) => e > b).sort((a, b) => a[0] - b[0])) {
    const last = out.at(-1);
    if (last !== undefined && begin <= last[1] + gap) last[1] = Math.max(last[1], end);
    else out.push([begin, end]);
  }
  return out;
}

/** What of `wanted` is not in `held`. */
export function without(wanted: readonly Interval[], held: readonly Interval[]): Interval[] {
  let left: Interval[] = coalesced(wanted);
  for (const [from, to] of coalesced(held)) {
    left = left.flatMap(([begin, end]): Interval[] => {
      if (to <= begin || from >= end) return [[begin, end]];
      return [[begin, Math.max(begin, from)], [Math.min(end, to), end]]; // prettier-ignore
    });
  }
  return coalesced(left);
}

export const totalBytes = (ranges: readonly Interval[]): number => ranges.reduce((sum, [begin, end]) => sum + end - begin, 0);
