/** The patterns of `keep` kept columns among `of`, in ascending order of their bits (column 0 lowest): the combinatorial number system. */

export interface Patterns {
  readonly keep: number;
  readonly of: number;
  /** index -> bits */
  readonly bits: Uint8Array;
}

/** Groups that are looked for. */
export const GROUP_SIZES = [2, 4, 8] as const;

const ones = (v: number): number => (v === 0 ? 0 : (v & 1) + ones(v >> 1));

/** of: at most 8; 0 < keep < of. */
export function patternsOf(keep: number, of: number): Patterns {
  const bits = Uint8Array.from({ length: 1 << of }, (_, v) => v).filter((v) => ones(v) === keep);
  return { keep, of, bits };
}

/** The pattern that holds each set of at most `keep` columns; the lowest others are added. u8[256], 0 for what no pattern holds. */
export function fillTable({ keep, of, bits }: Patterns): Uint8Array {
  const index = new Map([...bits].map((v, i) => [v, i]));
  const fill = new Uint8Array(256);
  for (let v = 0; v < 1 << of; v++) {
    let full = v;
    for (let b = 0; ones(full) < keep; b++) full |= 1 << b;
    fill[v] = index.get(full) ?? 0;
  }
  return fill;
}

/** Bits that a weight's share of an even choice among the patterns takes. */
export const patternBits = (p: Patterns): number => Math.log2(p.bits.length) / p.of;
