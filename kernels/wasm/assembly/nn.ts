// Fused transformer operations on the heap of the tfjs wasm backend, whose memory this module imports; kernels/nn/fused.ts is
// the driver. No data segments and no allocation: the heap is another program's. All values are f32, rows are contiguous.
// One file, longer than other kernels: all are one module on one memory, and share the inlined exponentials, tails and sums below.

const LOG2E: f32 = 1.44269504088896341;
const LN2_HIGH: f32 = 0.693359375;
const LN2_LOW: f32 = -2.12194440e-4;

// 1.5 * 2^23 + 127: added to a small number it rounds it to an integer n, and leaves n + 127 in the low bits: the exponent of 2^n
const ROUND: f32 = 12583039;

@inline function horner(p: v128, x: v128, c: f32): v128 {
  return f32x4.add(f32x4.mul(p, x), f32x4.splat(c));
}

// 2^x for x below 127, relative error < 1.5e-7; what is below -126 counts as -126, so nothing is subnormal. Degree 6, best in relative error on [-1/2, 1/2]
@inline function exp2Of4(v: v128): v128 {
  const x = f32x4.pmax(v, f32x4.splat(-126));
  const t = f32x4.add(x, f32x4.splat(ROUND));
  const f = f32x4.sub(x, f32x4.sub(t, f32x4.splat(ROUND)));
  let p = horner(f32x4.splat(1.4901781105436385e-4), f, 1.3389558298513293e-3);
  p = horner(p, f, 9.620020166039467e-3);
  p = horner(p, f, 5.550365149974823e-2);
  p = horner(p, f, 2.402263730764389e-1);
  p = horner(p, f, 6.931471824645996e-1);
  return f32x4.mul(horner(p, f, 1), i32x4.shl(t, 23));
}

// e^x for x below 88: x = n ln 2 + r (Cody and Waite), degree 6 in r; below -87.33 it is 0, relative error < 1.5e-7
@inline function exp4(v: v128): v128 {
  const least = f32x4.splat(-87.33);
  const x = f32x4.pmax(v, least);
  const t = f32x4.add(f32x4.mul(x, f32x4.splat(LOG2E)), f32x4.splat(ROUND));
  const n = f32x4.sub(t, f32x4.splat(ROUND));
  const r = f32x4.sub(f32x4.sub(x, f32x4.mul(n, f32x4.splat(LN2_HIGH))), f32x4.mul(n, f32x4.splat(LN2_LOW)));
  let p = horner(f32x4.splat(1.3873095158487558e-3), r, 8.373009972274303e-3);
  p = horner(p, r, 4.1667744517326355e-2);
  p = horner(p, r, 1.6666477918624878e-1);
  p = horner(p, r, 4.999999403953552e-1);
  p = horner(p, r, 1);
  return v128.andnot(f32x4.mul(horner(p, r, 1), i32x4.shl(t, 23)), f32x4.lt(v, least));
}

// Cephes tanhf: a polynomial below 0.625, (1 - e^-2|x|) / (1 + e^-2|x|) above
@inline function tanh4(x: v128): v128 {
  const a = f32x4.abs(x);
  const z = f32x4.mul(x, x);
  let p = f32x4.splat(-5.70498872745e-3);
  p = f32x4.add(f32x4.mul(p, z), f32x4.splat(2.06390887954e-2));
  p = f32x4.add(f32x4.mul(p, z), f32x4.splat(-5.37397155531e-2));
  p = f32x4.add(f32x4.mul(p, z), f32x4.splat(1.33314422036e-1));
  p = f32x4.add(f32x4.mul(p, z), f32x4.splat(-3.33332819422e-1));
  const near = f32x4.add(f32x4.mul(f32x4.mul(p, z), x), x);
  const e = exp4(f32x4.mul(a, f32x4.splat(-2)));
  const far = f32x4.div(f32x4.sub(f32x4.splat(1), e), f32x4.add(f32x4.splat(1), e));
  const signed = v128.or(far, v128.and(x, i32x4.splat(0x80000000)));
  return v128.bitselect(near, signed, f32x4.lt(a, f32x4.splat(0.625)));
}

// 1 + e^-x; of x below -87, where e^-x nears the end of f32, that of -87
@inline function onePlusExp4(x: v128): v128 {
  return f32x4.add(f32x4.splat(1), exp4(f32x4.neg(f32x4.pmax(x, f32x4.splat(-87)))));
}

@inline function sigmoid4(x: v128): v128 {
  return f32x4.div(f32x4.splat(1), onePlusExp4(x));
}

