// The entropy coder of two modules: an interleaved range asymmetric numeral system (Duda, arXiv 1311.2540), docs/formats/residual.md.

export const L: u32 = 1 << 16;

// ---- rANS: 32-bit states in [2^16, 2^32), 16-bit words, 12-bit frequencies, 8 lanes (lane = index & 7) ----

// Encoder entry of 16 bytes: u64 floor(2^44 / f) + 1, u32 (f << 20) - 1, u16 start, u16 4096 - f.
// 1 when x must give up a word before this symbol. No branch: it is taken once in 13 symbols, and hard to foresee.
@inline export function over(x: u32, entry: usize): u32 {
  return <u32>(x > load<u32>(entry, 8));
}

@inline export function push(x: u32, entry: usize): u32 {
  // x < f 2^20, so x m < 2^64 and x (m - 2^44 / f) < 2^44 / f: the quotient is exact
  const q = <u32>((<u64>x * load<u64>(entry)) >> 44);
  return x + q * load<u16>(entry, 14) + load<u16>(entry, 12);
}

@inline export function entryOf(k: usize, tables: usize, offset: usize): usize {
  return tables + (<usize>load<u16>(k + offset) << 4);
}

let wordPtr: usize = 0;
@inline export function setWords(p: usize): void {
  wordPtr = p;
}
@inline export function wordsAt(): usize {
  return wordPtr;
}

@inline export function encodeRun(entries: usize, n: i32, tables: usize, states: usize): void {
  let ptr = wordPtr;
  let i = n;
  while (i & 7) {
    i--;
    const p = states + ((i & 7) << 2);
    const x = load<u32>(p);
    const e = entryOf(entries + (i << 1), tables, 0);
    const o = over(x, e);
    store<u16>(ptr - 2, <u16>x);
    ptr -= o << 1;
    store<u32>(p, push(x >> (o << 4), e));
  }
  let x0 = load<u32>(states, 0);
  let x1 = load<u32>(states, 4);
  let x2 = load<u32>(states, 8);
  let x3 = load<u32>(states, 12);
  let x4 = load<u32>(states, 16);
  let x5 = load<u32>(states, 20);
  let x6 = load<u32>(states, 24);
  let x7 = load<u32>(states, 28);
  while (i > 0) {
    i -= 8;
    const k = entries + (i << 1);
    const e7 = entryOf(k, tables, 14);
    const o7 = over(x7, e7);
    store<u16>(ptr - 2, <u16>x7);
    ptr -= o7 << 1;
    x7 = push(x7 >> (o7 << 4), e7);
    const e6 = entryOf(k, tables, 12);
    const o6 = over(x6, e6);
    store<u16>(ptr - 2, <u16>x6);
    ptr -= o6 << 1;
    x6 = push(x6 >> (o6 << 4), e6);
    const e5 = entryOf(k, tables, 10);
    const o5 = over(x5, e5);
    store<u16>(ptr - 2, <u16>x5);
    ptr -= o5 << 1;
    x5 = push(x5 >> (o5 << 4), e5);
    const e4 = entryOf(k, tables, 8);
    const o4 = over(x4, e4);
    store<u16>(ptr - 2, <u16>x4);
    ptr -= o4 << 1;
    x4 = push(x4 >> (o4 << 4), e4);
    const e3 = entryOf(k, tables, 6);
    const o3 = over(x3, e3);
    store<u16>(ptr - 2, <u16>x3);
    ptr -= o3 << 1;
    x3 = push(x3 >> (o3 << 4), e3);
    const e2 = entryOf(k, tables, 4);
    const o2 = over(x2, e2);
    store<u16>(ptr - 2, <u16>x2);
    ptr -= o2 << 1;
    x2 = push(x2 >> (o2 << 4), e2);
    const e1 = entryOf(k, tables, 2);
    const o1 = over(x1, e1);
    store<u16>(ptr - 2, <u16>x1);
    ptr -= o1 << 1;
    x1 = push(x1 >> (o1 << 4), e1);
    const e0 = entryOf(k, tables, 0);
    const o0 = over(x0, e0);
    store<u16>(ptr - 2, <u16>x0);
    ptr -= o0 << 1;
    x0 = push(x0 >> (o0 << 4), e0);
  }
  store<u32>(states, x0, 0);
  store<u32>(states, x1, 4);
  store<u32>(states, x2, 8);
  store<u32>(states, x3, 12);
  store<u32>(states, x4, 16);
  store<u32>(states, x5, 20);
  store<u32>(states, x6, 24);
  store<u32>(states, x7, 28);
  wordPtr = ptr;
}

// Decoder slot: (f - 1) << 20 | (slot - start) << 8 | token.
@inline export function pull(x: u32, slot: u32): u32 {
  const next = ((slot >> 20) + 1) * (x >> 12) + ((slot >> 8) & 4095);
  if (next >= L) return next;
  const w = load<u16>(wordPtr);
  wordPtr += 2;
  return (next << 16) | w;
}

@inline export function slotOf(x: u32, table: u32, tables: usize): u32 {
  return load<u32>(tables + (<usize>table << 14) + ((x & 4095) << 2));
}

