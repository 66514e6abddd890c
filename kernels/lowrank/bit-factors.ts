/**
 * Singular factors with a bit width for every direction ("Delta-CoMe", arXiv 2406.08903), each factor's column in groups of 128:
 *   D ~ sum_k s_k u^_k v^_k^T,  u^_k, v^_k: asymmetric integers (kernels/quant/affine.ts), s_k in f32
 * Direction k is stored as the codes of u_k, then those of v_k, each a stream of bits filled up to 8 codes.
 */
import { decodeF32 } from '../../core/float.js';
import { affineCodes, affineValues, type AffineGroups } from '../quant/affine.js';
import { packCodes, packedBytes, unpackCodes } from '../quant/pack.js';

export const GROUP = 128;
export const groupsOf = (m: number, n: number): number => Math.ceil(m / GROUP) + Math.ceil(n / GROUP);
export const directionBytes = (m: number, n: number, bits: number): number => packedBytes(m, bits) + packedBytes(n, bits);
/** s (f32) and the width (one byte) of a direction. */
const HEAD_BYTES = 5;
/** A scale in f16 and a zero point of one byte. */
const GROUP_BYTES = 3;

/** Bytes of all parts for these widths. */
export function factorBytes(m: number, n: number, bits: readonly number[]): number {
  return bits.reduce((sum, b) => sum + (b === 0 ? 0 : HEAD_BYTES + directionBytes(m, n, b) + GROUP_BYTES * groupsOf(m, n)), 0);
}

export interface BitFactors {
  readonly s: Float32Array;
  /** Width of every direction, 2 to 8. */
  readonly bits: Uint8Array;
  readonly codes: Uint8Array;
  /** f16, (r, groups). */
  readonly scales: Uint8Array;
  /** (r, groups) */
  readonly zeros: Uint8Array;
}

export interface Directions {
  /** (m, r) */
  readonly u: Float32Array;
  readonly s: ArrayLike<number>;
  /** (r, n) */
  readonly vt: Float32Array;
}

export function column(u: Float32Array, rows: number, k: number): Float32Array {
  const r = u.length / rows;
  const out = new Float32Array(rows);
  for (let i = 0, at = k; i < rows; i++, at += r) out[i] = u[at]!;
  return out;
}

/** Directions that bits[k] > 0 keeps. */
export const keptDirections = (count: number, bits: readonly number[]): number[] => bits.flatMap((b, k) => (b > 0 && k < count ? [k] : []));

/** bits[k]: 0 drops direction k, as does one that is not in the list. */
export function codeFactors(d: Directions, m: number, n: number, bits: readonly number[]): BitFactors {
  const kept = keptDirections(d.s.length, bits);
  const widths = Uint8Array.from(kept, (k) => bits[k]!);
  const s = Float32Array.from(kept, (k) => d.s[k]!);
  return packFactors(s, widths, m, n, (i) => [
    affineCodes(column(d.u, m, kept[i]!), widths[i]!, GROUP),
    affineCodes(d.vt.subarray(kept[i]! * n, (kept[i]! + 1) * n), widths[i]!, GROUP),
  ]);
}

/** coded(k): the groups of u_k and v_k. */
export function packFactors(
  s: Float32Array,
  bits: Uint8Array,
  m: number,
  n: number,
  coded: (k: number) => readonly [u: AffineGroups, v: AffineGroups],
): BitFactors {
  const groups = groupsOf(m, n);
  const codes = new Uint8Array(bits.reduce((sum, b) => sum + directionBytes(m, n, b), 0));
  const [scales, zeros] = [new Uint8Array(2 * s.length * groups), new Uint8Array(s.length * groups)];
  let [at, group] = [0, 0];
  for (const [k, width] of bits.entries()) {
    for (const x of coded(k)) {
      packCodes(x.codes, width, codes, at);
      scales.set(x.scales, 2 * group);
      zeros.set(x.zeros, group);
      at += packedBytes(x.codes.length, width);
      group += x.zeros.length;
    }
  }
  return { s, bits, codes, scales, zeros };
}

/** a: (r, n) of v^; b: (m, r) of u^ s, one f32 multiplication more; normative. */
export function factorValues(f: BitFactors, m: number, n: number): { a: Float32Array; b: Float32Array } {
  const r = f.s.length;
  const scales = decodeF32('F16', f.scales);
  const [a, b] = [new Float32Array(r * n), new Float32Array(m * r)];
  const [codes, values] = [new Uint8Array(Math.max(m, n)), new Float32Array(Math.max(m, n))];
  let [at, group] = [0, 0];
  const next = (length: number, bits: number, out: Float32Array): Float32Array => {
    const [q, groups] = [codes.subarray(0, length), Math.ceil(length / GROUP)];
    unpackCodes(f.codes, at, bits, q);
    affineValues(q, scales.subarray(group, group + groups), f.zeros.subarray(group, group + groups), GROUP, out);
    at += packedBytes(length, bits);
    group += groups;
    return out;
  };
  for (let k = 0; k < r; k++) {
    const u = next(m, f.bits[k]!, values.subarray(0, m));
    for (let i = 0; i < m; i++) b[i * r + k] = u[i]! * f.s[k]!;
    next(n, f.bits[k]!, a.subarray(k * n, (k + 1) * n));
  }
  return { a, b };
}

/** ||u v^T - u^ v^^T||_F^2 of one direction with unit vectors: 1 - 2 <u, u^> <v, v^> + ||u^||^2 ||v^||^2. */
export function directionError(u: Float32Array, v: Float32Array, bits: number): number {
  let [inner, norms] = [1, 1];
  for (const x of [u, v]) {
    const { codes, scales, zeros } = affineCodes(x, bits, GROUP);
    const back = new Float32Array(x.length);
    affineValues(codes, decodeF32('F16', scales), zeros, GROUP, back);
    let [dot, square] = [0, 0];
    for (let i = 0; i < x.length; i++) {
      dot += x[i]! * back[i]!;
      square += back[i]! * back[i]!;
    }
    inner *= dot;
    norms *= square;
  }
  return 1 - 2 * inner + norms;
}
