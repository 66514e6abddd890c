// Hot loop of the level coder: integers of a matrix, row by row, each bit of their unary form predicted by four adaptive models
// whose opinions are mixed in the logistic domain, then range-coded. docs/formats/levels.md is the normative text,
// kernels/levels/coder.ts the driver. f32 arithmetic is plain IEEE in a fixed order: the same bits on every machine.

import { beyondZero, levelOf } from './_quantizer';

const RATE_LIMIT: u32 = 255;
const UNARY: i32 = 14;
const TOP: u32 = 1 << 24;

// ---- tables and state, laid out by the driver ----

let recip: usize = 0; // u32[256]: floor(2^16 / (n + 1.5))
let stretchTable: usize = 0; // f32[4096]
let squashTable: usize = 0; // u16[4096]
let models: usize = 0; // u32[3][16384]: bins 16, aux 16, 64 buckets
let columnModels: usize = 0; // u32[columns][4], then u32[16][64]
let sharedColumns: usize = 0;
let weights: usize = 0; // f32x4[16 * 16]
let averages: usize = 0; // f32[columns]
let above: usize = 0; // u8[columns + 1]: capped levels of the row above
let escapes: usize = 0; // u32[32 * 64]
let width: i32 = 0;
let row: i32 = 0;
let rowStart: f32 = 0;

export function begin(
  recipAt: usize, stretchAt: usize, squashAt: usize, modelsAt: usize, columnsAt: usize, weightsAt: usize, averagesAt: usize, aboveAt: usize,
  escapesAt: usize, columns: i32,
): void {
  recip = recipAt;
  stretchTable = stretchAt;
  squashTable = squashAt;
  models = modelsAt;
  columnModels = columnsAt;
  sharedColumns = columnsAt + (<usize>columns << 4);
  weights = weightsAt;
  averages = averagesAt;
  above = aboveAt;
  escapes = escapesAt;
  width = columns;
  row = 0;
  rowStart = 0.5;
  const half: u32 = (1 << 31);
  for (let i = 0; i < 3 * 16384; i++) store<u32>(modelsAt + (<usize>i << 2), half);
  for (let i = 0; i < 4 * columns + 1024; i++) store<u32>(columnsAt + (<usize>i << 2), half);
  for (let i = 0; i < 2048; i++) store<u32>(escapesAt + (<usize>i << 2), half);
  for (let i = 0; i < 256; i++) v128.store(weightsAt + (<usize>i << 4), f32x4.splat(0.3));
  for (let i = 0; i < columns; i++) store<f32>(averagesAt + (<usize>i << 2), 0.5);
  memory.fill(aboveAt, 0, columns + 1);
}

// ---- range coder: 32-bit range, carries as LZMA handles them ----

let low: u64 = 0;
let range: u32 = 0;
let code: u32 = 0;
let cache: u32 = 0;
let pending: u32 = 0;
let at: usize = 0;
let end: usize = 0;
let overrun: u32 = 0;

export function encodeBegin(out: usize): void {
  low = 0;
  range = 0xffffffff;
  cache = 0;
  pending = 1;
  at = out;
}

// The next bytes go here.
export function encodeTo(out: usize): void {
  at = out;
}

export function position(): usize {
  return at;
}

function shiftLow(): void {
  if (<u32>low < 0xff000000 || low > 0xffffffff) {
    const carry = <u32>(low >> 32);
    let byte = cache;
    do {
      store<u8>(at++, <u8>(byte + carry));
      byte = 0xff;
    } while (--pending != 0);
    cache = (<u32>low) >> 24;
  }
  pending++;
  low = (<u64>(<u32>low & 0x00ffffff)) << 8;
}

export function encodeEnd(): void {
  for (let i = 0; i < 5; i++) shiftLow();
}

export function decodeBegin(from: usize, to: usize): void {
  at = from;
  end = to;
  overrun = 0;
  range = 0xffffffff;
  code = 0;
  for (let i = 0; i < 5; i++) code = (code << 8) | next();
}

@inline function next(): u32 {
  if (at < end) return load<u8>(at++);
  overrun++;
  return 0;
}

// Bytes that were asked for beyond the end; a whole stream is read to within the last 5.
export function missing(): u32 {
  return overrun;
}

export function unread(): u32 {
  return <u32>(end - at);
}

// The bytes move: what was at `at` is at `from` now.
export function decodeFrom(from: usize, to: usize): void {
  at = from;
  end = to;
}

