// Fixed-order low-rank product and the bf16 loops around it; kernels/lowrank/panel.ts is the driver.
// Plain IEEE f32 multiplications and additions, k ascending, never fused: the same bits on every machine.

const LANES: i32 = 8;

// a: (rank, n) f32 -> panels of 8 columns, each (rank, 8); the last panel is filled up with zeros
export function packColumns(a: usize, rank: i32, n: i32, out: usize): void {
  for (let j = 0; j < n; j += LANES) {
    const width = min(LANES, n - j);
    for (let k = 0; k < rank; k++) {
      const from = a + (((<usize>k) * <usize>n + <usize>j) << 2);
      if (width == LANES) {
        v128.store(out, v128.load(from));
        v128.store(out, v128.load(from, 16), 16);
      } else {
        for (let c = 0; c < LANES; c++) store<f32>(out + ((<usize>c) << 2), c < width ? load<f32>(from + ((<usize>c) << 2)) : 0);
      }
      out += LANES * 4;
    }
  }
}

// out[i, j] = sum_k b[i, k] a[k, j]; b: (rows, rank), a packed, out: (rows, n)
export function product(b: usize, packed: usize, rows: i32, rank: i32, n: i32, out: usize): void {
  for (let j = 0; j < n; j += LANES) {
    const width = min(LANES, n - j);
    let i = 0;
    for (; i + 4 <= rows; i += 4) four(b + (((<usize>i) * <usize>rank) << 2), packed, rank, n, out + (((<usize>i) * <usize>n + <usize>j) << 2), width);
    for (; i < rows; i++) one(b + (((<usize>i) * <usize>rank) << 2), packed, rank, out + (((<usize>i) * <usize>n + <usize>j) << 2), width);
    packed += (<usize>rank) * LANES * 4;
  }
}

@inline function put(p: usize, lo: v128, hi: v128, width: i32): void {
  if (width == LANES) {
    v128.store(p, lo);
    v128.store(p, hi, 16);
    return;
  }
  store<f32>(p, f32x4.extract_lane(lo, 0));
  if (width > 1) store<f32>(p, f32x4.extract_lane(lo, 1), 4);
  if (width > 2) store<f32>(p, f32x4.extract_lane(lo, 2), 8);
  if (width > 3) store<f32>(p, f32x4.extract_lane(lo, 3), 12);
  if (width > 4) store<f32>(p, f32x4.extract_lane(hi, 0), 16);
  if (width > 5) store<f32>(p, f32x4.extract_lane(hi, 1), 20);
  if (width > 6) store<f32>(p, f32x4.extract_lane(hi, 2), 24);
}

function four(b: usize, a: usize, rank: i32, n: i32, out: usize, width: i32): void {
  let p0 = f32x4.splat(0);
  let q0 = p0;
  let p1 = p0;
  let q1 = p0;
  let p2 = p0;
  let q2 = p0;
  let p3 = p0;
  let q3 = p0;
  const row = (<usize>rank) << 2;
  const b1 = b + row;
  const b2 = b1 + row;
  const b3 = b2 + row;
  for (let k: usize = 0; k < row; k += 4) {
    const lo = v128.load(a);
    const hi = v128.load(a, 16);
    a += 32;
    const x0 = v128.load32_splat(b + k);
    p0 = f32x4.add(p0, f32x4.mul(x0, lo));
    q0 = f32x4.add(q0, f32x4.mul(x0, hi));
    const x1 = v128.load32_splat(b1 + k);
    p1 = f32x4.add(p1, f32x4.mul(x1, lo));
    q1 = f32x4.add(q1, f32x4.mul(x1, hi));
    const x2 = v128.load32_splat(b2 + k);
    p2 = f32x4.add(p2, f32x4.mul(x2, lo));
    q2 = f32x4.add(q2, f32x4.mul(x2, hi));
    const x3 = v128.load32_splat(b3 + k);
    p3 = f32x4.add(p3, f32x4.mul(x3, lo));
    q3 = f32x4.add(q3, f32x4.mul(x3, hi));
  }
  const step = (<usize>n) << 2;
  put(out, p0, q0, width);
  put(out + step, p1, q1, width);
  put(out + 2 * step, p2, q2, width);
  put(out + 3 * step, p3, q3, width);
}

function one(b: usize, a: usize, rank: i32, out: usize, width: i32): void {
  let p = f32x4.splat(0);
  let q = p;
  const row = (<usize>rank) << 2;
  for (let k: usize = 0; k < row; k += 4) {
    const x = v128.load32_splat(b + k);
    p = f32x4.add(p, f32x4.mul(x, v128.load(a)));
    q = f32x4.add(q, f32x4.mul(x, v128.load(a, 16)));
    a += 32;
  }
  put(out, p, q, width);
}

// 8 bf16 -> the f32 of the lower and upper four
@inline function low(w: v128): v128 {
  return i32x4.shl(i32x4.extend_low_i16x8_u(w), 16);
}

@inline function high(w: v128): v128 {
  return i32x4.shl(i32x4.extend_high_i16x8_u(w), 16);
}

@inline function widen(p: usize): f32 {
  return reinterpret<f32>((<u32>load<u16>(p)) << 16);
}

