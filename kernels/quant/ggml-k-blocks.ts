/** Decoders of ggml's K types: super-blocks of 256 with scales (and minima) of their parts in few bits. Layouts: `ggml-common.h`. */
import { f16Values } from '../../core/float.js';
import { canonicalNaN, notFinite } from './ggml-blocks.js';

/** Scales and minima of the parts of the super-block that is decoded. */
const scale = new Float64Array(16);
const least = new Float64Array(16);

// scales u8[16] (low nibble scale, high nibble minimum), qs u8[64], d, dmin f16: x = d scale q - dmin min, 16 elements a part
export function q2k(bytes: Uint8Array, out: Float32Array): void {
  const f16 = f16Values();
  for (let b = 0, o = 0; b < bytes.length; b += 84, o += 256) {
    const d = f16[bytes[b + 80]! | (bytes[b + 81]! << 8)]!;
    const dmin = f16[bytes[b + 82]! | (bytes[b + 83]! << 8)]!;
    for (let g = 0; g < 16; g++) {
      const [part, h, n] = [16 * g, g >> 3, (g >> 1) & 3];
      const [dl, ml] = [d * (bytes[b + g]! & 15), dmin * (bytes[b + g]! >> 4)];
      const from = b + 16 + 32 * h + 16 * (g & 1);
      for (let i = 0; i < 16; i++) out[o + part + i] = dl * ((bytes[from + i]! >> (2 * n)) & 3) - ml;
    }
    if (notFinite(d, dmin)) canonicalNaN(out, o, 256);
  }
}

// hmask u8[32], qs u8[64], scales u8[12] (6 bits each), d f16: x = d (scale - 32) (q - (high bit set ? 0 : 4))
export function q3k(bytes: Uint8Array, out: Float32Array): void {
  const f16 = f16Values();
  for (let b = 0, o = 0; b < bytes.length; b += 110, o += 256) {
    const d = f16[bytes[b + 108]! | (bytes[b + 109]! << 8)]!;
    for (let g = 0; g < 16; g++) {
      const low = g < 8 ? bytes[b + 96 + g]! & 15 : bytes[b + 96 + g - 8]! >> 4;
      const high = (bytes[b + 104 + (g & 3)]! >> (2 * (g >> 2))) & 3;
      const dl = d * ((low | (high << 4)) - 32);
      const [h, n, half] = [g >> 3, (g >> 1) & 3, 16 * (g & 1)];
      const [from, mask, bit] = [b + 32 + 32 * h + half, b + half, 4 * h + n];
      for (let i = 0; i < 16; i++) {
        const q = ((bytes[from + i]! >> (2 * n)) & 3) + (((bytes[mask + i]! >> bit) & 1) << 2) - 4;
        out[o + 16 * g + i] = dl * q;
      }
    }
    if (notFinite(d)) canonicalNaN(out, o, 256);
  }
}

/** The eight 6-bit scales and minima of Q4_K and Q5_K at bytes[at, at + 12), times d and dmin. */
function unpackScales(bytes: Uint8Array, at: number, d: number, dmin: number): void {
  for (let j = 0; j < 4; j++) {
    const [a, m, x] = [bytes[at + j]!, bytes[at + 4 + j]!, bytes[at + 8 + j]!];
    scale[j] = d * (a & 63);
    least[j] = dmin * (m & 63);
    scale[j + 4] = d * ((x & 15) | ((a >> 6) << 4));
    least[j + 4] = dmin * ((x >> 4) | ((m >> 6) << 4));
  }
}

// d, dmin f16, scales u8[12], qs u8[128]: x = d scale q - dmin min, 32 elements a part, two parts share 32 bytes
export function q4k(bytes: Uint8Array, out: Float32Array): void {
  const f16 = f16Values();
  for (let b = 0, o = 0; b < bytes.length; b += 144, o += 256) {
    const d = f16[bytes[b]! | (bytes[b + 1]! << 8)]!;
    const dmin = f16[bytes[b + 2]! | (bytes[b + 3]! << 8)]!;
    unpackScales(bytes, b + 4, d, dmin);
    for (let p = 0; p < 4; p++) {
      const [d0, m0, d1, m1] = [scale[2 * p]!, least[2 * p]!, scale[2 * p + 1]!, least[2 * p + 1]!];
      const [from, to] = [b + 16 + 32 * p, o + 64 * p];
      for (let i = 0; i < 32; i++) {
        const q = bytes[from + i]!;
        out[to + i] = d0 * (q & 15) - m0;
        out[to + 32 + i] = d1 * (q >> 4) - m1;
      }
    }
    if (notFinite(d, dmin)) canonicalNaN(out, o, 256);
  }
}

// d, dmin f16, scales u8[12], qh u8[32], qs u8[128]: as Q4_K, with bit j of qh[i] the fifth of element i of part j
export function q5k(bytes: Uint8Array, out: Float32Array): void {
  const f16 = f16Values();
  for (let b = 0, o = 0; b < bytes.length; b += 176, o += 256) {
    const d = f16[bytes[b]! | (bytes[b + 1]! << 8)]!;
    const dmin = f16[bytes[b + 2]! | (bytes[b + 3]! << 8)]!;
    unpackScales(bytes, b + 4, d, dmin);
    for (let p = 0; p < 4; p++) {
      const [d0, m0, d1, m1] = [scale[2 * p]!, least[2 * p]!, scale[2 * p + 1]!, least[2 * p + 1]!];
      const [from, to] = [b + 48 + 32 * p, o + 64 * p];
      for (let i = 0; i < 32; i++) {
        const q = bytes[from + i]!;
        const h = bytes[b + 16 + i]! >> (2 * p);
        out[to + i] = d0 * ((q & 15) | ((h & 1) << 4)) - m0;
        out[to + 32 + i] = d1 * ((q >> 4) | ((h & 2) << 3)) - m1;
      }
    }
    if (notFinite(d, dmin)) canonicalNaN(out, o, 256);
  }
}

// ql u8[128], qh u8[64], scales i8[16], d f16: x = d scale (q - 32), 16 elements a part
export function q6k(bytes: Uint8Array, out: Float32Array): void {
  const f16 = f16Values();
  for (let b = 0, o = 0; b < bytes.length; b += 210, o += 256) {
    const d = f16[bytes[b + 208]! | (bytes[b + 209]! << 8)]!;
    for (let g = 0; g < 16; g++) scale[g] = d * ((bytes[b + 192 + g]! << 24) >> 24);
    for (let h = 0; h < 2; h++) {
      for (let half = 0; half < 2; half++) {
        const [low, high, to, g] = [b + 64 * h + 16 * half, b + 128 + 32 * h + 16 * half, o + 128 * h + 16 * half, 8 * h + half];
        const [d0, d1, d2, d3] = [scale[g]!, scale[g + 2]!, scale[g + 4]!, scale[g + 6]!];
        for (let i = 0; i < 16; i++) {
          const a = bytes[low + i]!;
          const c = bytes[low + 32 + i]!;
          const x = bytes[high + i]!;
          out[to + i] = d0 * (((a & 15) | ((x & 3) << 4)) - 32);
          out[to + 32 + i] = d1 * (((c & 15) | ((x & 12) << 2)) - 32);
          out[to + 64 + i] = d2 * (((a >> 4) | (x & 48)) - 32);
          out[to + 96 + i] = d3 * (((c >> 4) | ((x & 192) >> 2)) - 32);
        }
      }
    }
    if (notFinite(d)) canonicalNaN(out, o, 256);
  }
}