// the rational approximation of erf on [-4, 4] that Eigen and XLA use, absolute error < 3e-7
@inline function erf4(v: v128): v128 {
  const x = f32x4.min(f32x4.max(v, f32x4.splat(-4)), f32x4.splat(4));
  const z = f32x4.mul(x, x);
  let p = f32x4.splat(-2.72614225801306e-10);
  p = f32x4.add(f32x4.mul(p, z), f32x4.splat(2.77068142495902e-8));
  p = f32x4.add(f32x4.mul(p, z), f32x4.splat(-2.10102402082508e-6));
  p = f32x4.add(f32x4.mul(p, z), f32x4.splat(-5.69250639462346e-5));
  p = f32x4.add(f32x4.mul(p, z), f32x4.splat(-7.34990630326855e-4));
  p = f32x4.add(f32x4.mul(p, z), f32x4.splat(-2.954599890854025e-3));
  p = f32x4.add(f32x4.mul(p, z), f32x4.splat(-1.60960333262415e-2));
  let q = f32x4.splat(-1.45660718464996e-5);
  q = f32x4.add(f32x4.mul(q, z), f32x4.splat(-2.13374055278905e-4));
  q = f32x4.add(f32x4.mul(q, z), f32x4.splat(-1.68282697438203e-3));
  q = f32x4.add(f32x4.mul(q, z), f32x4.splat(-7.37332916720468e-3));
  q = f32x4.add(f32x4.mul(q, z), f32x4.splat(-1.42647390514189e-2));
  return f32x4.div(f32x4.mul(x, p), q);
}

// ln x of a normal x > 0: x = 2^e f, ln f = 2 atanh((f - 1) / (f + 1)); the standard library's has tables, which a foreign heap has no room for
function ln(x: f32): f32 {
  const bits = reinterpret<i64>(<f64>x);
  let e = <i32>((bits >> 52) & 0x7ff) - 1023;
  let f = reinterpret<f64>((bits & 0xfffffffffffff) | 0x3ff0000000000000);
  if (f > 1.4142135623730951) {
    f *= 0.5;
    e += 1;
  }
  const s = (f - 1) / (f + 1);
  const z = s * s;
  const series: f64 = 1 + z * (1 / 3.0 + z * (0.2 + z * (1 / 7.0 + z * (1 / 9.0 + z * (1 / 11.0 + z * (1 / 13.0 + z / 15.0))))));
  return <f32>(2 * s * series + <f64>e * 0.6931471805599453);
}

@inline function sum4(v: v128): f32 {
  return f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3));
}

// the last 1 to 3 values of a row; the others are `fill`
@inline function tail(p: usize, left: i32, fill: f32): v128 {
  let v = f32x4.splat(fill);
  v = f32x4.replace_lane(v, 0, load<f32>(p));
  if (left > 1) v = f32x4.replace_lane(v, 1, load<f32>(p, 4));
  if (left > 2) v = f32x4.replace_lane(v, 2, load<f32>(p, 8));
  return v;
}

@inline function put(p: usize, v: v128, left: i32): void {
  store<f32>(p, f32x4.extract_lane(v, 0));
  if (left > 1) store<f32>(p, f32x4.extract_lane(v, 1), 4);
  if (left > 2) store<f32>(p, f32x4.extract_lane(v, 2), 8);
}

@inline function at(p: usize, i: i32): usize {
  return p + ((<usize>i) << 2);
}

// sum of x y over a row, two accumulators
@inline function dot(x: usize, y: usize, n: i32): f32 {
  let s = f32x4.splat(0);
  let t = s;
  let i = 0;
  for (; i + 8 <= n; i += 8) {
    s = f32x4.add(s, f32x4.mul(v128.load(at(x, i)), v128.load(at(y, i))));
    t = f32x4.add(t, f32x4.mul(v128.load(at(x, i), 16), v128.load(at(y, i), 16)));
  }
  let sum = sum4(f32x4.add(s, t));
  for (; i < n; i++) sum += load<f32>(at(x, i)) * load<f32>(at(y, i));
  return sum;
}

// y = x r (offset + w), r = (mean x^2 + eps)^-1/2, which is kept for the gradient
export function rmsNorm(x: usize, w: usize, y: usize, r: usize, rows: i32, n: i32, eps: f32, offset: f32): void {
  const add = f32x4.splat(offset);
  for (let row = 0; row < rows; row++) {
    const inv: f32 = 1 / sqrt<f32>(dot(x, x, n) / <f32>n + eps);
    store<f32>(at(r, row), inv);
    const v = f32x4.splat(inv);
    let i = 0;
    for (; i + 4 <= n; i += 4) v128.store(at(y, i), f32x4.mul(f32x4.mul(v128.load(at(x, i)), v), f32x4.add(v128.load(at(w, i)), add)));
    for (; i < n; i++) store<f32>(at(y, i), load<f32>(at(x, i)) * inv * (load<f32>(at(w, i)) + offset));
    x = at(x, n);
    y = at(y, n);
  }
}

