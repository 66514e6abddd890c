/** Frequency tables as the coder's loops read them, in wasm memory. */
import type { Tables } from './tables.js';

/** Bytes of one table for the decoder; an encoder's, of at most 256 tokens, is shorter. */
export const SLOT_TABLE_BYTES = 4096 * 4;
export const LANES = 8;
export const STATE_BYTES = 4 * LANES;
/** What an encoder's states start as, and a decoder's end as. */
export const FIRST_STATE = 1 << 16;

/** 16 bytes a symbol: u64 floor(2^44 / f) + 1, u32 (f << 20) - 1, u16 start, u16 4096 - f. */
export function putEncoderTables(view: DataView, tablesAt: number, tables: Tables, symbols: number): void {
  tables.frequencies.forEach((f, t) => {
    let start = 0;
    for (let s = 0; s < f.length; s++) {
      if (f[s] === 0) continue;
      const at = tablesAt + (t * symbols + s) * 16;
      const m = Math.floor(2 ** 44 / f[s]!) + 1;
      view.setUint32(at, m % 2 ** 32, true);
      view.setUint32(at + 4, Math.floor(m / 2 ** 32), true);
      view.setUint32(at + 8, f[s]! * 2 ** 20 - 1, true);
      view.setUint16(at + 12, start, true);
      view.setUint16(at + 14, 4096 - f[s]!, true);
      start += f[s]!;
    }
  });
}

/** `scratchAt`: room for 512 bytes. */
export function putDecoderTables(
  wasm: { buildSlots(frequencies: number, symbols: number, out: number): void },
  buffer: ArrayBuffer,
  scratchAt: number,
  tablesAt: number,
  tables: Tables,
): void {
  tables.frequencies.forEach((f, t) => {
    new Uint16Array(buffer, scratchAt, f.length).set(f);
    wasm.buildSlots(scratchAt, f.length, tablesAt + t * SLOT_TABLE_BYTES);
  });
}
