/** Decoders of ggml's 32-element, ternary and table types; the layouts are those of `ggml-common.h`. Blocks lie back to back in `bytes`. */
import { f16Values } from '../../core/float.js';

/** A NaN's sign and payload depend on the machine: all of them in out[at, at + count) get the bits of the quiet one. */
export function canonicalNaN(out: Float32Array, at: number, count: number): void {
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = at; i < at + count; i++) if (Number.isNaN(out[i])) bits[i] = 0x7fc00000;
}

/** True unless every argument is a finite number. */
export const notFinite = (a: number, b = 0): boolean => a - a + (b - b) !== 0;

// d f16, qs u8[16]: x = d (q - 8), the low nibbles first
export function q4_0(bytes: Uint8Array, out: Float32Array): void {
  const f16 = f16Values();
  for (let b = 0, o = 0; b < bytes.length; b += 18, o += 32) {
    const d = f16[bytes[b]! | (bytes[b + 1]! << 8)]!;
    for (let i = 0; i < 16; i++) {
      const q = bytes[b + 2 + i]!;
      out[o + i] = d * ((q & 15) - 8);
      out[o + 16 + i] = d * ((q >> 4) - 8);
    }
    if (notFinite(d)) canonicalNaN(out, o, 32);
  }
}

// d, m f16, qs u8[16]: x = d q + m
export function q4_1(bytes: Uint8Array, out: Float32Array): void {
  const f16 = f16Values();
  for (let b = 0, o = 0; b < bytes.length; b += 20, o += 32) {
    const d = f16[bytes[b]! | (bytes[b + 1]! << 8)]!;
    const m = f16[bytes[b + 2]! | (bytes[b + 3]! << 8)]!;
    for (let i = 0; i < 16; i++) {
      const q = bytes[b + 4 + i]!;
      out[o + i] = d * (q & 15) + m;
      out[o + 16 + i] = d * (q >> 4) + m;
    }
    if (notFinite(d, m)) canonicalNaN(out, o, 32);
  }
}

// d f16, qh u32, qs u8[16]: bit i of qh is the fifth of element i; x = d (q - 16)
export function q5_0(bytes: Uint8Array, out: Float32Array): void {
  const f16 = f16Values();
  for (let b = 0, o = 0; b < bytes.length; b += 22, o += 32) {
    const d = f16[bytes[b]! | (bytes[b + 1]! << 8)]!;
    const h = bytes[b + 2]! | (bytes[b + 3]! << 8) | (bytes[b + 4]! << 16) | (bytes[b + 5]! << 24);
    for (let i = 0; i < 16; i++) {
      const q = bytes[b + 6 + i]!;
      out[o + i] = d * (((q & 15) | (((h >>> i) & 1) << 4)) - 16);
      out[o + 16 + i] = d * (((q >> 4) | (((h >>> (i + 16)) & 1) << 4)) - 16);
    }
    if (notFinite(d)) canonicalNaN(out, o, 32);
  }
}

// d, m f16, qh u32, qs u8[16]: x = d q + m
export function q5_1(bytes: Uint8Array, out: Float32Array): void {
  const f16 = f16Values();
  for (let b = 0, o = 0; b < bytes.length; b += 24, o += 32) {
    const d = f16[bytes[b]! | (bytes[b + 1]! << 8)]!;
    const m = f16[bytes[b + 2]! | (bytes[b + 3]! << 8)]!;
    const h = bytes[b + 4]! | (bytes[b + 5]! << 8) | (bytes[b + 6]! << 16) | (bytes[b + 7]! << 24);
    for (let i = 0; i < 16; i++) {
      const q = bytes[b + 8 + i]!;
      out[o + i] = d * ((q & 15) | (((h >>> i) & 1) << 4)) + m;
      out[o + 16 + i] = d * ((q >> 4) | (((h >>> (i + 16)) & 1) << 4)) + m;
    }
    if (notFinite(d, m)) canonicalNaN(out, o, 32);
  }
}

// d f16, qs i8[32]: x = d q
export function q8_0(bytes: Uint8Array, out: Float32Array): void {
  const f16 = f16Values();
  for (let b = 0, o = 0; b < bytes.length; b += 34, o += 32) {
    const d = f16[bytes[b]! | (bytes[b + 1]! << 8)]!;
    for (let i = 0; i < 32; i++) out[o + i] = d * ((bytes[b + 2 + i]! << 24) >> 24);
    if (notFinite(d)) canonicalNaN(out, o, 32);
  }
}