// g = dy (offset + w); dx = r (g - u mean(g u)), u = x r; dw += dy u
export function rmsNormGrad(x: usize, w: usize, dy: usize, r: usize, dx: usize, dw: usize, rows: i32, n: i32, offset: f32): void {
  for (let row = 0; row < rows; row++) {
    const inv = load<f32>(at(r, row));
    let sum: f32 = 0;
    for (let i = 0; i < n; i++) {
      const d = load<f32>(at(dy, i));
      const u = load<f32>(at(x, i)) * inv;
      sum += d * (load<f32>(at(w, i)) + offset) * u;
      store<f32>(at(dw, i), load<f32>(at(dw, i)) + d * u);
    }
    const mean = sum / <f32>n;
    for (let i = 0; i < n; i++) {
      const u = load<f32>(at(x, i)) * inv;
      store<f32>(at(dx, i), inv * (load<f32>(at(dy, i)) * (load<f32>(at(w, i)) + offset) - u * mean));
    }
    x = at(x, n);
    dy = at(dy, n);
    dx = at(dx, n);
  }
}

// y = (x - mean) r w + b; mean and r are kept for the gradient
export function layerNorm(x: usize, w: usize, b: usize, y: usize, means: usize, r: usize, rows: i32, n: i32, eps: f32): void {
  for (let row = 0; row < rows; row++) {
    let s = f32x4.splat(0);
    let i = 0;
    for (; i + 4 <= n; i += 4) s = f32x4.add(s, v128.load(at(x, i)));
    let sum = sum4(s);
    for (; i < n; i++) sum += load<f32>(at(x, i));
    const mean = sum / <f32>n;
    let square: f32 = 0;
    for (i = 0; i < n; i++) {
      const d = load<f32>(at(x, i)) - mean;
      square += d * d;
    }
    const inv: f32 = 1 / sqrt<f32>(square / <f32>n + eps);
    store<f32>(at(means, row), mean);
    store<f32>(at(r, row), inv);
    const m = f32x4.splat(mean);
    const v = f32x4.splat(inv);
    for (i = 0; i + 4 <= n; i += 4) {
      const u = f32x4.mul(f32x4.sub(v128.load(at(x, i)), m), v);
      v128.store(at(y, i), f32x4.add(f32x4.mul(u, v128.load(at(w, i))), v128.load(at(b, i))));
    }
    for (; i < n; i++) store<f32>(at(y, i), (load<f32>(at(x, i)) - mean) * inv * load<f32>(at(w, i)) + load<f32>(at(b, i)));
    x = at(x, n);
    y = at(y, n);
  }
}

// u = (x - mean) r, g = dy w; dx = r (g - mean(g) - u mean(g u)); dw += dy u, db += dy
export function layerNormGrad(x: usize, w: usize, dy: usize, means: usize, r: usize, dx: usize, dw: usize, db: usize, rows: i32, n: i32): void {
  for (let row = 0; row < rows; row++) {
    const mean = load<f32>(at(means, row));
    const inv = load<f32>(at(r, row));
    let g: f32 = 0;
    let gu: f32 = 0;
    for (let i = 0; i < n; i++) {
      const d = load<f32>(at(dy, i));
      const u = (load<f32>(at(x, i)) - mean) * inv;
      const v = d * load<f32>(at(w, i));
      g += v;
      gu += v * u;
      store<f32>(at(dw, i), load<f32>(at(dw, i)) + d * u);
      store<f32>(at(db, i), load<f32>(at(db, i)) + d);
    }
    g /= <f32>n;
    gu /= <f32>n;
    for (let i = 0; i < n; i++) {
      const u = (load<f32>(at(x, i)) - mean) * inv;
      store<f32>(at(dx, i), inv * (load<f32>(at(dy, i)) * load<f32>(at(w, i)) - g - u * gu));
    }
    x = at(x, n);
    dy = at(dy, n);
    dx = at(dx, n);
  }
}

// Half-split rotation of the first `rot` channels of every head by sign * angle; row `positions[t]` of cos and sin, (rows, rot / 2)
export function rotary(x: usize, cos: usize, sin: usize, positions: usize, y: usize, tokens: i32, heads: i32, size: i32, rot: i32, sign: f32): void {
  const half = rot >> 1;
  const flip = f32x4.splat(sign);
  for (let t = 0; t < tokens; t++) {
    const row = <usize>load<i32>(at(positions, t)) * <usize>half;
    const c = cos + (row << 2);
    const s = sin + (row << 2);
    for (let h = 0; h < heads; h++) {
      const a = x;
      const b = at(x, half);
      const ya = y;
      const yb = at(y, half);
      let i = 0;
      for (; i + 4 <= half; i += 4) {
        const cv = v128.load(at(c, i));
        const sv = f32x4.mul(v128.load(at(s, i)), flip);
        const av = v128.load(at(a, i));
        const bv = v128.load(at(b, i));
        v128.store(at(ya, i), f32x4.sub(f32x4.mul(av, cv), f32x4.mul(bv, sv)));
        v128.store(at(yb, i), f32x4.add(f32x4.mul(bv, cv), f32x4.mul(av, sv)));
      }
      for (; i < half; i++) {
        const cv = load<f32>(at(c, i));
        const sv = load<f32>(at(s, i)) * sign;
        const av = load<f32>(at(a, i));
        const bv = load<f32>(at(b, i));
        store<f32>(at(ya, i), av * cv - bv * sv);
        store<f32>(at(yb, i), bv * cv + av * sv);
      }
      for (i = rot; i < size; i++) store<f32>(at(y, i), load<f32>(at(x, i)));
      x = at(x, size);
      y = at(y, size);
    }
  }
}

