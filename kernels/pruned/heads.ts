/** What precedes the segments of a pruned matrix's two parts: docs/formats/sparse.md. */
import { bad, Cursor, packClasses } from './bytes.js';
import { GROUP_SIZES, patternsOf, type Patterns } from './patterns.js';

const VERSION = 1;

/** Of the mask. `columnClasses`: of columns, or of groups of columns when there are patterns; absent: all 0. */
export interface MaskHead {
  readonly patterns?: Patterns;
  readonly columnClasses?: Uint8Array;
}

/** Of the values: `first` is the magnitude, without its low bits, of token 1. */
export interface ValueHead {
  readonly first: number;
  readonly columnClasses?: Uint8Array;
}

/** Columns of the mask that have a class: of n, or their whole groups. */
export const maskColumns = (n: number, patterns: Patterns | undefined): number => (patterns === undefined ? n : Math.floor(n / patterns.of));

export function writeMaskHead({ patterns, columnClasses }: MaskHead): Uint8Array {
  return Buffer.concat([Uint8Array.of(VERSION, patterns?.keep ?? 0, patterns?.of ?? 0), packClasses(columnClasses)]);
}

export function readMaskHead(bytes: Uint8Array, n: number): MaskHead {
  const c = new Cursor(bytes);
  version(c);
  const [keep, of] = [c.u8(), c.u8()];
  if (of === 0 ? keep !== 0 : !(GROUP_SIZES as readonly number[]).includes(of) || keep === 0 || keep >= of) bad(`patterns of ${keep} in ${of}`);
  const patterns = of === 0 ? undefined : patternsOf(keep, of);
  const columnClasses = c.classes(maskColumns(n, patterns));
  c.end();
  return { ...(patterns === undefined ? {} : { patterns }), ...(columnClasses === undefined ? {} : { columnClasses }) };
}

export function writeValueHead({ first, columnClasses }: ValueHead): Uint8Array {
  return Buffer.concat([Uint8Array.of(VERSION, first & 255, first >> 8), packClasses(columnClasses)]);
}

export function readValueHead(bytes: Uint8Array, n: number): ValueHead {
  const c = new Cursor(bytes);
  version(c);
  const first = c.u16();
  const columnClasses = c.classes(n);
  c.end();
  return { first, ...(columnClasses === undefined ? {} : { columnClasses }) };
}

function version(c: Cursor): void {
  const got = c.u8();
  if (got !== VERSION) bad(`version ${got}`);
}