// One bit whose probability of being 1 is p / 65536.
@inline function rangeBit(bit: u32, p: u32, decode: bool): u32 {
  const bound = <u32>(((<u64>range) * p) >> 16);
  let value = bit;
  if (decode) value = code < bound ? 1 : 0;
  if (value) {
    range = bound;
  } else {
    if (decode) code -= bound;
    else low += bound;
    range -= bound;
  }
  while (range < TOP) {
    range <<= 8;
    if (decode) code = (code << 8) | next();
    else shiftLow();
  }
  return value;
}

// ---- adaptive probabilities: 22 bits of probability above 10 bits of count ----

@inline function adapt(p: usize, bit: u32): void {
  const s = load<u32>(p);
  const n = s & 1023;
  const target: i64 = bit ? 0x3fffff : 0;
  const now = <i64>(s >> 10);
  const moved = <u32>(now + (((target - now) * <i64>load<u32>(recip + (n << 2))) >> 16));
  store<u32>(p, (moved << 10) | (n < RATE_LIMIT ? n + 1 : n));
}

@inline function stretched(p: usize): f32 {
  return load<f32>(stretchTable + ((load<u32>(p) >> 20) << 2));
}

@inline function mixedBit(bit: u32, a: usize, b: usize, c: usize, d: usize, w: usize, decode: bool): u32 {
  const s = f32x4(stretched(a), stretched(b), stretched(c), stretched(d));
  const weight = v128.load(w);
  const product = f32x4.mul(s, weight);
  const dot = f32x4.extract_lane(product, 0) + f32x4.extract_lane(product, 1) + (f32x4.extract_lane(product, 2) + f32x4.extract_lane(product, 3));
  const index = <i32>(min<f32>(max<f32>(dot, -11.99), 11.99) * 170.625 + 2048);
  const p: u32 = load<u16>(squashTable + (<usize>index << 1));
  const value = rangeBit(bit, p, decode);
  const error: f32 = ((value ? <f32>65536 : <f32>0) - <f32>p) * <f32>(0.02 / 65536);
  v128.store(w, f32x4.add(weight, f32x4.mul(s, f32x4.splat(error))));
  adapt(a, value);
  adapt(b, value);
  adapt(c, value);
  adapt(d, value);
  return value;
}

@inline function plainBit(bit: u32, p: usize, decode: bool): u32 {
  const q = load<u32>(p) >> 16;
  const value = rangeBit(bit, q == 0 ? 1 : q, decode);
  adapt(p, value);
  return value;
}

// Quarter octaves from 2^-10 on, 64 of them.
@inline function bucket(v: f32): u32 {
  const b = (reinterpret<u32>(v + <f32>0.0009765625) >> 21) - (117 << 2);
  return b > 63 ? 63 : b;
}

// Exponential-Golomb of v with adaptive bits.
@inline function escape(v: u32, bucketOf: u32, decode: bool): u32 {
  let k: u32 = 0;
  const base = escapes + ((bucketOf >> 2) << 7);
  const top: u32 = decode ? 0 : 31 - clz<u32>(v + 1);
  while (k < 16 && plainBit(k < top ? 1 : 0, base + (k << 2), decode)) k++;
  let value: u32 = 1;
  for (let i: i32 = <i32>k - 1; i >= 0; i--) value = (value << 1) | rangeBit(((v + 1) >> i) & 1, 32768, decode);
  return value - 1;
}

@inline function rows(q: usize, aux: usize, count: i32, decode: bool): void {
  for (let i = 0; i < count; i++) {
    let left: u32 = 0;
    let before: u32 = 0;
    let running = rowStart;
    let seen: f32 = 1;
    let expected: f32 = 1;
    let total: f32 = 0;
    const rate: f32 = max<f32>(<f32>1 / (<f32>row + <f32>1.5), <f32>0.015625);
    for (let j = 0; j < width; j++) {
      const average = load<f32>(averages + (<usize>j << 2));
      const x: u32 = aux == 0 ? 0 : load<u8>(aux + j);
      const predicted = bucket(average * (seen / expected));
      const near = (left < 3 ? left : 3) | (<u32>load<u8>(above + j) << 2) | ((before < 2 ? before : 2) << 4);
      // contexts: [aux][bucket] rows of 16 bins
      const m0 = models + (((x << 6) | predicted) << 6);
      const m1 = models + 65536 + (((x << 6) | near) << 6);
      const m2 = models + 131072 + (((x << 6) | bucket(running)) << 6);
      const own = columnModels + (<usize>j << 4);
      const shared = sharedColumns + (bucket(average) << 6);
      const w = weights + (x << 8);
      const v: i32 = decode ? 0 : <i32>load<i16>(q + (<usize>j << 1));
      const size: u32 = <u32>(v < 0 ? -v : v);
      let level: u32 = 0;
      for (; level < <u32>UNARY; level++) {
        const b = <usize>level << 2;
        const c = level < 4 ? own + b : shared + b;
        if (!mixedBit(size > level ? 1 : 0, m0 + b, m1 + b, m2 + b, c, w + (b << 2), decode)) break;
      }
      if (level == <u32>UNARY) level += escape(size - <u32>UNARY, predicted, decode);
      if (level != 0) {
        const negative = rangeBit(v < 0 ? 1 : 0, 32768, decode);
        if (decode) store<i16>(q + (<usize>j << 1), <i16>(negative ? -(<i32>level) : <i32>level));
      } else if (decode) store<i16>(q + (<usize>j << 1), 0);
      const l = <f32>level;
      store<f32>(averages + (<usize>j << 2), average + (l - average) * rate);
      seen = seen * <f32>0.98 + l;
      expected = expected * <f32>0.98 + average;
      running += (l - running) * <f32>0.0625;
      total += l;
      before = left;
      left = level;
      store<u8>(above + j, <u8>(level < 3 ? level : 3));
    }
    rowStart = total / <f32>width;
    row++;
    q += <usize>width << 1;
    if (aux != 0) aux += width;
  }
}