@inline function capped(s: v128, cap: f32): v128 {
  return f32x4.mul(tanh4(f32x4.div(s, f32x4.splat(cap))), f32x4.splat(cap));
}

@inline function greatest(v: v128): f32 {
  return max(max(f32x4.extract_lane(v, 0), f32x4.extract_lane(v, 1)), max(f32x4.extract_lane(v, 2), f32x4.extract_lane(v, 3)));
}

// all bits of a lane where its byte is not 0
@inline function lanes(mask: usize): v128 {
  return i32x4.ne(i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(mask))), i32x4.splat(0));
}

// the same of the last 1 to 3 bytes
@inline function tailLanes(mask: usize, left: i32): v128 {
  let v = i32x4.splat(0);
  v = i32x4.replace_lane(v, 0, load<u8>(mask));
  if (left > 1) v = i32x4.replace_lane(v, 1, load<u8>(mask, 1));
  if (left > 2) v = i32x4.replace_lane(v, 2, load<u8>(mask, 2));
  return i32x4.ne(v, i32x4.splat(0));
}

// s -> cap tanh(s scale / cap), in place
function capRow(s: usize, n: i32, scale: f32, cap: f32): void {
  const sv = f32x4.splat(scale);
  let i = 0;
  for (; i + 4 <= n; i += 4) v128.store(at(s, i), capped(f32x4.mul(v128.load(at(s, i)), sv), cap));
  if (i < n) put(at(s, i), capped(f32x4.mul(tail(at(s, i), n - i, 0), sv), cap), n - i);
}

// the greatest of a row, of what its mask shows where there is one
function rowMax(s: usize, n: i32, mask: usize): f32 {
  const none = f32x4.splat(-Infinity);
  let a = none;
  let b = none;
  let i = 0;
  if (mask == 0) {
    for (; i + 8 <= n; i += 8) {
      a = f32x4.pmax(a, v128.load(at(s, i)));
      b = f32x4.pmax(b, v128.load(at(s, i), 16));
    }
    for (; i + 4 <= n; i += 4) a = f32x4.pmax(a, v128.load(at(s, i)));
  } else {
    for (; i + 4 <= n; i += 4) a = f32x4.pmax(a, v128.bitselect(v128.load(at(s, i)), none, lanes(mask + <usize>i)));
  }
  if (i < n) {
    const v = tail(at(s, i), n - i, -Infinity);
    a = f32x4.pmax(a, mask == 0 ? v : v128.bitselect(v, none, tailLanes(mask + <usize>i, n - i)));
  }
  return greatest(f32x4.pmax(a, b));
}

// s -> 2^((s - m) c), 0 where the mask hides; gives the sum
function expRow(s: usize, n: i32, m: f32, c: f32, mask: usize): f32 {
  const mv = f32x4.splat(m);
  const cv = f32x4.splat(c);
  let sum = f32x4.splat(0);
  let i = 0;
  if (mask == 0) {
    for (; i + 4 <= n; i += 4) {
      const e = exp2Of4(f32x4.mul(f32x4.sub(v128.load(at(s, i)), mv), cv));
      v128.store(at(s, i), e);
      sum = f32x4.add(sum, e);
    }
  } else {
    for (; i + 4 <= n; i += 4) {
      const e = v128.and(exp2Of4(f32x4.mul(f32x4.sub(v128.load(at(s, i)), mv), cv)), lanes(mask + <usize>i));
      v128.store(at(s, i), e);
      sum = f32x4.add(sum, e);
    }
  }
  if (i < n) {
    let e = exp2Of4(f32x4.mul(f32x4.sub(tail(at(s, i), n - i, -Infinity), mv), cv));
    if (mask != 0) e = v128.and(e, tailLanes(mask + <usize>i, n - i));
    put(at(s, i), e, n - i);
    sum = f32x4.add(sum, e);
  }
  return sum4(sum);
}

