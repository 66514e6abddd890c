// Hot loops of the coder of pruned matrices; docs/formats/sparse.md is the normative text, kernels/pruned/coder.ts the driver.
// Memory is laid out by the driver: every function takes plain pointers. A matrix is (rows, n); words are the upper 16 bits of a value
// ("high": the whole of a 16-bit float), `low` the lower 16 of an f32. A mask is bytes 0 and 1. Loops that gather or scatter write
// every time and advance by the mask: no branch to mispredict. Arrays may be written up to 16 bytes beyond their end.

import { decodeSymbols, encodeRun, setWords, wordsAt } from './_rans';

// ---- words ----

// f32 -> high and low halves; returns the OR of the low ones
export function splitHalves(src: usize, n: i32, high: usize, low: usize): u32 {
  let or: u32 = 0;
  for (let i = 0; i < n; i++) {
    const w = load<u32>(src + (<usize>i << 2));
    or |= w & 0xffff;
    store<u16>(high + (<usize>i << 1), <u16>(w >> 16));
    store<u16>(low + (<usize>i << 1), <u16>w);
  }
  return or;
}

// mask[i] = word i is not +0; low: 0, or the lower halves. Returns how many are not.
export function mark(high: usize, low: usize, n: i32, mask: usize): i32 {
  const one = i8x16.splat(1);
  let i = 0;
  let kept = 0;
  for (; i + 16 <= n; i += 16) {
    let a = v128.load(high + (<usize>i << 1));
    let b = v128.load(high + (<usize>i << 1), 16);
    if (low != 0) {
      a = v128.or(a, v128.load(low + (<usize>i << 1)));
      b = v128.or(b, v128.load(low + (<usize>i << 1), 16));
    }
    const zero = i8x16.narrow_i16x8_s(i16x8.eq(a, i16x8.splat(0)), i16x8.eq(b, i16x8.splat(0)));
    kept += 16 - popcnt<i32>(i8x16.bitmask(zero));
    v128.store(mask + i, v128.andnot(one, zero));
  }
  for (; i < n; i++) {
    const w: u32 = <u32>load<u16>(high + (<usize>i << 1)) | (low != 0 ? <u32>load<u16>(low + (<usize>i << 1)) : 0);
    const k = w != 0 ? 1 : 0;
    store<u8>(mask + i, <u8>k);
    kept += k;
  }
  return kept;
}

// Adds to u32[n] kept and sum (of the kept words' magnitudes / 8) of every column; u32[rows] of every row are set.
export function sums(mask: usize, high: usize, rows: i32, n: i32, columnKept: usize, columnSum: usize, rowKept: usize, rowSum: usize): void {
  for (let r = 0; r < rows; r++) {
    let kept: u32 = 0;
    let total: u32 = 0;
    let j = 0;
    let vk = i32x4.splat(0);
    let vt = i32x4.splat(0);
    for (; j + 8 <= n; j += 8) {
      const k = v128.load8x8_u(mask + j);
      const w = v128.and(i16x8.shr_u(v128.and(v128.load(high + (<usize>j << 1)), i16x8.splat(0x7fff)), 3), i16x8.neg(k));
      const ck = columnKept + (<usize>j << 2);
      const cs = columnSum + (<usize>j << 2);
      const k0 = i32x4.extend_low_i16x8_u(k);
      const k1 = i32x4.extend_high_i16x8_u(k);
      const w0 = i32x4.extend_low_i16x8_u(w);
      const w1 = i32x4.extend_high_i16x8_u(w);
      v128.store(ck, i32x4.add(v128.load(ck), k0));
      v128.store(ck, i32x4.add(v128.load(ck, 16), k1), 16);
      v128.store(cs, i32x4.add(v128.load(cs), w0));
      v128.store(cs, i32x4.add(v128.load(cs, 16), w1), 16);
      vk = i32x4.add(vk, i32x4.add(k0, k1));
      vt = i32x4.add(vt, i32x4.add(w0, w1));
    }
    for (; j < n; j++) {
      const k: u32 = load<u8>(mask + j);
      const w: u32 = ((<u32>load<u16>(high + (<usize>j << 1)) & 0x7fff) >> 3) & (0 - k);
      const at = <usize>j << 2;
      store<u32>(columnKept + at, load<u32>(columnKept + at) + k);
      store<u32>(columnSum + at, load<u32>(columnSum + at) + w);
      kept += k;
      total += w;
    }
    store<u32>(rowKept + (<usize>r << 2), kept + lanes(vk));
    store<u32>(rowSum + (<usize>r << 2), total + lanes(vt));
    mask += n;
    high += <usize>n << 1;
  }
}

