/** Words of a tensor that a mask of bytes 0 and 1 marks: found, taken out, put back. */
import { decodeF32, encodeAs } from '../../core/float.js';
import { marker, type Selection } from './top-k.js';

/** Marks words of `width` bytes that differ; answers how many. */
export function markChanged(base: Uint8Array, tuned: Uint8Array, width: number, mask: Uint8Array): number {
  let changed = 0;
  for (let i = 0, at = 0; i < mask.length; i++, at += width) {
    let differs = 0;
    for (let b = 0; b < width; b++) differs |= base[at + b]! ^ tuned[at + b]!;
    mask[i] = differs === 0 ? 0 : 1;
    changed += mask[i]!;
  }
  return changed;
}

/** The marked words' bytes. */
export function gather(stored: Uint8Array, mask: Uint8Array, count: number, width: number): Uint8Array {
  const out = new Uint8Array(count * width);
  for (let i = 0, to = 0; i < mask.length; i++) if (mask[i] === 1) for (let b = 0; b < width; b++) out[to++] = stored[i * width + b]!;
  return out;
}

export function gatherF32(delta: Float32Array, mask: Uint8Array, count: number): Float32Array {
  const out = new Float32Array(count);
  for (let i = 0, to = 0; i < mask.length; i++) if (mask[i] === 1) out[to++] = delta[i]!;
  return out;
}

/** Puts words back where they are marked. */
export function scatter(values: Uint8Array, mask: Uint8Array, stored: Uint8Array, width: number): void {
  for (let i = 0, from = 0; i < mask.length; i++) if (mask[i] === 1) for (let b = 0; b < width; b++) stored[i * width + b] = values[from++]!;
}

/** stored = round(f32(stored) + value) where marked, one f32 sum a value. */
export function addWhereMarked(dtype: 'BF16' | 'F16' | 'F32', stored: Uint8Array, mask: Uint8Array, values: Float32Array): void {
  const width = dtype === 'F32' ? 4 : 2;
  const w = decodeF32(dtype, gather(stored, mask, values.length, width));
  for (let i = 0; i < w.length; i++) w[i] = w[i]! + values[i]!;
  scatter(encodeAs(dtype, w), mask, stored, width);
}

/** How many words are marked; undefined when a byte is neither 0 nor 1. */
export function countMarked(mask: Uint8Array): number | undefined {
  let [ones, most] = [0, 0];
  for (const v of mask) {
    ones += v;
    most = Math.max(most, v);
  }
  return most > 1 ? undefined : ones;
}

/** How many values a selection keeps and the squared error that it leaves of `norm`, the rounding of bf16 values included. */
export function leftBy(delta: Float32Array, selection: Selection, norm: number, exact: boolean): { kept: number; errorSq: number } {
  const mask = new Uint8Array(delta.length);
  const kept = marker(selection)(delta, mask);
  const values = gatherF32(delta, mask, kept);
  const stored = exact ? values : decodeF32('BF16', encodeAs('BF16', values));
  let errorSq = norm;
  for (let i = 0; i < kept; i++) errorSq += (values[i]! - stored[i]!) ** 2 - values[i]! ** 2;
  return { kept, errorSq: Math.max(0, errorSq) };
}
