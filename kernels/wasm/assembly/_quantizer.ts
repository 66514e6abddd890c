// The dead-zone quantizer of kernels/levels/quantize.ts, in f64 as there.

const ROUNDING: f64 = 0.4;
const MAX_LEVEL: f64 = 32767;

// floor(|v| / step + 0.4), at most 32767
@inline export function levelOf(v: f32, inverse: f64): i32 {
  return <i32>min<f64>(Math.abs(<f64>v) * inverse + ROUNDING, MAX_LEVEL);
}

// Whether any of four values is above level 0.
@inline export function beyondZero(v: v128, inverse: v128): bool {
  const a = f32x4.abs(v);
  const hi = i8x16.shuffle(a, a, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
  const rounding = f64x2.splat(ROUNDING);
  const x = f64x2.add(f64x2.mul(f64x2.promote_low_f32x4(a), inverse), rounding);
  const y = f64x2.add(f64x2.mul(f64x2.promote_low_f32x4(hi), inverse), rounding);
  return v128.any_true(f64x2.ge(f64x2.max(x, y), f64x2.splat(1)));
}
