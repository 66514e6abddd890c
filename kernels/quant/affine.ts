/**
 * Asymmetric integer quantization of groups, rounded to nearest:
 *   lo = min(x, 0), hi = max(x, 0), s = f16((hi - lo) / (2^b - 1)), z = round(-lo / s), q = clamp(round(x / s) + z, 0, 2^b - 1), x ~ s (q - z)
 * A group that is zero, or whose s is 0 in f16, has s = 0 and restores to 0.
 */
import { decodeF32, encodeAs } from '../../core/float.js';

/** 1.5 * 2^52: adding and subtracting it rounds to the nearest integer, ties to even. */
const MAGIC = 6755399441055744;

export interface AffineGroups {
  readonly codes: Uint8Array;
  /** f16, one a group. */
  readonly scales: Uint8Array;
  readonly zeros: Uint8Array;
}

/** x in groups of `size`, the last may be shorter. */
export function affineCodes(x: Float32Array, bits: number, size: number): AffineGroups {
  const top = 2 ** bits - 1;
  const groups = Math.ceil(x.length / size);
  const [codes, zeros, low, step] = [new Uint8Array(x.length), new Uint8Array(groups), new Float32Array(groups), new Float32Array(groups)];
  for (let i = 0, g = 0; i < x.length; g++) {
    let [lo, hi] = [0, 0];
    for (const end = Math.min(x.length, i + size); i < end; i++) {
      const v = x[i]!;
      if (v < lo) lo = v;
      else if (v > hi) hi = v;
    }
    low[g] = lo;
    step[g] = (hi - lo) / top;
  }
  const scales = encodeAs('F16', step);
  const stored = decodeF32('F16', scales);
  for (let i = 0, g = 0; i < x.length; g++) {
    const inverse = stored[g]! > 0 ? 1 / stored[g]! : 0;
    const z = Math.min(top, -low[g]! * inverse + MAGIC - MAGIC);
    zeros[g] = z;
    for (const end = Math.min(x.length, i + size); i < end; i++) {
      const q = x[i]! * inverse + MAGIC - MAGIC + z;
      codes[i] = q < 0 ? 0 : q > top ? top : q;
    }
  }
  return { codes, scales, zeros };
}

/** out = f32(q - z) * f32(s), one f32 multiplication a value; normative. */
export function affineValues(codes: Uint8Array, scales: Float32Array, zeros: Uint8Array, size: number, out: Float32Array): void {
  for (let i = 0, g = 0; i < codes.length; g++) {
    for (const end = Math.min(codes.length, i + size); i < end; i++) out[i] = (codes[i]! - zeros[g]!) * scales[g]!;
  }
}
