// Hot loops of the residual coder; docs/formats/residual.md is the normative text, kernels/residual/codec.ts the driver.
// Memory is laid out by the driver: every function takes plain pointers. One file, longer than other kernels: its parts share the bit
// and word pointers, which are locals or globals of one module for speed, and encoder and decoder of a mode are read side by side.
//
// A word is 8, 16 or 32 bits. sign: 2 = sign-magnitude (floats), 1 = two's complement, 0 = unsigned.
// exponent context e' = min(15, max(0, ((base >> eshift) & emask) - ebase)).

import { decodeSymbols, encodeRun, next4, setWords, slots4, wordsAt, wordsFor } from './_rans';

const BLOCK: i32 = 64;

@inline function loadWord(p: usize, width: i32): u32 {
  if (width == 16) return load<u16>(p);
  if (width == 32) return load<u32>(p);
  return load<u8>(p);
}

@inline function storeWord(p: usize, width: i32, v: u32): void {
  if (width == 16) store<u16>(p, <u16>v);
  else if (width == 32) store<u32>(p, v);
  else store<u8>(p, <u8>v);
}

// M(w): order-preserving map onto unsigned words
@inline function order(w: u32, width: i32, sign: i32): u32 {
  const top: u32 = (1 as u32) << (width - 1);
  if (sign == 2) return w & top ? ~w : w | top;
  return sign == 1 ? w ^ top : w;
}

@inline function unorder(m: u32, width: i32, sign: i32): u32 {
  const top: u32 = (1 as u32) << (width - 1);
  if (sign == 2) return m & top ? m ^ top : ~m;
  return sign == 1 ? m ^ top : m;
}

// d of two words without their `zeros` lowest bits, sign-extended
@inline function difference(a: u32, b: u32, width: i32, sign: i32, zeros: i32): i32 {
  const w = width - zeros;
  const s = 32 - w;
  return <i32>((order(b >> zeros, w, sign) - order(a >> zeros, w, sign)) << s) >> s;
}

// the inverse: a and d -> b
@inline function applied(a: u32, d: u32, width: i32, sign: i32, zeros: i32): u32 {
  const w = width - zeros;
  return unorder(order(a >> zeros, w, sign) + d, w, sign) << zeros;
}

@inline function magnitude(d: i32, e: u32): f32 {
  const u: u32 = d < 0 ? 0 - <u32>d : <u32>d;
  const scale = e < 1 ? 1 : e > 254 ? 254 : e;
  return <f32>u * reinterpret<f32>(scale << 23);
}

// ---- scan: how many words differ; OR of all words (for common trailing zeros) ----

export function countChanged(a: usize, b: usize, bytes: i32, width: i32): i32 {
  let changed = 0;
  let i = 0;
  const wb = width >> 3;
  if (width == 16) {
    let acc = i32x4.splat(0);
    for (; i + 16 <= bytes; i += 16) {
      const eq = i16x8.eq(v128.load(a + i), v128.load(b + i));
      acc = i32x4.add(acc, i32x4.extadd_pairwise_i16x8_s(eq));
    }
    const equal = -(i32x4.extract_lane(acc, 0) + i32x4.extract_lane(acc, 1) + i32x4.extract_lane(acc, 2) + i32x4.extract_lane(acc, 3));
    changed = (i >> 1) - equal;
  }
  for (; i < bytes; i += wb) changed += loadWord(a + i, width) != loadWord(b + i, width) ? 1 : 0;
  return changed;
}

// ---- histograms: a += b, and of every row its total, sum of count times symbol, and last symbol that occurs ----

// rows of `symbols` u32 counts, a multiple of 4; out: 3 u32 a row, may be b itself
export function sumRows(a: usize, b: usize, rows: i32, symbols: i32, out: usize): void {
  for (let r = 0; r < rows; r++) {
    let total = i32x4.splat(0);
    let weighted = i32x4.splat(0);
    let last = i32x4.splat(0);
    let index = i32x4(0, 1, 2, 3);
    for (let s = 0; s < symbols; s += 4) {
      const c = i32x4.add(v128.load(a), v128.load(b));
      v128.store(a, c);
      total = i32x4.add(total, c);
      weighted = i32x4.add(weighted, i32x4.mul(c, index));
      last = i32x4.max_u(last, v128.andnot(index, i32x4.eq(c, i32x4.splat(0))));
      index = i32x4.add(index, i32x4.splat(4));
      a += 16;
      b += 16;
    }
    store<i32>(out, i32x4.extract_lane(total, 0) + i32x4.extract_lane(total, 1) + i32x4.extract_lane(total, 2) + i32x4.extract_lane(total, 3));
    store<i32>(out + 4, i32x4.extract_lane(weighted, 0) + i32x4.extract_lane(weighted, 1) + i32x4.extract_lane(weighted, 2) + i32x4.extract_lane(weighted, 3));
    store<i32>(out + 8, max(max(i32x4.extract_lane(last, 0), i32x4.extract_lane(last, 1)), max(i32x4.extract_lane(last, 2), i32x4.extract_lane(last, 3))));
    out += 12;
  }
}