// Exponentials of a softmax over rows of scores, in place and not yet divided by their sum, whose inverse goes to `inv`: whoever has
// multiplied them divides the product, which is narrower. Row i is query `first + i` of keys [0, `keys`): causal, `window` last keys if > 0,
// tanh cap if > 0, keys whose `mask` byte is 0 unseen. lse: log2 of the sum of e^score, for the gradient. A row that sees nothing becomes zeros.
export function softmaxRows(
  s: usize, rows: i32, keys: i32, first: i32, causal: bool, window: i32, cap: f32, scale: f32, mask: usize, lse: usize, inv: usize,
): void {
  for (let row = 0; row < rows; row++) {
    const query = first + row;
    const to = causal ? max(0, min(keys, query + 1)) : keys;
    const from = window > 0 ? min(to, max(0, query - window + 1)) : 0;
    const p = at(s, from);
    const n = to - from;
    const seen: usize = mask == 0 ? 0 : mask + <usize>from;
    if (cap > 0) capRow(p, n, scale, cap);
    const c: f32 = cap > 0 ? LOG2E : scale * LOG2E;
    const m = rowMax(p, n, seen);
    if (m == -Infinity) {
      memory.fill(s, 0, (<usize>keys) << 2);
      store<f32>(at(lse, row), -Infinity);
      store<f32>(at(inv, row), 0);
    } else {
      const total = expRow(p, n, m, c, seen);
      store<f32>(at(lse, row), m * c + ln(total) * LOG2E);
      store<f32>(at(inv, row), 1 / total);
      clear(s, from, to, keys);
    }
    s = at(s, keys);
  }
}

// s: scores q k, dp: dO V^T. In place: s -> probabilities, dp -> d(q k) = p (dp - sum dO O) scale (1 - tanh^2)
export function softmaxRowsGrad(
  s: usize, dp: usize, rows: i32, keys: i32, first: i32, causal: bool, window: i32, cap: f32, scale: f32, mask: usize, lse: usize, d: usize,
): void {
  const sv = f32x4.splat(scale);
  const cv = f32x4.splat(cap > 0 ? LOG2E : scale * LOG2E);
  for (let row = 0; row < rows; row++) {
    const query = first + row;
    const log = load<f32>(at(lse, row));
    const to = log == -Infinity ? 0 : causal ? max(0, min(keys, query + 1)) : keys;
    const from = window > 0 ? min(to, max(0, query - window + 1)) : 0;
    const lv = f32x4.splat(log);
    const dv = f32x4.splat(load<f32>(at(d, row)));
    for (let i = from; i < to; i += 4) {
      const whole = i + 4 <= to;
      let v = whole ? v128.load(at(s, i)) : tail(at(s, i), to - i, 0);
      let slope = sv;
      if (cap > 0) {
        const t = tanh4(f32x4.div(f32x4.mul(v, sv), f32x4.splat(cap)));
        slope = f32x4.mul(sv, f32x4.sub(f32x4.splat(1), f32x4.mul(t, t)));
        v = f32x4.mul(t, f32x4.splat(cap));
      }
      let p = exp2Of4(f32x4.sub(f32x4.mul(v, cv), lv));
      if (mask != 0) p = v128.and(p, whole ? lanes(mask + <usize>i) : tailLanes(mask + <usize>i, to - i));
      const g = whole ? v128.load(at(dp, i)) : tail(at(dp, i), to - i, 0);
      const ds = f32x4.mul(f32x4.mul(p, f32x4.sub(g, dv)), slope);
      if (whole) {
        v128.store(at(s, i), p);
        v128.store(at(dp, i), ds);
      } else {
        put(at(s, i), p, to - i);
        put(at(dp, i), ds, to - i);
      }
    }
    clear(s, from, to, keys);
    clear(dp, from, to, keys);
    s = at(s, keys);
    dp = at(dp, keys);
  }
}

// zeros in front of `from` and from `to` on
@inline function clear(s: usize, from: i32, to: i32, n: i32): void {
  memory.fill(s, 0, (<usize>from) << 2);
  memory.fill(at(s, to), 0, (<usize>(n - to)) << 2);
}

// rows of n values from one place to another, times `factor[row]` where there is one; rows are `fromStride` and `toStride` apart
export function copyRows(from: usize, fromStride: i32, to: usize, toStride: i32, rows: i32, n: i32, factor: usize): void {
  for (let row = 0; row < rows; row++) {
    const a: f32 = factor == 0 ? 1 : load<f32>(at(factor, row));
    const v = f32x4.splat(a);
    let i = 0;
    for (; i + 4 <= n; i += 4) v128.store(at(to, i), f32x4.mul(v128.load(at(from, i)), v));
    for (; i < n; i++) store<f32>(at(to, i), load<f32>(at(from, i)) * a);
    from = at(from, fromStride);
    to = at(to, toStride);
  }
}

// d[row] = sum of a b over `n` channels of a row; rows are `stride` apart
export function rowDots(a: usize, b: usize, out: usize, rows: i32, n: i32, stride: i32): void {
  for (let row = 0; row < rows; row++) {
    store<f32>(at(out, row), dot(a, b, n));
    a = at(a, stride);
    b = at(b, stride);
  }
}