@inline function lanes(v: v128): u32 {
  return i32x4.extract_lane(v, 0) + i32x4.extract_lane(v, 1) + i32x4.extract_lane(v, 2) + i32x4.extract_lane(v, 3);
}

// The most words kept in a group of `group` (2, 4 or 8) consecutive columns; a row's last ones, fewer than `group`, are in none.
export function mostInGroup(mask: usize, rows: i32, n: i32, group: i32): i32 {
  let most = 0;
  for (let r = 0; r < rows; r++, mask += n) {
    for (let j = 0; j + group <= n; j += group) {
      const p = mask + j;
      const k = group == 8 ? popcnt<i64>(load<u64>(p)) : group == 4 ? popcnt<i32>(load<u32>(p)) : popcnt<i32>(load<u16>(p));
      if (<i32>k > most) most = <i32>k;
    }
    if (most == group) return most;
  }
  return most;
}

// ---- patterns of groups ----

@inline function bitsOf(p: usize, group: i32): u32 {
  let bits: u32 = 0;
  for (let b = 0; b < group; b++) bits |= <u32>load<u8>(p + b) << b;
  return bits;
}

// tok: (rows, n / group). fill: u8[256], the pattern that holds the given bits; patterns: u8[256], its bits. The mask becomes the patterns'.
export function toPatterns(mask: usize, rows: i32, n: i32, group: i32, fill: usize, patterns: usize, tok: usize): void {
  for (let r = 0; r < rows; r++, mask += n) {
    let j = 0;
    for (; j + group <= n; j += group) {
      const t = load<u8>(fill + bitsOf(mask + j, group));
      store<u8>(tok++, t);
      const bits: u32 = load<u8>(patterns + t);
      for (let b = 0; b < group; b++) store<u8>(mask + j + b, <u8>((bits >> b) & 1));
    }
    for (; j < n; j++) store<u8>(mask + j, 1);
  }
}

// 1 when a token is no pattern
export function fromPatterns(tok: usize, rows: i32, n: i32, group: i32, patterns: usize, count: i32, mask: usize): i32 {
  let over: i32 = 0;
  for (let r = 0; r < rows; r++, mask += n) {
    let j = 0;
    for (; j + group <= n; j += group) {
      const t: i32 = load<u8>(tok++);
      over |= <i32>(t >= count);
      const bits: u32 = load<u8>(patterns + t);
      for (let b = 0; b < group; b++) store<u8>(mask + j + b, <u8>((bits >> b) & 1));
    }
    for (; j < n; j++) store<u8>(mask + j, 1);
  }
  return over;
}

// ---- mask as bits, least significant first ----

export function packBits(mask: usize, n: i32, out: usize): void {
  let i = 0;
  for (; i + 16 <= n; i += 16) store<u16>(out + (i >> 3), <u16>i8x16.bitmask(i8x16.shl(v128.load(mask + i), 7)));
  if (i < n) store<u16>(out + (i >> 3), 0);
  for (; i < n; i++) store<u8>(out + (i >> 3), <u8>(<u32>load<u8>(out + (i >> 3)) | (<u32>load<u8>(mask + i) << (i & 7))));
}

export function unpackBits(bits: usize, n: i32, mask: usize): void {
  for (let i = 0; i < n; i++) store<u8>(mask + i, <u8>((<u32>load<u8>(bits + (i >> 3)) >> (i & 7)) & 1));
}