export function orWords(b: usize, n: i32): u32 {
  let or: u32 = 0;
  for (let i = 0; i < n; i++) or |= load<u32>(b + (i << 2));
  return or;
}

// ---- one block: contexts from the base, z and level ----

// e' | bucket << 4 for 64 bf16/f16 words
@inline function contexts16(a: usize, ctx: usize, eshift: i32, emask: v128, ebase: v128, bucket: v128): void {
  const fifteen = i16x8.splat(15);
  for (let i: usize = 0; i < 64; i += 16) {
    const v0 = v128.load(a + (i << 1));
    const v1 = v128.load(a + (i << 1) + 16);
    const e0 = i16x8.min_u(i16x8.sub_sat_u(v128.and(i16x8.shr_u(v0, eshift), emask), ebase), fifteen);
    const e1 = i16x8.min_u(i16x8.sub_sat_u(v128.and(i16x8.shr_u(v1, eshift), emask), ebase), fifteen);
    v128.store(ctx + i, v128.or(i8x16.narrow_i16x8_u(e0, e1), bucket));
  }
}

// The same, but the table of each context: `row` is the bucket's row of the map
@inline function tables16(a: usize, out: usize, eshift: i32, emask: v128, ebase: v128, row: v128): void {
  const fifteen = i16x8.splat(15);
  for (let i: usize = 0; i < 64; i += 16) {
    const e0 = i16x8.min_u(i16x8.sub_sat_u(v128.and(i16x8.shr_u(v128.load(a + (i << 1)), eshift), emask), ebase), fifteen);
    const e1 = i16x8.min_u(i16x8.sub_sat_u(v128.and(i16x8.shr_u(v128.load(a + (i << 1), 16), eshift), emask), ebase), fifteen);
    v128.store(out + i, i8x16.swizzle(row, i8x16.narrow_i16x8_u(e0, e1)));
  }
}

@inline function contextsAny(a: usize, ctx: usize, count: i32, width: i32, eshift: i32, emask: u32, ebase: u32, bucket: u32): void {
  const wb = width >> 3;
  for (let i = 0; i < count; i++) {
    let e = (loadWord(a + i * wb, width) >> eshift) & emask;
    e = e > ebase ? e - ebase : 0;
    store<u8>(ctx + i, <u8>((e > 15 ? 15 : e) | bucket));
  }
}

// bits(S) >> 22 counts half octaves; 16 buckets from `base` on
@inline function bucketOf(level: f32, base: i32): u32 {
  const b = <i32>(reinterpret<u32>(level) >> 22) - base;
  return (b < 0 ? 0 : b > 15 ? 15 : b) << 4;
}

@inline function order16(v: v128): v128 {
  // sign set: ~v; else v | 0x8000  ==  v ^ ((v >>s 15) | 0x8000)
  return v128.xor(v, v128.or(i16x8.shr_s(v, 15), i16x8.splat(-32768)));
}

@inline function sum4(v: v128): f32 {
  return f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3));
}

// |d| * 2^(e - 127) of 8 words, added to acc; e is the raw exponent field plus `eadd`, clamped to [1, 254]
@inline function magnitudes16(acc: v128, d: v128, a: v128, eshift: i32, emask: v128, eadd: v128): v128 {
  const u = i16x8.abs(d);
  const e = i16x8.min_u(i16x8.max_u(i16x8.add(v128.and(i16x8.shr_u(a, eshift), emask), eadd), i16x8.splat(1)), i16x8.splat(254));
  const lo = f32x4.mul(f32x4.convert_i32x4_u(i32x4.extend_low_i16x8_u(u)), i32x4.shl(i32x4.extend_low_i16x8_u(e), 23));
  const hi = f32x4.mul(f32x4.convert_i32x4_u(i32x4.extend_high_i16x8_u(u)), i32x4.shl(i32x4.extend_high_i16x8_u(e), 23));
  return f32x4.add(acc, f32x4.add(lo, hi));
}

// Sum of a block's magnitudes, the encoder's sample. Full blocks only.
export function blockLevel(a: usize, b: usize, width: i32, sign: i32, eshift: i32, emask: i32, eadd: i32, zeros: i32): f32 {
  const wb = width >> 3;
  let sum: f32 = 0;
  for (let i = 0; i < BLOCK; i++) {
    const w = loadWord(a + i * wb, width);
    sum += magnitude(difference(w, loadWord(b + i * wb, width), width, sign, zeros), ((w >> eshift) & emask) + eadd);
  }
  return sum;
}

// ---- raw bits, least significant first ----

let bitAcc: u64 = 0;
let bitCount: i32 = 0;
let bitPtr: usize = 0;

