/** Whole matrices of levels through the coder, panel by panel. */
import { PithError } from '../../core/errors.js';
import { LevelCoder } from './coder.js';

/** levels: (rows, columns). */
export async function writeRows(
  coder: LevelCoder,
  levels: Int16Array,
  columns: number,
  put: (bytes: Uint8Array) => Promise<void>,
  between: () => void,
): Promise<void> {
  const encoder = coder.encoder(columns);
  const panel = LevelCoder.panelRows(columns) * columns;
  for (let at = 0; at < levels.length; at += panel) {
    between();
    await put(encoder.rows(levels.subarray(at, at + panel)));
  }
  await put(encoder.end());
}

/** Bytes [from, to) of a stream, counted from its start. */
export type ReadRange = (from: number, to: number) => Promise<Uint8Array>;

/** A stream of `bytes` bytes as what a decoder reads. */
export function pull(read: ReadRange, bytes: number): (target: Uint8Array) => Promise<number> {
  let at = 0;
  return async (target) => {
    const n = Math.min(target.length, bytes - at);
    if (n > 0) target.set(await read(at, at + n));
    at += n;
    return n;
  };
}

/** (rows, columns). LEVELS_MALFORMED when the stream is damaged. */
export async function readRows(coder: LevelCoder, columns: number, rows: number, read: ReadRange, bytes: number, between: () => void): Promise<Int16Array> {
  if (bytes === 0 && rows * columns > 0) throw new PithError('LEVELS_MALFORMED', { message: 'an empty stream' });
  const decoder = await coder.decoder(columns, pull(read, bytes));
  const out = new Int16Array(rows * columns);
  const panel = LevelCoder.panelRows(columns);
  for (let i = 0; i < rows; i += panel) {
    between();
    const count = Math.min(panel, rows - i);
    out.set(await decoder.rows(count), i * columns);
  }
  await decoder.end();
  return out;
}
