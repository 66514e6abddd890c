/** Files and parts of files that tasks leave for later ones, with a CRC-32 that tells a torn one. */
import { crc32 } from 'node:zlib';
import { panelBuffer } from '../core/panel-buffer.js';
import * as io from '../formats/io.js';
import type { FilePlace, Written } from './messages/refs.js';

/** Writes pieces one after the other, from a place on in a file that is there. */
export class PlaceWriter implements Disposable {
  readonly #fd: number;
  #bytes = 0;
  #crc = 0;

  constructor(private readonly place: FilePlace) {
    this.#fd = io.openWrite(place.file, 'r+');
  }

  write(values: Float32Array | BigInt64Array | Uint8Array): void {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    io.writeFully(this.#fd, bytes, this.place.position + this.#bytes, this.place.file);
    this.#bytes += bytes.length;
    this.#crc = crc32(bytes, this.#crc);
  }

  get written(): Written {
    return { bytes: this.#bytes, crc32: this.#crc };
  }

  [Symbol.dispose](): void {
    io.close(this.#fd);
  }
}

/** All of it at once. */
export function writePlace(place: FilePlace, bytes: Uint8Array): Written {
  using writer = new PlaceWriter(place);
  writer.write(bytes);
  return writer.written;
}

/** What lies there now, or undefined when the file is shorter. */
export function readWritten({ file, position }: FilePlace, bytes: number): Written | undefined {
  const s = io.stat(file);
  if (s === undefined || s.bytes < position + bytes) return undefined;
  const fd = io.openRead(file);
  try {
    let crc = 0;
    const buffer = panelBuffer(bytes);
    for (let at = 0; at < bytes; at += buffer.length) {
      const piece = buffer.subarray(0, Math.min(buffer.length, bytes - at));
      io.readFully(fd, piece, position + at, file);
      crc = crc32(piece, crc);
    }
    return { bytes, crc32: crc };
  } finally {
    io.close(fd);
  }
}

/** A whole file. */
export function writtenFile(file: string): Written {
  return readWritten({ file, position: 0 }, io.stat(file)!.bytes)!;
}