@inline function putBits(value: u32, count: i32): void {
  bitAcc |= (<u64>value) << bitCount;
  bitCount += count;
  if (bitCount >= 32) {
    store<u32>(bitPtr, <u32>bitAcc);
    bitPtr += 4;
    bitAcc >>= 32;
    bitCount -= 32;
  }
}

@inline function getBits(count: i32): u32 {
  if (bitCount < count) {
    bitAcc |= (<u64>load<u32>(bitPtr)) << bitCount;
    bitPtr += 4;
    bitCount += 32;
  }
  const v = <u32>(bitAcc & (((1 as u64) << count) - 1));
  bitAcc >>= count;
  bitCount -= count;
  return v;
}

export function bitsBegin(p: usize): void {
  bitAcc = 0;
  bitCount = 0;
  bitPtr = p;
}

export function bitsEnd(): usize {
  for (; bitCount > 0; bitCount -= 8) {
    store<u8>(bitPtr++, <u8>bitAcc);
    bitAcc >>= 8;
  }
  bitCount = 0;
  return bitPtr;
}

@inline function putToken(z: u32): u32 {
  if (z < 32) return z;
  const k = 31 - clz<u32>(z);
  putBits(z & (((1 as u32) << (k - 1)) - 1), k - 1);
  return 32 + ((k - 5) << 1) + ((z >> (k - 1)) & 1);
}

@inline function getToken(t: u32): u32 {
  if (t < 32) return t;
  const u = t - 32;
  const k = 5 + (u >> 1);
  return ((1 as u32) << k) | ((u & 1) << (k - 1)) | getBits(k - 1);
}

// ---- dense: every word's difference ----

let level: f32 = 0;
export function setLevel(v: f32): void {
  level = v;
}

// Histograms: hist[copy][ctx][token], two copies against store-to-load stalls.
@inline function count(hist: usize, ctx: u32, token: u32, shift: i32): void {
  increment(hist + (((ctx << shift) | token) << 2));
}

@inline function increment(p: usize): void {
  store<u32>(p, load<u32>(p) + 1);
}

// Pass A of a chunk: tokens, contexts, raw bits, histogram.
export function denseTokens(
  a: usize, b: usize, n: i32, tok: usize, ctx: usize, z: usize, hist: usize, hist2: usize, shift: i32,
  width: i32, sign: i32, eshift: i32, emask: i32, ebase: i32, eadd: i32, levelBase: i32, zeros: i32,
): void {
  const vmask = i16x8.splat(<i16>emask);
  const vbase = i16x8.splat(<i16>ebase);
  const vadd = i16x8.splat(<i16>eadd);
  const limit = i16x8.splat(31);
  let i = 0;
  if (width == 16 && sign == 2) {
    for (; i + BLOCK <= n; i += BLOCK) {
      contexts16(a + (i << 1), ctx + i, eshift, vmask, vbase, i8x16.splat(<i8>bucketOf(level, levelBase)));
      let acc = f32x4.splat(0);
      let big: u64 = 0;
      for (let j = 0; j < BLOCK; j += 16) {
        const p = (i + j) << 1;
        const a0 = v128.load(a + p);
        const a1 = v128.load(a + p + 16);
        const d0 = i16x8.sub(order16(v128.load(b + p)), order16(a0));
        const d1 = i16x8.sub(order16(v128.load(b + p + 16)), order16(a1));
        acc = magnitudes16(acc, d0, a0, eshift, vmask, vadd);
        acc = magnitudes16(acc, d1, a1, eshift, vmask, vadd);
        const z0 = v128.xor(i16x8.shl(d0, 1), i16x8.shr_s(d0, 15));
        const z1 = v128.xor(i16x8.shl(d1, 1), i16x8.shr_s(d1, 15));
        big |= (<u64>i8x16.bitmask(i8x16.narrow_i16x8_s(i16x8.gt_u(z0, limit), i16x8.gt_u(z1, limit)))) << j;
        v128.store(z + (j << 1), z0);
        v128.store(z + (j << 1) + 16, z1);
        v128.store(tok + i + j, i8x16.narrow_i16x8_u(z0, z1));
      }
      for (; big != 0; big &= big - 1) {
        const j = <i32>ctz<u64>(big);
        store<u8>(tok + i + j, <u8>putToken(load<u16>(z + (j << 1))));
      }
      for (let j = 0; j < BLOCK; j += 16) {
        const c = v128.load(ctx + i + j);
        const t = v128.load(tok + i + j);
        v128.store(z + (j << 1), v128.or(i16x8.shl(i16x8.extend_low_i8x16_u(c), shift), i16x8.extend_low_i8x16_u(t)));
        v128.store(z + (j << 1), v128.or(i16x8.shl(i16x8.extend_high_i8x16_u(c), shift), i16x8.extend_high_i8x16_u(t)), 16);
      }
      for (let j = 0; j < BLOCK; j += 4) {
        const k = z + (j << 1);
        increment(hist + (<usize>load<u16>(k) << 2));
        increment(hist2 + (<usize>load<u16>(k, 2) << 2));
        increment(hist + (<usize>load<u16>(k, 4) << 2));
        increment(hist2 + (<usize>load<u16>(k, 6) << 2));
      }
      level = (level + sum4(acc)) * 0.5;
    }
  }
  const wb = width >> 3;
  while (i < n) {
    const m = n - i < BLOCK ? n - i : BLOCK;
    contextsAny(a + i * wb, ctx + i, m, width, eshift, emask, ebase, bucketOf(level, levelBase));
    let sum: f32 = 0;
    for (let j = 0; j < m; j++) {
      const w = loadWord(a + (i + j) * wb, width);
      const d = difference(w, loadWord(b + (i + j) * wb, width), width, sign, zeros);
      sum += magnitude(d, ((w >> eshift) & emask) + eadd);
      const t = putToken(<u32>((d << 1) ^ (d >> 31)));
      store<u8>(tok + i + j, <u8>t);
      count(hist, load<u8>(ctx + i + j), t, shift);
    }
    level = (level + sum) * 0.5;
    i += m;
  }
}