export function countOnes(mask: usize, n: i32): i32 {
  let kept = 0;
  let i = 0;
  for (; i + 8 <= n; i += 8) kept += <i32>popcnt<i64>(load<u64>(mask + i));
  for (; i < n; i++) kept += load<u8>(mask + i);
  return kept;
}

// ---- contexts: a row's class above a column's; 0 instead of an array of classes: all of them are 0 ----

@inline function classAt(classes: usize, i: i32): u32 {
  return classes == 0 ? 0 : load<u8>(classes + i);
}

export function gridContexts(rowClasses: usize, columnClasses: usize, rows: i32, columns: i32, ctx: usize): void {
  for (let r = 0; r < rows; r++, ctx += columns) {
    const row = classAt(rowClasses, r) << 4;
    if (columnClasses == 0) {
      memory.fill(ctx, <u8>row, columns);
      continue;
    }
    const high = i8x16.splat(<i8>row);
    for (let j = 0; j < columns; j += 16) v128.store(ctx + j, v128.or(v128.load(columnClasses + j), high));
  }
}

// Of the kept words alone, in order.
export function keptContexts(mask: usize, rowClasses: usize, columnClasses: usize, rows: i32, n: i32, ctx: usize): void {
  for (let r = 0; r < rows; r++, mask += n) {
    const row = classAt(rowClasses, r) << 4;
    if (columnClasses == 0) {
      const kept = countOnes(mask, n);
      memory.fill(ctx, <u8>row, kept);
      ctx += kept;
      continue;
    }
    for (let j = 0; j < n; j++) {
      store<u8>(ctx, <u8>(row | load<u8>(columnClasses + j)));
      ctx += load<u8>(mask + j);
    }
  }
}

export function histogram(tok: usize, ctx: usize, n: i32, even: usize, odd: usize, shift: i32): void {
  let i = 0;
  for (; i + 2 <= n; i += 2) {
    increment(even + (((<usize>load<u8>(ctx + i) << shift) | load<u8>(tok + i)) << 2));
    increment(odd + (((<usize>load<u8>(ctx + i + 1) << shift) | load<u8>(tok + i + 1)) << 2));
  }
  if (i < n) increment(even + (((<usize>load<u8>(ctx + i) << shift) | load<u8>(tok + i)) << 2));
}

@inline function increment(p: usize): void {
  store<u32>(p, load<u32>(p) + 1);
}

// ---- values ----

// high words that are kept, in order; written up to one word beyond them
export function gather(mask: usize, words: usize, n: i32, out: usize): void {
  for (let i = 0; i < n; i++) {
    store<u16>(out, load<u16>(words + (<usize>i << 1)));
    out += <usize>load<u8>(mask + i) << 1;
  }
}

// Token, and sign and low bits, of k words: token 1 + (magnitude >> s) - first, 0 for one that is stored whole in `escapes`. Returns how many are.
export function valueTokens(words: usize, k: i32, first: i32, s: i32, tok: usize, raw: usize, escapes: usize): i32 {
  const low: u32 = (1 << s) - 1;
  let escaped = 0;
  for (let i = 0; i < k; i++) {
    const w: u32 = load<u16>(words + (<usize>i << 1));
    const m = w & 0x7fff;
    let t = <i32>(m >> s) - first + 1;
    let r = (m & low) | ((w >> 15) << s);
    if (<u32>(t - 1) > 254) {
      store<u16>(escapes + (<usize>escaped << 1), <u16>w);
      escaped++;
      t = 0;
      r = 0;
    }
    store<u8>(tok + i, <u8>t);
    store<u8>(raw + i, <u8>r);
  }
  return escaped;
}

// The lowest b bits of k bytes, least significant first; 8 of them take b bytes, the last ones are filled up with 0
export function packRaw(raw: usize, k: i32, b: i32, out: usize): void {
  store<u64>(raw + k, 0);
  for (let i = 0; i < k; i += 8) {
    let acc: u64 = 0;
    for (let j = 0; j < 8; j++) acc |= <u64>load<u8>(raw + i + j) << (j * b);
    store<u64>(out, acc);
    out += b;
  }
}