// kinds: 0 silu, 1 gelu (erf), 2 gelu (tanh), 3 relu, 4 relu squared, 5 quick gelu, 6 tanh, 7 identity
@inline function activate(x: v128, kind: i32): v128 {
  if (kind == 0) return f32x4.div(x, onePlusExp4(x));
  if (kind == 1) return f32x4.mul(f32x4.mul(x, f32x4.splat(0.5)), f32x4.add(f32x4.splat(1), erf4(f32x4.mul(x, f32x4.splat(0.7071067811865476)))));
  if (kind == 2) return f32x4.mul(f32x4.mul(x, f32x4.splat(0.5)), f32x4.add(f32x4.splat(1), tanh4(inner(x))));
  if (kind == 3) return f32x4.max(x, f32x4.splat(0));
  if (kind == 4) {
    const p = f32x4.max(x, f32x4.splat(0));
    return f32x4.mul(p, p);
  }
  if (kind == 5) return f32x4.div(x, onePlusExp4(f32x4.mul(x, f32x4.splat(1.702))));
  if (kind == 6) return tanh4(x);
  return x;
}

// sqrt(2 / pi) (x + 0.044715 x^3)
@inline function inner(x: v128): v128 {
  const cube = f32x4.mul(f32x4.mul(x, x), x);
  return f32x4.mul(f32x4.add(x, f32x4.mul(cube, f32x4.splat(0.044715))), f32x4.splat(0.7978845608028654));
}

@inline function slopeOf(x: v128, kind: i32): v128 {
  const one = f32x4.splat(1);
  const half = f32x4.splat(0.5);
  if (kind == 0) {
    const s = sigmoid4(x);
    return f32x4.mul(s, f32x4.add(one, f32x4.mul(x, f32x4.sub(one, s))));
  }
  if (kind == 1) {
    // Phi(x) + x phi(x)
    const phi = f32x4.mul(exp4(f32x4.mul(f32x4.mul(x, x), f32x4.splat(-0.5))), f32x4.splat(0.3989422804014327));
    return f32x4.add(f32x4.mul(half, f32x4.add(one, erf4(f32x4.mul(x, f32x4.splat(0.7071067811865476))))), f32x4.mul(x, phi));
  }
  if (kind == 2) {
    const t = tanh4(inner(x));
    const du = f32x4.mul(f32x4.splat(0.7978845608028654), f32x4.add(one, f32x4.mul(f32x4.splat(0.134145), f32x4.mul(x, x))));
    const left = f32x4.mul(half, f32x4.add(one, t));
    return f32x4.add(left, f32x4.mul(f32x4.mul(half, x), f32x4.mul(f32x4.sub(one, f32x4.mul(t, t)), du)));
  }
  if (kind == 3) return v128.and(one, f32x4.gt(x, f32x4.splat(0)));
  if (kind == 4) return f32x4.mul(f32x4.splat(2), f32x4.max(x, f32x4.splat(0)));
  if (kind == 5) {
    const s = sigmoid4(f32x4.mul(x, f32x4.splat(1.702)));
    return f32x4.add(s, f32x4.mul(f32x4.mul(x, f32x4.splat(1.702)), f32x4.mul(s, f32x4.sub(one, s))));
  }
  if (kind == 6) {
    const t = tanh4(x);
    return f32x4.sub(one, f32x4.mul(t, t));
  }
  return one;
}

export function activation(x: usize, y: usize, n: i32, kind: i32): void {
  let i = 0;
  for (; i + 4 <= n; i += 4) v128.store(at(y, i), activate(v128.load(at(x, i)), kind));
  if (i < n) put(at(y, i), activate(tail(at(x, i), n - i, 0), kind), n - i);
}

export function activationGrad(x: usize, dy: usize, dx: usize, n: i32, kind: i32): void {
  let i = 0;
  for (; i + 4 <= n; i += 4) v128.store(at(dx, i), f32x4.mul(v128.load(at(dy, i)), slopeOf(v128.load(at(x, i)), kind)));
  if (i < n) put(at(dx, i), f32x4.mul(tail(at(dy, i), n - i, 0), slopeOf(tail(at(x, i), n - i, 0), kind)), n - i);
}

// y = act(gate) up
export function gated(gate: usize, up: usize, y: usize, n: i32, kind: i32): void {
  let i = 0;
  for (; i + 4 <= n; i += 4) v128.store(at(y, i), f32x4.mul(activate(v128.load(at(gate, i)), kind), v128.load(at(up, i))));
  if (i < n) put(at(y, i), f32x4.mul(activate(tail(at(gate, i), n - i, 0), kind), tail(at(up, i), n - i, 0)), n - i);
}

export function gatedGrad(gate: usize, up: usize, dy: usize, dgate: usize, dup: usize, n: i32, kind: i32): void {
  let i = 0;
  for (; i < n; i += 4) {
    const whole = i + 4 <= n;
    const left = n - i;
    const g = whole ? v128.load(at(gate, i)) : tail(at(gate, i), left, 0);
    const u = whole ? v128.load(at(up, i)) : tail(at(up, i), left, 0);
    const d = whole ? v128.load(at(dy, i)) : tail(at(dy, i), left, 0);
    const a = f32x4.mul(f32x4.mul(d, u), slopeOf(g, kind));
    const b = f32x4.mul(d, activate(g, kind));
    if (whole) {
      v128.store(at(dgate, i), a);
      v128.store(at(dup, i), b);
    } else {
      put(at(dgate, i), a, left);
      put(at(dup, i), b, left);
    }
  }
}