// ---- standalone: exponents as tokens, sign and mantissa raw; integers as zigzag tokens ----

export function planeTokens(b: usize, n: i32, tok: usize, ctx: usize, hist: usize, shift: i32, width: i32, sign: i32, mbits: i32, levelBase: i32, zeros: i32): void {
  const wb = width >> 3;
  const mmask: u32 = ((1 as u32) << mbits) - 1;
  const emask: u32 = ((1 as u32) << (width - 1 - mbits)) - 1;
  let i = 0;
  // bf16: 8 raw bits a word, so a block's are whole bytes
  const bytes = width == 16 && sign == 2 && mbits == 7 && zeros == 0;
  for (; bytes && i + BLOCK <= n; i += BLOCK) {
    const bucket = planeBucket(level, levelBase);
    let acc = i32x4.splat(0);
    for (let j = 0; j < BLOCK; j += 16) {
      const w0 = v128.load(b + ((i + j) << 1));
      const w1 = v128.load(b + ((i + j) << 1), 16);
      const e0 = v128.and(i16x8.shr_u(w0, 7), i16x8.splat(255));
      const e1 = v128.and(i16x8.shr_u(w1, 7), i16x8.splat(255));
      acc = i32x4.add(acc, i32x4.extadd_pairwise_i16x8_u(i16x8.add(e0, e1)));
      v128.store(tok + i + j, i8x16.narrow_i16x8_u(e0, e1));
      v128.store(ctx + i + j, i8x16.splat(<i8>bucket));
      v128.store(bitPtr + j, i8x16.narrow_i16x8_u(signMantissa(w0), signMantissa(w1)));
    }
    bitPtr += BLOCK;
    const row = hist + (<usize>bucket << (shift + 2));
    for (let j = 0; j < BLOCK; j++) increment(row + (<usize>load<u8>(tok + i + j) << 2));
    level = (level + <f32>sumLanes(acc)) * 0.5;
  }
  while (i < n) {
    const m = n - i < BLOCK ? n - i : BLOCK;
    const bucket = planeBucket(level, levelBase);
    let sum: u32 = 0;
    for (let j = 0; j < m; j++) {
      const w = loadWord(b + (i + j) * wb, width);
      let t: u32;
      if (sign == 2) {
        t = (w >> mbits) & emask;
        putBits(((w & mmask) | ((w >> (width - 1)) << mbits)) >> zeros, mbits + 1 - zeros);
      } else {
        const s = 32 - width;
        const v = sign == 1 ? <i32>(w << s) >> s : <i32>w;
        t = putToken(sign == 1 ? <u32>((v << 1) ^ (v >> 31)) : w);
      }
      sum += t;
      store<u8>(tok + i + j, <u8>t);
      store<u8>(ctx + i + j, <u8>bucket);
      count(hist, bucket, t, shift);
    }
    level = (level + <f32>(sum * 64 / m)) * 0.5;
    i += m;
  }
}

// bf16 words -> sign above the mantissa, in 16 bits
@inline function signMantissa(w: v128): v128 {
  return v128.or(v128.and(w, i16x8.splat(127)), v128.and(i16x8.shr_u(w, 8), i16x8.splat(128)));
}

@inline function sumLanes(v: v128): u32 {
  return i32x4.extract_lane(v, 0) + i32x4.extract_lane(v, 1) + i32x4.extract_lane(v, 2) + i32x4.extract_lane(v, 3);
}

// Mean token of the last blocks in quarters.
@inline function planeBucket(mean: f32, base: i32): u32 {
  const b = (<i32>mean >> 4) - base;
  return (b < 0 ? 0 : b > 15 ? 15 : b) << 4;
}

// ---- sparse: gaps and values of the words that changed ----

