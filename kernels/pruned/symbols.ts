/** A run of symbols in contexts, with its own tables: what a segment of either part of a pruned matrix is made of. */
import { FIRST_STATE, LANES, putDecoderTables, putEncoderTables, STATE_BYTES } from '../residual/rans-tables.js';
import { CONTEXTS, makeTables, readTables, writeTables } from '../residual/tables.js';
import { bad, type Cursor } from './bytes.js';
import { layout, STREAM_END } from './memory.js';
import type { PrunedExports } from './wasm-exports.js';

/** log2 of the tokens that a mask without patterns has, and of all others. */
export const [BIT_SHIFT, BYTE_SHIFT] = [1, 8] as const;

/** Tokens and contexts lie in the memory. Answers u16 bytes of tables, the tables, u32 bytes of coder words, eight states, the words. */
export function writeSymbols(wasm: PrunedExports, memory: WebAssembly.Memory, n: number, shift: number): Uint8Array {
  const { buffer } = memory;
  const rows = CONTEXTS << shift;
  const [even, odd] = [new Uint32Array(buffer, layout.even, rows).fill(0), new Uint32Array(buffer, layout.odd, rows).fill(0)];
  wasm.histogram(layout.tokens, layout.contexts, n, layout.even, layout.odd, shift);
  const sums = new Uint32Array(3 * CONTEXTS);
  for (let i = 0; i < rows; i++) {
    const count = (even[i]! += odd[i]!);
    if (count === 0) continue;
    const [context, token] = [i >> shift, i & ((1 << shift) - 1)];
    sums[3 * context]! += count;
    sums[3 * context + 1]! += count * token;
    sums[3 * context + 2] = token;
  }
  const tables = makeTables({ symbols: 1 << shift, counts: even, sums });
  new Uint8Array(buffer, layout.map, CONTEXTS).set(tables.map);
  putEncoderTables(new DataView(buffer), layout.tables, tables, 1 << shift);
  new Uint32Array(buffer, layout.states, LANES).fill(FIRST_STATE);
  wasm.wordsBegin(STREAM_END);
  wasm.ransEncode(layout.tokens, layout.contexts, n, layout.map, layout.tables, shift, layout.states);
  const words = new Uint8Array(buffer, wasm.words(), STREAM_END - wasm.words());
  const stored = writeTables(tables);
  const sizes = new DataView(new ArrayBuffer(6));
  sizes.setUint16(0, stored.length, true);
  sizes.setUint32(2, words.length, true);
  const [before, after] = [new Uint8Array(sizes.buffer, 0, 2), new Uint8Array(sizes.buffer, 2, 4)];
  return Buffer.concat([before, stored, after, new Uint8Array(buffer, layout.states, STATE_BYTES), words]);
}

/** n tokens below 2^shift, from the contexts in the memory. */
export function readSymbols(wasm: PrunedExports, memory: WebAssembly.Memory, c: Cursor, n: number, shift: number): void {
  const { buffer } = memory;
  const tables = readTables(c.take(c.u16()), 1 << shift);
  const bytes = c.u32();
  if (bytes % 2 !== 0 || bytes > 2 * n) bad(`${bytes} bytes of coder words for ${n} symbols`);
  new Uint8Array(buffer, layout.states, STATE_BYTES).set(c.take(STATE_BYTES));
  new Uint8Array(buffer, layout.stream, bytes).set(c.take(bytes));
  new Uint8Array(buffer, layout.map, CONTEXTS).set(tables.map);
  putDecoderTables(wasm, buffer, layout.frequencies, layout.tables, tables);
  wasm.wordsBegin(layout.stream);
  wasm.ransDecode(layout.tokens, layout.contexts, n, layout.map, layout.tables, layout.states);
  const ended = wasm.words() === layout.stream + bytes && new Uint32Array(buffer, layout.states, LANES).every((x) => x === FIRST_STATE);
  if (!ended) bad('a run of symbols does not end where it should');
}
