/** Hidden states of all sequences between two blocks: in memory, or in a file when they are larger than their share of it. */
import { unlinkSync } from 'node:fs';
import * as io from '../../formats/io.js';

export interface HiddenStates extends Disposable {
  /** Values of rows [start, start + count), each `width` long; the caller's own. */
  read(start: number, count: number): Float32Array;
  write(start: number, values: Float32Array): void;
}

/** `file`: where they go when they are larger than `memoryBytes`. */
export function hiddenStates(rows: number, width: number, memoryBytes: number, file: string): HiddenStates {
  return rows * width * 4 <= memoryBytes ? inMemory(rows, width) : inFile(width, file);
}

function inMemory(rows: number, width: number): HiddenStates {
  const all = new Float32Array(rows * width);
  return {
    read: (start, count) => all.slice(start * width, (start + count) * width),
    write: (start, values) => all.set(values, start * width),
    [Symbol.dispose]: () => undefined,
  };
}

const bytesOf = (v: Float32Array): Uint8Array => new Uint8Array(v.buffer, v.byteOffset, v.byteLength);

function inFile(width: number, file: string): HiddenStates {
  const fd = io.openWrite(file, 'w+');
  // nothing is left behind, whatever happens
  unlinkSync(file);
  return {
    read(start, count) {
      const values = new Float32Array(count * width);
      io.readFully(fd, bytesOf(values), start * width * 4, file);
      return values;
    },
    write: (start, values) => io.writeFully(fd, bytesOf(values), start * width * 4, file),
    [Symbol.dispose]: () => io.close(fd),
  };
}

/** States that are read from one file and written to another: what was there stays, so that a pass can be begun again. */
export function spooledStates(width: number, from: string | undefined, to: string | undefined): HiddenStates {
  const input = from === undefined ? undefined : io.openRead(from);
  const output = to === undefined ? undefined : io.openWrite(to, 'w+');
  return {
    read(start, count) {
      const values = new Float32Array(count * width);
      io.readFully(input!, bytesOf(values), start * width * 4, from!);
      return values;
    },
    write(start, values) {
      if (output !== undefined) io.writeFully(output, bytesOf(values), start * width * 4, to!);
    },
    [Symbol.dispose]() {
      for (const fd of [input, output]) if (fd !== undefined) io.close(fd);
    },
  };
}