// Positions of changed words; returns how many.
export function findChanged(a: usize, b: usize, n: i32, width: i32, positions: usize): i32 {
  const wb = width >> 3;
  const bytes = n * wb;
  let k = 0;
  let i = 0;
  for (; i + 16 <= bytes; i += 16) {
    const x = v128.xor(v128.load(a + i), v128.load(b + i));
    if (!v128.any_true(x)) continue;
    for (let j = i; j < i + 16; j += wb) {
      if (loadWord(a + j, width) != loadWord(b + j, width)) store<u32>(positions + (k++ << 2), j / wb);
    }
  }
  for (; i < bytes; i += wb) if (loadWord(a + i, width) != loadWord(b + i, width)) store<u32>(positions + (k++ << 2), i / wb);
  return k;
}

// Gap tokens (context 0) then value tokens (context 16 | e'): k of each.
export function sparseTokens(
  a: usize, b: usize, positions: usize, k: i32, tok: usize, ctx: usize, hist: usize, shift: i32,
  width: i32, sign: i32, eshift: i32, emask: i32, ebase: i32, zeros: i32,
): void {
  const wb = width >> 3;
  let last: u32 = -1;
  for (let i = 0; i < k; i++) {
    const p = load<u32>(positions + (i << 2));
    const t = putToken(p - last - 1);
    last = p;
    store<u8>(tok + i, <u8>t);
    store<u8>(ctx + i, 0);
    count(hist, 0, t, shift);
  }
  for (let i = 0; i < k; i++) {
    const p = load<u32>(positions + (i << 2)) * wb;
    const w = loadWord(a + p, width);
    const d = difference(w, loadWord(b + p, width), width, sign, zeros);
    const t = putToken(<u32>((d << 1) ^ (d >> 31)));
    contextsAny(a + p, ctx + k + i, 1, width, eshift, emask, ebase, 16);
    store<u8>(tok + k + i, <u8>t);
    count(hist, load<u8>(ctx + k + i), t, shift);
  }
}

// ---- rANS of a run of symbols; the coder is in _rans.ts ----

export function wordsBegin(p: usize): void {
  setWords(p);
}
export function words(): usize {
  return wordsAt();
}

// Contexts -> tables, in place. 16 neighbours share a bucket (a block, or a run of the sparse mode), so a row of the map is one shuffle.
function toTables(ctx: usize, n: i32, map: usize): void {
  const low = i8x16.splat(15);
  for (let i = 0; i < n; i += 16) {
    const c = v128.load(ctx + i);
    v128.store(ctx + i, i8x16.swizzle(v128.load(map + (load<u8>(ctx + i) & 0xf0)), v128.and(c, low)));
  }
}

// Which entry each of n symbols has: table << shift | token, as u16.
function toEntries(tok: usize, ctx: usize, n: i32, map: usize, shift: i32, out: usize): void {
  const low = i8x16.splat(15);
  for (let i = 0; i < n; i += 16) {
    const row = v128.load(map + (load<u8>(ctx + i) & 0xf0));
    const t = i8x16.swizzle(row, v128.and(v128.load(ctx + i), low));
    const s = v128.load(tok + i);
    v128.store(out + (i << 1), v128.or(i16x8.shl(i16x8.extend_low_i8x16_u(t), shift), i16x8.extend_low_i8x16_u(s)));
    v128.store(out + (i << 1), v128.or(i16x8.shl(i16x8.extend_high_i8x16_u(t), shift), i16x8.extend_high_i8x16_u(s)), 16);
  }
}

const RUN: i32 = 1024;
const runEntries: usize = memory.data(2048, 16);

// Codes n symbols from the last to the first; words grow downwards. `map`: context -> table, 1 << shift entries in each.
export function ransEncode(tok: usize, ctx: usize, n: i32, map: usize, tables: usize, shift: i32, states: usize): void {
  for (let from = (n - 1) & ~(RUN - 1); from >= 0; from -= RUN) {
    const count = n - from < RUN ? n - from : RUN;
    toEntries(tok + from, ctx + from, count, map, shift, runEntries);
    encodeRun(runEntries, count, tables, states);
  }
}

export function ransDecode(tok: usize, ctx: usize, n: i32, map: usize, tables: usize, states: usize): void {
  toTables(ctx, n, map);
  decodeSymbols(tok, ctx, n, tables, states);
}

export function bits(): usize {
  return bitPtr - <usize>(bitCount >> 3);
}

// All four decoders return 0, or 1 when the words or raw bits ran out (`wordEnd`, `bitEnd`).
@inline function overrun(wordEnd: usize, bitEnd: usize): bool {
  return wordsAt() > wordEnd || bitPtr - <usize>(bitCount >> 3) > bitEnd;
}