// Which of four lanes take a word -> shuffle that puts the next words, in order, into those lanes.
const spread: usize = memory.data<u8>([
  255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
  0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
  255, 255, 255, 255, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
  0, 1, 255, 255, 2, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
  255, 255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 255, 255, 255, 255,
  0, 1, 255, 255, 255, 255, 255, 255, 2, 3, 255, 255, 255, 255, 255, 255,
  255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 255, 255, 255, 255, 255, 255,
  0, 1, 255, 255, 2, 3, 255, 255, 4, 5, 255, 255, 255, 255, 255, 255,
  255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255,
  0, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2, 3, 255, 255,
  255, 255, 255, 255, 0, 1, 255, 255, 255, 255, 255, 255, 2, 3, 255, 255,
  0, 1, 255, 255, 2, 3, 255, 255, 255, 255, 255, 255, 4, 5, 255, 255,
  255, 255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 255, 255,
  0, 1, 255, 255, 255, 255, 255, 255, 2, 3, 255, 255, 4, 5, 255, 255,
  255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 255, 255, 4, 5, 255, 255,
  0, 1, 255, 255, 2, 3, 255, 255, 4, 5, 255, 255, 6, 7, 255, 255,
]);

// The next words, in the low halves of the lanes in `mask`, 0 elsewhere
@inline export function wordsFor(ptr: usize, mask: i32): v128 {
  return i8x16.swizzle(v128.load64_zero(ptr), v128.load(spread + (<usize>mask << 4)));
}

// The slots of four states; `at`: byte offset of each state's table.
@inline export function slots4(x: v128, at: v128, tables: usize): v128 {
  const p = v128.or(at, v128.and(i32x4.shl(x, 2), i32x4.splat(16380)));
  let s = v128.load32_zero(tables + <usize>i32x4.extract_lane(p, 0));
  s = v128.load32_lane(tables + <usize>i32x4.extract_lane(p, 1), s, 1);
  s = v128.load32_lane(tables + <usize>i32x4.extract_lane(p, 2), s, 2);
  return v128.load32_lane(tables + <usize>i32x4.extract_lane(p, 3), s, 3);
}

// x = f (x >> 12) + slot - start, before new words
@inline export function next4(x: v128, s: v128): v128 {
  const high = i32x4.shr_u(x, 12);
  const bias = v128.and(i32x4.shr_u(s, 8), i32x4.splat(4095));
  return i32x4.add(i32x4.add(i32x4.mul(i32x4.shr_u(s, 20), high), high), bias);
}

// `ctx` holds tables by now. Eight states in two vectors; a step decodes eight symbols.
@inline export function decodeSymbols(tok: usize, ctx: usize, n: i32, tables: usize, states: usize): void {
  let x = v128.load(states);
  let y = v128.load(states, 16);
  let ptr = wordPtr;
  let i = 0;
  for (; i + 8 <= n; i += 8) {
    const t = v128.load8x8_u(ctx + i);
    const s = slots4(x, i32x4.shl(i32x4.extend_low_i16x8_u(t), 14), tables);
    const r = slots4(y, i32x4.shl(i32x4.extend_high_i16x8_u(t), 14), tables);
    const low = i32x4.splat(255);
    const both = i16x8.narrow_i32x4_u(v128.and(s, low), v128.and(r, low));
    v128.store64_lane(tok + i, i8x16.narrow_i16x8_u(both, both), 0);
    x = next4(x, s);
    y = next4(y, r);
    // below 2^16: take a word
    const zero = i32x4.splat(0);
    const xt = i32x4.eq(i32x4.shr_u(x, 16), zero);
    const yt = i32x4.eq(i32x4.shr_u(y, 16), zero);
    const xm = i32x4.bitmask(xt);
    const ym = i32x4.bitmask(yt);
    x = v128.bitselect(v128.or(i32x4.shl(x, 16), wordsFor(ptr, xm)), x, xt);
    ptr += <usize>popcnt<i32>(xm) << 1;
    y = v128.bitselect(v128.or(i32x4.shl(y, 16), wordsFor(ptr, ym)), y, yt);
    ptr += <usize>popcnt<i32>(ym) << 1;
  }
  v128.store(states, x);
  v128.store(states, y, 16);
  wordPtr = ptr;
  for (; i < n; i++) {
    const p = states + ((i & 7) << 2);
    const v = load<u32>(p);
    const s = slotOf(v, load<u8>(ctx + i), tables);
    store<u32>(p, pull(v, s));
    store<u8>(tok + i, <u8>s);
  }
}

// Slot table of one distribution: freqs u16 -> 4096 u32 entries.
export function buildSlots(freqs: usize, symbols: i32, out: usize): void {
  let p = out;
  for (let s = 0; s < symbols; s++) {
    const f: u32 = load<u16>(freqs + (s << 1));
    for (let i: u32 = 0; i < f; i++) {
      store<u32>(p, ((f - 1) << 20) | (i << 8) | <u32>s);
      p += 4;
    }
  }
}
