/** Buffers of a thread for loops that pass bytes through: a new one for every tensor would pile up until the next collection. */

const PANEL_BYTES = 4 << 20;
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