// Which of a block's tokens have raw bits
@inline function escapes(tok: usize): u64 {
  const limit = i8x16.splat(31);
  let big: u64 = 0;
  for (let j = 0; j < BLOCK; j += 16) big |= (<u64>i8x16.bitmask(i8x16.gt_u(v128.load(tok + j), limit))) << j;
  return big;
}

// A block of 16-bit floats from its tokens; returns the sum of its magnitudes.
@inline function applyTokens(ap: usize, bp: usize, tok: usize, eshift: i32, vmask: v128, vadd: v128): f32 {
  let acc = f32x4.splat(0);
  for (let j = 0; j < BLOCK; j += 16) {
    const t = v128.load(tok + j);
    acc = restore16(acc, i16x8.extend_low_i8x16_u(t), ap + (j << 1), bp + (j << 1), eshift, vmask, vadd);
    acc = restore16(acc, i16x8.extend_high_i8x16_u(t), ap + (j << 1) + 16, bp + (j << 1) + 16, eshift, vmask, vadd);
  }
  return sum4(acc);
}

function applyEscaped(ap: usize, bp: usize, tok: usize, escaped: u64, eshift: i32, vmask: v128, vadd: v128): f32 {
  let big = escaped;
  for (let j = 0; j < BLOCK; j += 16) {
    const t = v128.load(tok + j);
    v128.store(bp + (j << 1), i16x8.extend_low_i8x16_u(t));
    v128.store(bp + (j << 1), i16x8.extend_high_i8x16_u(t), 16);
  }
  for (; big != 0; big &= big - 1) {
    const j = <i32>ctz<u64>(big);
    store<u16>(bp + (j << 1), <u16>getToken(load<u8>(tok + j)));
  }
  let acc = f32x4.splat(0);
  for (let j = 0; j < BLOCK; j += 8) acc = restore16(acc, v128.load(bp + (j << 1)), ap + (j << 1), bp + (j << 1), eshift, vmask, vadd);
  return sum4(acc);
}

// A chunk that is being decoded, 64 bytes: u32 states[8], f32 level, u32 word pointer, u32 bit pointer, i32 bits held, u64 the bits.
@inline function enterBits(chunk: usize): void {
  bitPtr = load<u32>(chunk, 40);
  bitCount = load<i32>(chunk, 44);
  bitAcc = load<u64>(chunk, 48);
}

@inline function leaveBits(chunk: usize): void {
  store<u32>(chunk, <u32>bitPtr, 40);
  store<i32>(chunk, bitCount, 44);
  store<u64>(chunk, bitAcc, 48);
}

export function enter(chunk: usize): void {
  level = load<f32>(chunk, 32);
  setWords(load<u32>(chunk, 36));
  enterBits(chunk);
}

// m words (whole blocks, 16-bit floats) of two chunks at once: each waits for its own states, so two keep the processor busy.
// tok, ctx: scratch of two blocks.
export function denseDecodePair(
  c0: usize, a0: usize, b0: usize, c1: usize, a1: usize, b1: usize, m: i32, tok: usize, ctx: usize, map: usize, tables: usize,
  eshift: i32, emask: i32, ebase: i32, eadd: i32, levelBase: i32,
): void {
  const vmask = i16x8.splat(<i16>emask);
  const vbase = i16x8.splat(<i16>ebase);
  const vadd = i16x8.splat(<i16>eadd);
  const low = i32x4.splat(255);
  const zero = i32x4.splat(0);
  let x = v128.load(c0);
  let y = v128.load(c0, 16);
  let u = v128.load(c1);
  let v = v128.load(c1, 16);
  let level0 = load<f32>(c0, 32);
  let level1 = load<f32>(c1, 32);
  let p0: usize = load<u32>(c0, 36);
  let p1: usize = load<u32>(c1, 36);
  for (let i = 0; i < m; i += BLOCK) {
    const at = <usize>i << 1;
    tables16(a0 + at, ctx, eshift, vmask, vbase, v128.load(map + bucketOf(level0, levelBase)));
    tables16(a1 + at, ctx + BLOCK, eshift, vmask, vbase, v128.load(map + bucketOf(level1, levelBase)));
    for (let j = 0; j < BLOCK; j += 8) {
      const t = v128.load8x8_u(ctx + j);
      const w = v128.load8x8_u(ctx + j, BLOCK);
      const sx = slots4(x, i32x4.shl(i32x4.extend_low_i16x8_u(t), 14), tables);
      const sy = slots4(y, i32x4.shl(i32x4.extend_high_i16x8_u(t), 14), tables);
      const su = slots4(u, i32x4.shl(i32x4.extend_low_i16x8_u(w), 14), tables);
      const sv = slots4(v, i32x4.shl(i32x4.extend_high_i16x8_u(w), 14), tables);
      const xy = i16x8.narrow_i32x4_u(v128.and(sx, low), v128.and(sy, low));
      const uv = i16x8.narrow_i32x4_u(v128.and(su, low), v128.and(sv, low));
      const four = i8x16.narrow_i16x8_u(xy, uv);
      v128.store64_lane(tok + j, four, 0);
      v128.store64_lane(tok + j, four, 1, BLOCK);
      x = next4(x, sx);
      y = next4(y, sy);
      u = next4(u, su);
      v = next4(v, sv);
      // below 2^16: take a word
      const tx = i32x4.eq(i32x4.shr_u(x, 16), zero);
      const ty = i32x4.eq(i32x4.shr_u(y, 16), zero);
      const tu = i32x4.eq(i32x4.shr_u(u, 16), zero);
      const tv = i32x4.eq(i32x4.shr_u(v, 16), zero);
      const mx = i32x4.bitmask(tx);
      const my = i32x4.bitmask(ty);
      const mu = i32x4.bitmask(tu);
      const mv = i32x4.bitmask(tv);
      x = v128.bitselect(v128.or(i32x4.shl(x, 16), wordsFor(p0, mx)), x, tx);
      p0 += <usize>popcnt<i32>(mx) << 1;
      u = v128.bitselect(v128.or(i32x4.shl(u, 16), wordsFor(p1, mu)), u, tu);
      p1 += <usize>popcnt<i32>(mu) << 1;
      y = v128.bitselect(v128.or(i32x4.shl(y, 16), wordsFor(p0, my)), y, ty);
      p0 += <usize>popcnt<i32>(my) << 1;
      v = v128.bitselect(v128.or(i32x4.shl(v, 16), wordsFor(p1, mv)), v, tv);
      p1 += <usize>popcnt<i32>(mv) << 1;
    }
    level0 = (level0 + restoreBlock(c0, a0 + at, b0 + at, tok, eshift, vmask, vadd)) * 0.5;
    level1 = (level1 + restoreBlock(c1, a1 + at, b1 + at, tok + BLOCK, eshift, vmask, vadd)) * 0.5;
  }
  v128.store(c0, x);
  v128.store(c0, y, 16);
  v128.store(c1, u);
  v128.store(c1, v, 16);
  store<f32>(c0, level0, 32);
  store<f32>(c1, level1, 32);
  store<u32>(c0, <u32>p0, 36);
  store<u32>(c1, <u32>p1, 36);
}