// Rows of logits: tanh cap if > 0 in place, then lse and the logit of the target; a target below 0 gives 0
export function logSumExpRows(z: usize, targets: usize, lse: usize, picked: usize, rows: i32, n: i32, cap: f32): void {
  for (let row = 0; row < rows; row++) {
    let top = f32x4.splat(-Infinity);
    let i = 0;
    for (; i < n; i += 4) {
      const whole = i + 4 <= n;
      let v = whole ? v128.load(at(z, i)) : tail(at(z, i), n - i, -Infinity);
      if (cap > 0) {
        v = capped(v, cap);
        if (whole) v128.store(at(z, i), v);
        else put(at(z, i), v, n - i);
        if (!whole) v = tail(at(z, i), n - i, -Infinity);
      }
      top = f32x4.max(top, v);
    }
    const m = max(max(f32x4.extract_lane(top, 0), f32x4.extract_lane(top, 1)), max(f32x4.extract_lane(top, 2), f32x4.extract_lane(top, 3)));
    const mv = f32x4.splat(m);
    let sum = f32x4.splat(0);
    for (i = 0; i + 4 <= n; i += 4) sum = f32x4.add(sum, exp4(f32x4.sub(v128.load(at(z, i)), mv)));
    if (i < n) sum = f32x4.add(sum, exp4(f32x4.sub(tail(at(z, i), n - i, -Infinity), mv)));
    store<f32>(at(lse, row), m + ln(sum4(sum)));
    const target = load<i32>(at(targets, row));
    store<f32>(at(picked, row), target < 0 ? 0 : load<f32>(at(z, target)));
    z = at(z, n);
  }
}

// z (capped logits) -> weight[row] (softmax(z) - onehot(target)) (1 - (z / cap)^2), in place: the gradient of the loss by the raw logits
export function crossEntropyGradRows(z: usize, targets: usize, lse: usize, weight: usize, rows: i32, n: i32, cap: f32): void {
  for (let row = 0; row < rows; row++) {
    const target = load<i32>(at(targets, row));
    const scale: f32 = target < 0 ? 0 : load<f32>(at(weight, row));
    const lv = f32x4.splat(load<f32>(at(lse, row)));
    const sv = f32x4.splat(scale);
    let slopeAtTarget: f32 = 1;
    if (cap > 0 && target >= 0) {
      const t = load<f32>(at(z, target)) / cap;
      slopeAtTarget = 1 - t * t;
    }
    for (let i = 0; i < n; i += 4) {
      const whole = i + 4 <= n;
      const v = whole ? v128.load(at(z, i)) : tail(at(z, i), n - i, 0);
      let g = f32x4.mul(exp4(f32x4.sub(v, lv)), sv);
      if (cap > 0) {
        const t = f32x4.div(v, f32x4.splat(cap));
        g = f32x4.mul(g, f32x4.sub(f32x4.splat(1), f32x4.mul(t, t)));
      }
      if (whole) v128.store(at(z, i), g);
      else put(at(z, i), g, n - i);
    }
    if (target >= 0) store<f32>(at(z, target), load<f32>(at(z, target)) - scale * slopeAtTarget);
    z = at(z, n);
  }
}

// Values of a row whose exponentials are summed in f32, a lane each fourth
const RUN = 256;

// First column of a row of n whose value is m, n - 1 where none is
function firstAt(z: usize, n: i32, m: f32): i32 {
  const mv = f32x4.splat(m);
  let i = 0;
  while (i + 4 <= n && !v128.any_true(f32x4.eq(v128.load(at(z, i)), mv))) i += 4;
  while (i < n - 1 && load<f32>(at(z, i)) != m) i++;
  return i;
}

// Far below any logit; its differences are finite
const LOWEST: f32 = -1e30;

// Rows of logits over a panel of the vocabulary: out (rows, 4) = the greatest m, sum e^(z - m), the first column that has m, the
// target's logit (LOWEST where the target lies in another panel)
export function panelSums(z: usize, targets: usize, out: usize, rows: i32, n: i32): void {
  for (let row = 0; row < rows; row++) {
    let top = f32x4.splat(-Infinity);
    let i = 0;
    for (; i + 4 <= n; i += 4) top = f32x4.max(top, v128.load(at(z, i)));
    if (i < n) top = f32x4.max(top, tail(at(z, i), n - i, -Infinity));
    const m = max(max(f32x4.extract_lane(top, 0), f32x4.extract_lane(top, 1)), max(f32x4.extract_lane(top, 2), f32x4.extract_lane(top, 3)));
    const mv = f32x4.splat(m);
    const cv = f32x4.splat(LOG2E);
    let sum = f64x2.splat(0);
    // runs short enough for f32; what is 126 powers of two below the greatest logit counts as that
    for (i = 0; i + 4 <= n; ) {
      const to = min(n & ~3, i + RUN);
      let part = f32x4.splat(0);
      for (; i < to; i += 4) part = f32x4.add(part, exp2Of4(f32x4.mul(f32x4.sub(v128.load(at(z, i)), mv), cv)));
      sum = f64x2.add(sum, pairs(part));
    }
    if (i < n) sum = f64x2.add(sum, pairs(exp4(f32x4.sub(tail(at(z, i), n - i, -Infinity), mv))));
    const column = firstAt(z, n, m);
    const target = load<i32>(at(targets, row));
    store<f32>(out, m);
    store<f32>(out, <f32>(f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1)), 4);
    store<f32>(out, <f32>column, 8);
    store<f32>(out, target < 0 || target >= n ? LOWEST : load<f32>(at(z, target)), 12);
    z = at(z, n);
    out += 16;
  }
}

