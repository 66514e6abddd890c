/** Buffers of a thread for loops that pass bytes through: a new one for every tensor would pile up until the next collection. */

const PANEL_BYTES = 4 << 20;
/** A float buffer of up to this many values is never exchanged for a smaller one. */
const KEPT_VALUES = 1 << 20;
const shared = new Map<string, Uint8Array<ArrayBuffer>>();

/** min(4 MiB, bytes) bytes, valid until the next call for the same `use` on this thread; a loop with an await in it has a `use` of its own. */
export function panelBuffer(bytes: number, use = 'synchronous'): Uint8Array<ArrayBuffer> {
  let buffer = shared.get(use);
  if (buffer === undefined) {
    buffer = new Uint8Array(PANEL_BYTES);
    shared.set(use, buffer);
  }
  return buffer.subarray(0, Math.min(PANEL_BYTES, bytes));
}

const floats = new Map<string, Float32Array<ArrayBuffer>>();

/** `values` f32 of any content, valid until the next call for the same `use` on this thread. */
export function floatBuffer(values: number, use: string): Float32Array<ArrayBuffer> {
  let buffer = floats.get(use);
  // a buffer that has become far too large is given back
  if (buffer === undefined || buffer.length < values || buffer.length > 4 * values + KEPT_VALUES) {
    buffer = new Float32Array(values);
    floats.set(use, buffer);
  }
  return buffer.subarray(0, values);
}