@inline function restoreBlock(chunk: usize, ap: usize, bp: usize, tok: usize, eshift: i32, vmask: v128, vadd: v128): f32 {
  const big = escapes(tok);
  if (big == 0) return applyTokens(ap, bp, tok, eshift, vmask, vadd);
  enterBits(chunk);
  const sum = applyEscaped(ap, bp, tok, big, eshift, vmask, vadd);
  leaveBits(chunk);
  return sum;
}

export function denseDecode(
  a: usize, b: usize, n: i32, tok: usize, ctx: usize, map: usize, tables: usize, states: usize, wordEnd: usize, bitEnd: usize,
  width: i32, sign: i32, eshift: i32, emask: i32, ebase: i32, eadd: i32, levelBase: i32, zeros: i32,
): i32 {
  const vmask = i16x8.splat(<i16>emask);
  const vbase = i16x8.splat(<i16>ebase);
  const vadd = i16x8.splat(<i16>eadd);
  let i = 0;
  if (width == 16 && sign == 2) {
    for (; i + BLOCK <= n; i += BLOCK) {
      const ap = a + (i << 1);
      const bp = b + (i << 1);
      tables16(ap, ctx, eshift, vmask, vbase, v128.load(map + bucketOf(level, levelBase)));
      decodeSymbols(tok, ctx, BLOCK, tables, states);
      const big = escapes(tok);
      const sum = big == 0 ? applyTokens(ap, bp, tok, eshift, vmask, vadd) : applyEscaped(ap, bp, tok, big, eshift, vmask, vadd);
      level = (level + sum) * 0.5;
      if (overrun(wordEnd, bitEnd)) return 1;
    }
  }
  const wb = width >> 3;
  while (i < n) {
    const m = n - i < BLOCK ? n - i : BLOCK;
    contextsAny(a + i * wb, ctx, m, width, eshift, emask, ebase, bucketOf(level, levelBase));
    toTables(ctx, m, map);
    decodeSymbols(tok, ctx, m, tables, states);
    let sum: f32 = 0;
    for (let j = 0; j < m; j++) {
      const z = getToken(load<u8>(tok + j));
      const d = <i32>((z >> 1) ^ (0 - (z & 1)));
      const w = loadWord(a + (i + j) * wb, width);
      sum += magnitude(d, ((w >> eshift) & emask) + eadd);
      storeWord(b + (i + j) * wb, width, applied(w, <u32>d, width, sign, zeros));
    }
    level = (level + sum) * 0.5;
    if (overrun(wordEnd, bitEnd)) return 1;
    i += m;
  }
  return 0;
}