/** kvalues_iq4nl */
const IQ4_VALUES = Int8Array.of(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

// d f16, qs u8[16]: x = d value(q)
export function iq4nl(bytes: Uint8Array, out: Float32Array): void {
  const f16 = f16Values();
  for (let b = 0, o = 0; b < bytes.length; b += 18, o += 32) {
    const d = f16[bytes[b]! | (bytes[b + 1]! << 8)]!;
    for (let i = 0; i < 16; i++) {
      const q = bytes[b + 2 + i]!;
      out[o + i] = d * IQ4_VALUES[q & 15]!;
      out[o + 16 + i] = d * IQ4_VALUES[q >> 4]!;
    }
    if (notFinite(d)) canonicalNaN(out, o, 32);
  }
}

// d f16, scalesHigh u16, scalesLow u8[4], qs u8[128]: 8 parts of 32, x = d (scale - 32) value(q)
export function iq4xs(bytes: Uint8Array, out: Float32Array): void {
  const f16 = f16Values();
  for (let b = 0, o = 0; b < bytes.length; b += 136, o += 256) {
    const d = f16[bytes[b]! | (bytes[b + 1]! << 8)]!;
    const high = bytes[b + 2]! | (bytes[b + 3]! << 8);
    for (let j = 0; j < 8; j++) {
      const low = (bytes[b + 4 + (j >> 1)]! >> (4 * (j & 1))) & 15;
      const dl = d * ((low | (((high >> (2 * j)) & 3) << 4)) - 32);
      for (let i = 0; i < 16; i++) {
        const q = bytes[b + 8 + 16 * j + i]!;
        out[o + 32 * j + i] = dl * IQ4_VALUES[q & 15]!;
        out[o + 32 * j + 16 + i] = dl * IQ4_VALUES[q >> 4]!;
      }
    }
    if (notFinite(d)) canonicalNaN(out, o, 256);
  }
}

/** e2m1 values, doubled (kvalues_mxfp4) */
const E2M1_DOUBLED = Int8Array.of(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);

/** 2^(e - 128): half of an e8m0 scale, for values that are doubled. */
const E8M0_HALVES = Float64Array.from({ length: 256 }, (_, e) => 2 ** (e - 128));

// e u8 (e8m0), qs u8[16]: x = 2^(e - 128) value(q)
export function mxfp4(bytes: Uint8Array, out: Float32Array): void {
  for (let b = 0, o = 0; b < bytes.length; b += 17, o += 32) {
    const d = E8M0_HALVES[bytes[b]!]!;
    for (let i = 0; i < 16; i++) {
      const q = bytes[b + 1 + i]!;
      out[o + i] = d * E2M1_DOUBLED[q & 15]!;
      out[o + 16 + i] = d * E2M1_DOUBLED[q >> 4]!;
    }
  }
}

/** Half of an unsigned e4m3 (bias 7); the pattern of NaN counts as 0. */
const UE4M3_HALVES = Float32Array.from({ length: 256 }, (_, x) => {
  const [e, m] = [(x >> 3) & 15, x & 7];
  return x === 0x7f ? 0 : 0.5 * (e === 0 ? m * 2 ** -9 : (1 + m / 8) * 2 ** (e - 7));
});

// d u8[4] (ue4m3), qs u8[32]: 4 parts of 16 with 8 bytes each
export function nvfp4(bytes: Uint8Array, out: Float32Array): void {
  for (let b = 0, o = 0; b < bytes.length; b += 36, o += 64) {
    for (let j = 0; j < 4; j++) {
      const d = UE4M3_HALVES[bytes[b + j]!]!;
      for (let i = 0; i < 8; i++) {
        const q = bytes[b + 4 + 8 * j + i]!;
        out[o + 16 * j + i] = d * E2M1_DOUBLED[q & 15]!;
        out[o + 16 * j + 8 + i] = d * E2M1_DOUBLED[q >> 4]!;
      }
    }
  }
}

/** The n-th ternary digit of a byte that holds a fraction of 256: (q 3^n mod 256) 3 / 256, less 1. By [n * 256 + byte]. */
const TERNARY = Int8Array.from({ length: 5 * 256 }, (_, i) => (((((i & 255) * 3 ** (i >> 8)) & 255) * 3) >> 8) - 1);

// qs u8[48], qh u8[4], d f16: 32 bytes of five digits each, 16 of five, 4 of four; x = d digit
export function tq1_0(bytes: Uint8Array, out: Float32Array): void {
  const f16 = f16Values();
  for (let b = 0, o = 0; b < bytes.length; b += 54, o += 256) {
    const d = f16[bytes[b + 52]! | (bytes[b + 53]! << 8)]!;
    for (let n = 0; n < 5; n++) {
      for (let i = 0; i < 32; i++) out[o + 32 * n + i] = d * TERNARY[256 * n + bytes[b + i]!]!;
      for (let i = 0; i < 16; i++) out[o + 160 + 16 * n + i] = d * TERNARY[256 * n + bytes[b + 32 + i]!]!;
    }
    for (let n = 0; n < 4; n++) for (let i = 0; i < 4; i++) out[o + 240 + 4 * n + i] = d * TERNARY[256 * n + bytes[b + 48 + i]!]!;
    if (notFinite(d)) canonicalNaN(out, o, 256);
  }
}

// qs u8[64], d f16: element 128 h + 32 n + i is bits 2 n of byte 32 h + i; x = d (q - 1)
export function tq2_0(bytes: Uint8Array, out: Float32Array): void {
  const f16 = f16Values();
  for (let b = 0, o = 0; b < bytes.length; b += 66, o += 256) {
    const d = f16[bytes[b + 64]! | (bytes[b + 65]! << 8)]!;
    for (let h = 0; h < 2; h++) {
      for (let n = 0; n < 4; n++) {
        for (let i = 0; i < 32; i++) out[o + 128 * h + 32 * n + i] = d * (((bytes[b + 32 * h + i]! >> (2 * n)) & 3) - 1);
      }
    }
    if (notFinite(d)) canonicalNaN(out, o, 256);
  }
}