// f32 -> bf16 in the low half of each lane, nearest even, a NaN stays one (core/float.ts, toBf16)
@inline function narrow4(v: v128): v128 {
  const rounded = i32x4.shr_u(i32x4.add(v, i32x4.add(i32x4.splat(0x7fff), v128.and(i32x4.shr_u(v, 16), i32x4.splat(1)))), 16);
  const nan = i32x4.gt_u(v128.and(v, i32x4.splat(0x7fffffff)), i32x4.splat(0x7f800000));
  return v128.bitselect(v128.or(i32x4.shr_u(v, 16), i32x4.splat(0x40)), rounded, nan);
}

@inline function narrow(v: f32): u32 {
  const b = reinterpret<u32>(v);
  if ((b & 0x7fffffff) > 0x7f800000) return (b >> 16) | 0x40;
  return (b + 0x7fff + ((b >> 16) & 1)) >> 16;
}

// out = bf16(f32(base) + delta)
export function addBf16(base: usize, delta: usize, out: usize, n: i32): void {
  let i = 0;
  for (; i + 8 <= n; i += 8) {
    const b = v128.load(base);
    const lo = narrow4(f32x4.add(low(b), v128.load(delta)));
    const hi = narrow4(f32x4.add(high(b), v128.load(delta, 16)));
    v128.store(out, i16x8.narrow_i32x4_u(lo, hi));
    base += 16;
    delta += 32;
    out += 16;
  }
  for (; i < n; i++) {
    store<u16>(out, <u16>narrow(widen(base) + load<f32>(delta)));
    base += 2;
    delta += 4;
    out += 2;
  }
}

@inline function square2(sum: v128, v: v128): v128 {
  const lo = f64x2.promote_low_f32x4(v);
  const hi = f64x2.promote_low_f32x4(i8x16.shuffle(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
  return f64x2.add(sum, f64x2.add(f64x2.mul(lo, lo), f64x2.mul(hi, hi)));
}

@inline function magnitude2(sum: v128, v: v128): v128 {
  const a = f32x4.abs(v);
  const hi = f64x2.promote_low_f32x4(i8x16.shuffle(a, a, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
  return f64x2.add(sum, f64x2.add(f64x2.promote_low_f32x4(a), hi));
}

// out = f32(tuned) - f32(base), n values of bf16; sums[0] += sum |out|, sums[1] += sum out^2 in f64
export function subtractBf16(tuned: usize, base: usize, out: usize, n: i32, sums: usize): void {
  let lengths = f64x2.splat(0);
  let lengths2 = lengths;
  let squares = lengths;
  let squares2 = lengths;
  let i = 0;
  for (; i + 8 <= n; i += 8) {
    const t = v128.load(tuned);
    const b = v128.load(base);
    const x = f32x4.sub(low(t), low(b));
    const y = f32x4.sub(high(t), high(b));
    v128.store(out, x);
    v128.store(out, y, 16);
    lengths = magnitude2(lengths, x);
    lengths2 = magnitude2(lengths2, y);
    squares = square2(squares, x);
    squares2 = square2(squares2, y);
    tuned += 16;
    base += 16;
    out += 32;
  }
  lengths = f64x2.add(lengths, lengths2);
  squares = f64x2.add(squares, squares2);
  let length = f64x2.extract_lane(lengths, 0) + f64x2.extract_lane(lengths, 1);
  let square = f64x2.extract_lane(squares, 0) + f64x2.extract_lane(squares, 1);
  for (; i < n; i++) {
    const d = widen(tuned) - widen(base);
    store<f32>(out, d);
    length += <f64>abs(d);
    square += (<f64>d) * (<f64>d);
    tuned += 2;
    base += 2;
    out += 4;
  }
  store<f64>(sums, load<f64>(sums) + length);
  store<f64>(sums, load<f64>(sums, 8) + square, 8);
}

// out[0] += ||what - tuned||^2, out[1] += ||tuned - base||^2 in f64, n values of bf16
export function squaresBf16(what: usize, tuned: usize, base: usize, n: i32, out: usize): void {
  let error = f64x2.splat(0);
  let delta = error;
  let i = 0;
  for (; i + 8 <= n; i += 8) {
    const w = v128.load(what);
    const t = v128.load(tuned);
    const b = v128.load(base);
    error = square2(error, f32x4.sub(low(w), low(t)));
    error = square2(error, f32x4.sub(high(w), high(t)));
    delta = square2(delta, f32x4.sub(low(t), low(b)));
    delta = square2(delta, f32x4.sub(high(t), high(b)));
    what += 16;
    tuned += 16;
    base += 16;
  }
  let e = f64x2.extract_lane(error, 0) + f64x2.extract_lane(error, 1);
  let d = f64x2.extract_lane(delta, 0) + f64x2.extract_lane(delta, 1);
  for (; i < n; i++) {
    const t = widen(tuned);
    const x = <f64>(widen(what) - t);
    const y = <f64>(t - widen(base));
    e += x * x;
    d += y * y;
    what += 2;
    tuned += 2;
    base += 2;
  }
  store<f64>(out, load<f64>(out) + e);
  store<f64>(out, load<f64>(out, 8) + d, 8);
}
