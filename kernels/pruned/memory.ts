/** The coder's wasm memory, in bytes from its start; the first page is left to the module. Every array has room for one write beyond it. */
import { MAX_TABLES, CONTEXTS } from '../residual/tables.js';
import { SLOT_TABLE_BYTES, STATE_BYTES } from '../residual/rans-tables.js';

/** Words of a segment at most, and columns of a matrix. */
export const SEGMENT_WORDS = 1 << 20;
const SLACK = 1024;

export const layout = (() => {
  let at = 65536;
  const take = (bytes: number): number => {
    const start = at;
    at += Math.ceil((bytes + SLACK) / 64) * 64;
    return start;
  };
  const n = SEGMENT_WORDS;
  return {
    words: take(4 * n),
    high: take(2 * n),
    low: take(2 * n),
    mask: take(n),
    columnClasses: take(n),
    rowClasses: take(n),
    columnKept: take(4 * n),
    columnSum: take(4 * n),
    rowKept: take(4 * n),
    rowSum: take(4 * n),
    tokens: take(n),
    contexts: take(n),
    raw: take(n),
    packed: take(n),
    escapes: take(2 * n),
    kept: take(2 * n),
    keptLow: take(2 * n),
    even: take(CONTEXTS * 256 * 4),
    odd: take(CONTEXTS * 256 * 4),
    map: take(CONTEXTS),
    tables: take(MAX_TABLES * SLOT_TABLE_BYTES),
    frequencies: take(512),
    fill: take(256),
    patterns: take(256),
    states: take(STATE_BYTES),
    // a symbol takes a coder word at most, and a damaged stream may read as many beyond its end
    stream: take(4 * n),
    end: at,
  };
})();

/** Where the encoder's words end: they grow downwards. */
export const STREAM_END = layout.stream + 4 * SEGMENT_WORDS;