export function countZero(tok: usize, k: i32): i32 {
  let zeros = 0;
  let i = 0;
  for (; i + 16 <= k; i += 16) zeros += popcnt<i32>(i8x16.bitmask(i8x16.eq(v128.load(tok + i), i8x16.splat(0))));
  for (; i < k; i++) zeros += load<u8>(tok + i) == 0 ? 1 : 0;
  return zeros;
}

// The words again; `escapes` holds as many as there are tokens 0.
export function valueWords(tok: usize, raw: usize, escapes: usize, k: i32, first: i32, s: i32, out: usize): void {
  const b = s + 1;
  const low: u64 = (1 << s) - 1;
  const width: u64 = (1 << b) - 1;
  for (let i = 0; i < k; i += 8) {
    let acc = load<u64>(raw);
    raw += b;
    for (let j = i; j < i + 8; j++) {
      const t: i32 = load<u8>(tok + j);
      const r = acc & width;
      acc >>= b;
      store<u16>(out + (<usize>j << 1), <u16>((<u32>(t - 1 + first) << s) | <u32>(r & low) | (<u32>(r >> s) << 15)));
    }
  }
  for (let i = 0; i < k; i += 16) {
    let zeros = i8x16.bitmask(i8x16.eq(v128.load(tok + i), i8x16.splat(0)));
    if (k - i < 16) zeros &= (1 << (k - i)) - 1;
    for (; zeros != 0; zeros &= zeros - 1) {
      store<u16>(out + (<usize>(i + <i32>ctz<i32>(zeros)) << 1), load<u16>(escapes));
      escapes += 2;
    }
  }
}

// Kept words back to their places, +0 elsewhere.
export function scatter16(mask: usize, words: usize, n: i32, out: usize): void {
  for (let i = 0; i < n; i++) {
    const k: u32 = load<u8>(mask + i);
    store<u16>(out + (<usize>i << 1), <u16>(<u32>load<u16>(words) & (0 - k)));
    words += <usize>k << 1;
  }
}

// low: 0 when all lower halves are
export function scatter32(mask: usize, high: usize, low: usize, n: i32, out: usize): void {
  for (let i = 0; i < n; i++) {
    const k: u32 = load<u8>(mask + i);
    const w = (<u32>load<u16>(high) << 16) | (low == 0 ? 0 : <u32>load<u16>(low));
    store<u32>(out + (<usize>i << 2), w & (0 - k));
    high += <usize>k << 1;
    if (low != 0) low += <usize>k << 1;
  }
}

// ---- rANS of a whole segment, any context at any place ----

const RUN: i32 = 1024;
const runEntries: usize = memory.data(2048, 16);

export function wordsBegin(p: usize): void {
  setWords(p);
}
export function words(): usize {
  return wordsAt();
}

// Codes n symbols from the last to the first; words grow downwards. `map`: context -> table, 1 << shift entries in each.
export function ransEncode(tok: usize, ctx: usize, n: i32, map: usize, tables: usize, shift: i32, states: usize): void {
  for (let from = (n - 1) & ~(RUN - 1); from >= 0; from -= RUN) {
    const count = n - from < RUN ? n - from : RUN;
    for (let i = 0; i < count; i++) {
      const table: u32 = load<u8>(map + load<u8>(ctx + from + i));
      store<u16>(runEntries + (<usize>i << 1), <u16>((table << shift) | load<u8>(tok + from + i)));
    }
    encodeRun(runEntries, count, tables, states);
  }
}

// Contexts become tables on the way.
export function ransDecode(tok: usize, ctx: usize, n: i32, map: usize, tables: usize, states: usize): void {
  for (let i = 0; i < n; i++) store<u8>(ctx + i, load<u8>(map + load<u8>(ctx + i)));
  decodeSymbols(tok, ctx, n, tables, states);
}

// Slot table of one distribution: freqs u16 -> 4096 u32 entries.
export { buildSlots } from './_rans';
