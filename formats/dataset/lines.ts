/** A file's lines one after another, so that a data set of any size takes the memory of its longest line. */
import { PithError } from '../../core/errors.js';
import * as io from '../io.js';

export interface Line {
  /** From 1. */
  readonly number: number;
  readonly text: string;
}

const CHUNK_BYTES = 1 << 20;
const NEWLINE = 10;

/** Without the line ends (\n or \r\n) and a byte order mark. DATASET_UTF8 (65) with the line's number. */
export function* readLines(file: string, chunkBytes = CHUNK_BYTES): Generator<Line> {
  const fd = io.openRead(file);
  try {
    const { bytes } = io.fstat(fd, file);
    // what of a line came with earlier chunks
    let parts: Uint8Array[] = [];
    let number = 0;
    for (let position = 0; position < bytes; position += chunkBytes) {
      const chunk = new Uint8Array(Math.min(chunkBytes, bytes - position));
      io.readFully(fd, chunk, position, file);
      let begin = 0;
      for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, begin)) {
        yield line([...parts, chunk.subarray(begin, end)], ++number, file);
        parts = [];
        begin = end + 1;
      }
      if (begin < chunk.length) parts.push(chunk.subarray(begin));
    }
    if (parts.length > 0) yield line(parts, ++number, file);
  } finally {
    io.close(fd);
  }
}

function line(parts: readonly Uint8Array[], number: number, file: string): Line {
  const text = decodeUtf8(parts.length === 1 ? parts[0]! : Buffer.concat(parts), file, `line ${number}`);
  return { number, text: text.endsWith('\r') ? text.slice(0, -1) : text };
}

/** DATASET_UTF8 (65). A byte order mark at the start is dropped. */
export function decodeUtf8(bytes: Uint8Array, file: string, place: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new PithError('DATASET_UTF8', { file, place }, { cause });
  }
}
