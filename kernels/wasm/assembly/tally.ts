// Counts and sums of quantizer levels, from which rates and errors are estimated; kernels/levels/tally.ts is the driver.

import { beyondZero, levelOf } from './_quantizer';

const CENTROIDS: i32 = 8;

// x: (rows, stride) f32, its first `columns` columns. For each column: counts u32[tops] of the levels above 0, the last one of all levels
// from there on; sums f64[12]: |x| of levels 1 to 8 at their own place, l |x| and l^2 of the levels above. Both are added to.
export function tallyColumns(x: usize, rows: i32, stride: i32, columns: i32, inverse: f64, counts: usize, tops: i32, sums: usize): void {
  const inverse2 = f64x2.splat(inverse);
  for (let i = 0; i < rows; i++) {
    let k = 0;
    for (; k + 4 <= columns; k += 4) {
      if (!beyondZero(v128.load(x + (<usize>k << 2)), inverse2)) continue;
      for (let j = k; j < k + 4; j++) tallyOne(x, j, inverse, counts, tops, sums);
    }
    for (; k < columns; k++) tallyOne(x, k, inverse, counts, tops, sums);
    x += <usize>stride << 2;
  }
}

@inline function tallyOne(x: usize, k: i32, inverse: f64, counts: usize, tops: i32, sums: usize): void {
  const v = abs(load<f32>(x + (<usize>k << 2)));
  const l = levelOf(v, inverse);
  if (l == 0) return;
  const count = counts + (<usize>(k * tops + min(l, tops - 1)) << 2);
  store<u32>(count, load<u32>(count) + 1);
  const s = sums + <usize>k * 96;
  if (l > CENTROIDS) {
    store<f64>(s, load<f64>(s, 72) + <f64>l * <f64>v, 72);
    store<f64>(s, load<f64>(s, 80) + <f64>l * <f64>l, 80);
  } else {
    const sum = s + (<usize>l << 3);
    store<f64>(sum, load<f64>(sum) + <f64>v);
  }
}

// levels: i16[n]; counts: u32[classes][tops] by the values' classes; sums: f64[9], |x| of levels 1 to 8 at their own place. All
// are added to but the levels.
export function tallyClasses(x: usize, classes: usize, n: i32, inverse: f64, levels: usize, counts: usize, tops: i32, sums: usize): void {
  for (let i = 0; i < n; i++) {
    const v = load<f32>(x + (<usize>i << 2));
    const l = levelOf(v, inverse);
    store<i16>(levels + (<usize>i << 1), <i16>(v < 0 ? -l : l));
    const at = counts + (<usize>(<i32>load<u8>(classes + i) * tops + min(l, tops - 1)) << 2);
    store<u32>(at, load<u32>(at) + 1);
    if (l > 0 && l <= CENTROIDS) {
      const sum = sums + (<usize>l << 3);
      store<f64>(sum, load<f64>(sum) + <f64>abs(v));
    }
  }
}

// f32 -> the nearest bf16, ties to even, as an f32; values here are finite
@inline function roundedBf16(v: f32): f32 {
  const b = reinterpret<u32>(v);
  return reinterpret<f32>((b + 0x7fff + ((b >> 16) & 1)) & 0xffff0000);
}

// ||round(w0 + d^) - w1||^2 where d^ is what the levels stand for; sizes: f32[9], magnitudes of levels 0 to 8
export function levelError(w0: usize, w1: usize, levels: usize, n: i32, sizes: usize, step: f32, bf16: bool): f64 {
  let error: f64 = 0;
  for (let i = 0; i < n; i++) {
    const l = <i32>load<i16>(levels + (<usize>i << 1));
    const a = l < 0 ? -l : l;
    const size: f32 = a <= CENTROIDS ? load<f32>(sizes + (<usize>a << 2)) : <f32>a * step;
    const sum = load<f32>(w0 + (<usize>i << 2)) + (l > 0 ? size : -size);
    const e = <f64>((bf16 ? roundedBf16(sum) : sum) - load<f32>(w1 + (<usize>i << 2)));
    error += e * e;
  }
  return error;
}