// q: (count, columns) i16; aux: (count, columns) u8 below 16, or 0
export function encodeRows(q: usize, aux: usize, count: i32): void {
  rows(q, aux, count, false);
}

export function decodeRows(q: usize, aux: usize, count: i32): void {
  rows(q, aux, count, true);
}

// ---- values and their levels ----

// q: i16[n] of x: f32[n]; sums: f64[9], |x| of levels 1 to 8 at their own place, added to; counts: u32[9] of levels 0 to 8 likewise.
// Returns how many are not 0.
export function quantizeRows(x: usize, n: i32, inverse: f64, q: usize, sums: usize, counts: usize): i32 {
  const inverse2 = f64x2.splat(inverse);
  let changed = 0;
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    if (!beyondZero(v128.load(x), inverse2)) store<u64>(q, 0);
    else for (let j: usize = 0; j < 4; j++) changed += quantizeOne(load<f32>(x + (j << 2)), inverse, q + (j << 1), sums, counts);
    x += 16;
    q += 8;
  }
  for (; i < n; i++) {
    changed += quantizeOne(load<f32>(x), inverse, q, sums, counts);
    x += 4;
    q += 2;
  }
  return changed;
}

@inline function quantizeOne(v: f32, inverse: f64, q: usize, sums: usize, counts: usize): i32 {
  const l = levelOf(v, inverse);
  store<i16>(q, <i16>(v < 0 ? -l : l));
  if (l == 0) return 0;
  if (l <= 8) {
    const sum = sums + (<usize>l << 3);
    store<f64>(sum, load<f64>(sum) + <f64>abs(v));
    const count = counts + (<usize>l << 2);
    store<u32>(count, load<u32>(count) + 1);
  }
  return 1;
}

// aux: u8[n], min(15, max(0, exponent - first)) of n values of `width` bytes whose upper 16 bits hold the exponent at `shift`
export function exponentRows(stored: usize, n: i32, bytes: i32, shift: i32, mask: i32, first: i32, aux: usize): void {
  let i = 0;
  if (bytes == 2) {
    const masks = i16x8.splat(<i16>mask);
    const firsts = i16x8.splat(<i16>first);
    for (; i + 8 <= n; i += 8) {
      const e = i16x8.sub_sat_u(v128.and(i16x8.shr_u(v128.load(stored), shift), masks), firsts);
      const k = i16x8.min_u(e, i16x8.splat(15));
      store<u64>(aux, i64x2.extract_lane(i8x16.narrow_i16x8_u(k, k), 0));
      stored += 16;
      aux += 8;
    }
  }
  for (; i < n; i++) {
    const e = ((<i32>load<u16>(stored + <usize>(bytes - 2)) >> shift) & mask) - first;
    store<u8>(aux++, <u8>(e < 0 ? 0 : e > 15 ? 15 : e));
    stored += <usize>bytes;
  }
}

// out: f32[n], what the levels stand for, -0 for level 0; sizes: f32[9], magnitudes of levels 0 to 8; normative
export function dequantizeRows(q: usize, n: i32, sizes: usize, step: f32, out: usize): void {
  for (let i = 0; i < n; i++) {
    const l = <i32>load<i16>(q);
    const a = l < 0 ? -l : l;
    const size: f32 = a <= 8 ? load<f32>(sizes + (<usize>a << 2)) : <f32>a * step;
    store<f32>(out, l > 0 ? size : -size);
    q += 2;
    out += 4;
  }
}