// z -> d = (z >> 1) ^ -(z & 1); M(b) = M(a) + d; b = unmap
@inline function restore16(acc: v128, z: v128, a: usize, b: usize, eshift: i32, emask: v128, eadd: v128): v128 {
  const d = v128.xor(i16x8.shr_u(z, 1), i16x8.neg(v128.and(z, i16x8.splat(1))));
  const av = v128.load(a);
  const m = i16x8.add(order16(av), d);
  // m >= 0x8000: m ^ 0x8000; else ~m  ==  m ^ (~(m >>s 15) | 0x8000)
  v128.store(b, v128.xor(m, v128.or(v128.not(i16x8.shr_s(m, 15)), i16x8.splat(-32768))));
  return magnitudes16(acc, d, av, eshift, emask, eadd);
}

export function planeDecode(
  b: usize, n: i32, tok: usize, ctx: usize, map: usize, tables: usize, states: usize, wordEnd: usize, bitEnd: usize,
  width: i32, sign: i32, mbits: i32, levelBase: i32, zeros: i32,
): i32 {
  const wb = width >> 3;
  const mmask: u32 = ((1 as u32) << mbits) - 1;
  let i = 0;
  const bytes = width == 16 && sign == 2 && mbits == 7 && zeros == 0;
  for (; bytes && i + BLOCK <= n; i += BLOCK) {
    const table = i8x16.splat(<i8>load<u8>(map + planeBucket(level, levelBase)));
    for (let j = 0; j < BLOCK; j += 16) v128.store(ctx + j, table);
    decodeSymbols(tok, ctx, BLOCK, tables, states);
    let acc = i32x4.splat(0);
    for (let j = 0; j < BLOCK; j += 16) {
      const t = v128.load(tok + j);
      const r = v128.load(bitPtr + j);
      acc = i32x4.add(acc, i32x4.extadd_pairwise_i16x8_u(i16x8.extadd_pairwise_i8x16_u(t)));
      v128.store(b + ((i + j) << 1), planeWords(i16x8.extend_low_i8x16_u(t), i16x8.extend_low_i8x16_u(r)));
      v128.store(b + ((i + j) << 1), planeWords(i16x8.extend_high_i8x16_u(t), i16x8.extend_high_i8x16_u(r)), 16);
    }
    bitPtr += BLOCK;
    level = (level + <f32>sumLanes(acc)) * 0.5;
    if (overrun(wordEnd, bitEnd)) return 1;
  }
  while (i < n) {
    const m = n - i < BLOCK ? n - i : BLOCK;
    memory.fill(ctx, <u8>planeBucket(level, levelBase), m);
    toTables(ctx, m, map);
    decodeSymbols(tok, ctx, m, tables, states);
    let sum: u32 = 0;
    for (let j = 0; j < m; j++) {
      const t: u32 = load<u8>(tok + j);
      sum += t;
      let w: u32;
      if (sign == 2) {
        const r = getBits(mbits + 1 - zeros) << zeros;
        w = (r & mmask) | (t << mbits) | ((r >> mbits) << (width - 1));
      } else {
        const z = getToken(t);
        w = sign == 1 ? (z >> 1) ^ (0 - (z & 1)) : z;
      }
      storeWord(b + (i + j) * wb, width, w);
    }
    level = (level + <f32>(sum * 64 / m)) * 0.5;
    if (overrun(wordEnd, bitEnd)) return 1;
    i += m;
  }
  return 0;
}

// exponent and sign above mantissa -> bf16
@inline function planeWords(e: v128, r: v128): v128 {
  return v128.or(v128.or(v128.and(r, i16x8.splat(127)), i16x8.shl(e, 7)), i16x8.shl(v128.and(r, i16x8.splat(128)), 8));
}

// Positions from gap tokens; 1 when one leaves the chunk.
export function sparsePositions(tok: usize, k: i32, n: i32, positions: usize): i32 {
  let at: u64 = 0;
  for (let i = 0; i < k; i++) {
    at += <u64>getToken(load<u8>(tok + i));
    if (at >= <u64>n) return 1;
    store<u32>(positions + (i << 2), <u32>at);
    at++;
  }
  return 0;
}

export function sparseContexts(a: usize, positions: usize, k: i32, ctx: usize, width: i32, eshift: i32, emask: i32, ebase: i32): void {
  const wb = width >> 3;
  for (let i = 0; i < k; i++) contextsAny(a + load<u32>(positions + (i << 2)) * wb, ctx + i, 1, width, eshift, emask, ebase, 16);
}

export function sparseApply(a: usize, b: usize, positions: usize, k: i32, tok: usize, width: i32, sign: i32, zeros: i32): void {
  const wb = width >> 3;
  for (let i = 0; i < k; i++) {
    const p = load<u32>(positions + (i << 2)) * wb;
    const z = getToken(load<u8>(tok + i));
    storeWord(b + p, width, applied(loadWord(a + p, width), (z >> 1) ^ (0 - (z & 1)), width, sign, zeros));
  }
}

export { buildSlots } from './_rans';