// out[row] = sum e^(r - mr) ((r - mr) - (z - mz)); the maxima are the first of every 4 of panelSums
export function panelDivergence(z: usize, r: usize, zSums: usize, rSums: usize, out: usize, rows: i32, n: i32): void {
  for (let row = 0; row < rows; row++) {
    const zm = f32x4.splat(load<f32>(at(zSums, 4 * row)));
    const rm = f32x4.splat(load<f32>(at(rSums, 4 * row)));
    let sum = f64x2.splat(0);
    for (let i = 0; i < n; i += 4) {
      const whole = i + 4 <= n;
      // beyond the end e is 0 and the difference -mr + mz + a finite number
      const a = f32x4.sub(whole ? v128.load(at(r, i)) : tail(at(r, i), n - i, LOWEST), rm);
      const b = f32x4.sub(whole ? v128.load(at(z, i)) : tail(at(z, i), n - i, LOWEST), zm);
      const e = exp4(a);
      const d = f32x4.sub(a, b);
      sum = f64x2.add(sum, f64x2.mul(f64x2.promote_low_f32x4(e), f64x2.promote_low_f32x4(d)));
      sum = f64x2.add(sum, f64x2.mul(f64x2.promote_low_f32x4(high(e)), f64x2.promote_low_f32x4(high(d))));
    }
    store<f32>(at(out, row), <f32>(f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1)));
    z = at(z, n);
    r = at(r, n);
  }
}

@inline function high(v: v128): v128 {
  return i8x16.shuffle(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
}

// lanes 0 + 2 and 1 + 3 in f64
@inline function pairs(v: v128): v128 {
  return f64x2.add(f64x2.promote_low_f32x4(v), f64x2.promote_low_f32x4(high(v)));
}

// bf16 patterns -> f32, from the end: `out` may begin where the patterns do
export function widenBf16(from: usize, out: usize, n: i32): void {
  let i = n;
  for (; (i & 7) != 0; i--) store<u32>(at(out, i - 1), (<u32>load<u16>(from + ((<usize>(i - 1)) << 1))) << 16);
  for (; i > 0; i -= 8) {
    const v = v128.load(from + ((<usize>(i - 8)) << 1));
    const zero = i32x4.splat(0);
    v128.store(at(out, i - 8), i8x16.shuffle(zero, v, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23));
    v128.store(at(out, i - 4), i8x16.shuffle(zero, v, 0, 1, 24, 25, 2, 3, 26, 27, 4, 5, 28, 29, 6, 7, 30, 31));
  }
}

// y += a x
export function axpy(x: usize, y: usize, a: f32, n: i32): void {
  const v = f32x4.splat(a);
  let i = 0;
  for (; i + 4 <= n; i += 4) v128.store(at(y, i), f32x4.add(v128.load(at(y, i)), f32x4.mul(v128.load(at(x, i)), v)));
  for (; i < n; i++) store<f32>(at(y, i), load<f32>(at(y, i)) + a * load<f32>(at(x, i)));
}

// every row of y += b
export function addRow(y: usize, b: usize, rows: i32, n: i32): void {
  for (let row = 0; row < rows; row++) {
    axpy(b, y, 1, n);
    y = at(y, n);
  }
}

// squares[j] += x[i, j]^2 and absolutes[j] += |x[i, j]| over all rows, both in f64
export function columnSums(x: usize, squares: usize, absolutes: usize, rows: i32, n: i32): void {
  for (let row = 0; row < rows; row++) {
    let j = 0;
    for (; j + 2 <= n; j += 2) {
      const v = f64x2.promote_low_f32x4(v128.load64_zero(at(x, j)));
      const s = squares + ((<usize>j) << 3);
      const a = absolutes + ((<usize>j) << 3);
      v128.store(s, f64x2.add(v128.load(s), f64x2.mul(v, v)));
      v128.store(a, f64x2.add(v128.load(a), f64x2.abs(v)));
    }
    for (; j < n; j++) {
      const v = <f64>load<f32>(at(x, j));
      const s = squares + ((<usize>j) << 3);
      const a = absolutes + ((<usize>j) << 3);
      store<f64>(s, load<f64>(s) + v * v);
      store<f64>(a, load<f64>(a) + abs(v));
    }
    x = at(x, n);
  }
}
