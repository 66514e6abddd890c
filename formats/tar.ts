/** A folder as an uncompressed POSIX tar stream (ustar, IEEE Std 1003.1; pax records for long names and sizes from 8 GiB). */
import { join } from 'node:path';
import * as io from './io.js';

const BLOCK = 512;
const PANEL_BYTES = 1 << 20;
const MAX_NAME_BYTES = 100;
const MAX_OCTAL_SIZE = 8 ** 11;

function header(name: string, bytes: number, type: '0' | 'x'): Buffer {
  const block = Buffer.alloc(BLOCK);
  block.write(name, 0, MAX_NAME_BYTES, 'utf8');
  block.write('0000644\0' + '0000000\0' + '0000000\0', 100, 'latin1');
  block.write(`${(bytes % MAX_OCTAL_SIZE).toString(8).padStart(11, '0')}\0${'0'.repeat(11)}\0`, 124, 'latin1');
  block.write(`        ${type}`, 148, 'latin1');
  block.write('ustar\u000000', 257, 'latin1');
  const sum = block.reduce((a, b) => a + b, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** One `length key=value\n` record; the length counts itself. */
function record(key: string, value: string): string {
  const rest = Buffer.byteLength(` ${key}=${value}\n`);
  let length = rest + String(rest).length;
  if (String(length).length !== String(rest).length) length++;
  return `${length} ${key}=${value}\n`;
}

const padding = (bytes: number): Buffer => Buffer.alloc((BLOCK - (bytes % BLOCK)) % BLOCK);

/** `names`: files below `folder`, `/`-separated; times are zero, so that the same files give the same stream. */
export async function* tarFolder(folder: string, names: readonly string[]): AsyncGenerator<Uint8Array> {
  for (const name of names) {
    const path = join(folder, name);
    const fd = io.openRead(path);
    try {
      const { bytes } = io.fstat(fd, path);
      const long = Buffer.byteLength(name) > MAX_NAME_BYTES ? record('path', name) : '';
      const pax = Buffer.from(long + (bytes >= MAX_OCTAL_SIZE ? record('size', String(bytes)) : ''), 'utf8');
      if (pax.length > 0) yield Buffer.concat([header('pax', pax.length, 'x'), pax, padding(pax.length)]);
      yield header(name, bytes, '0');
      for (let at = 0; at < bytes; at += PANEL_BYTES) {
        const panel = new Uint8Array(Math.min(PANEL_BYTES, bytes - at));
        io.readFully(fd, panel, at, path);
        yield panel;
      }
      yield padding(bytes);
    } finally {
      io.close(fd);
    }
  }
  yield Buffer.alloc(2 * BLOCK);
}
