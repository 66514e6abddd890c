/** The parts of one tensor while it is coded: one file each beside the journal, hashed when they are whole. */
import { createHash } from 'node:crypto';
import type { DType } from '../core/dtype.js';
import { PithError } from '../core/errors.js';
import { byteLength } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import * as io from '../formats/io.js';
import type { PartSink, PartSource } from '../methods/kinds.js';
import type { SpooledPart } from './messages/refs.js';
import { panelBuffer } from '../core/panel-buffer.js';

interface OpenPart {
  readonly fd: number;
  readonly file: string;
  bytes: number;
  info?: TensorInfo;
}

export class SpoolParts {
  readonly #parts = new Map<string, OpenPart>();

  /** `spool`: path without the part's name. */
  constructor(private readonly spool: string) {}

  prefixed(prefix: string): PartSink {
    return {
      write: async (part, position, bytes) => {
        const open = this.#open(prefix + part);
        io.writeFully(open.fd, bytes, position, open.file);
        open.bytes = Math.max(open.bytes, position + bytes.length);
      },
      declare: (part, dtype, shape) => this.#declare(prefix + part, dtype, shape),
    };
  }

  #open(part: string): OpenPart {
    let open = this.#parts.get(part);
    if (open === undefined) {
      const file = spoolFile(this.spool, part);
      open = { fd: io.openWrite(file, 'w+'), file, bytes: 0 };
      this.#parts.set(part, open);
    }
    return open;
  }

  #declare(part: string, dtype: DType, shape: readonly number[]): void {
    const open = this.#open(part);
    const expected = byteLength(dtype, shape);
    if (expected !== open.bytes) throw new PithError('WRITER_BYTES', { file: open.file, tensor: part, expected, got: open.bytes });
    open.info = { name: part, dtype, shape };
  }

  /** Forgets the parts of a piece that needs none. */
  drop(prefix: string): void {
    for (const [part, open] of this.#parts) {
      if (!part.startsWith(prefix)) continue;
      io.close(open.fd);
      io.remove(open.file);
      this.#parts.delete(part);
    }
  }

  /** What was written so far, to decode it again. */
  source(prefix: string): PartSource {
    const at = (part: string): OpenPart => this.#parts.get(prefix + part) ?? missing(part);
    return {
      info: (part) => at(part).info ?? missing(part),
      read: async (part, begin = 0, end = at(part).bytes) => {
        const bytes = new Uint8Array(end - begin);
        io.readFully(at(part).fd, bytes, begin, at(part).file);
        return bytes;
      },
      readInto: async (part, begin, target) => io.readFully(at(part).fd, target, begin, at(part).file),
    };
  }

  /** Hashes every part as it lies in its file. */
  finish(): SpooledPart[] {
    return [...this.#parts].map(([part, open]) => {
      const info = open.info ?? missing(part);
      return { part, dtype: info.dtype, shape: info.shape, bytes: open.bytes, sha256: hashFile(open) };
    });
  }

  close(): void {
    for (const open of this.#parts.values()) io.close(open.fd);
    this.#parts.clear();
  }
}

function hashFile(open: OpenPart): string {
  const hash = createHash('sha256');
  const buffer = panelBuffer(open.bytes);
  for (let at = 0; at < open.bytes; at += buffer.length) {
    const piece = buffer.subarray(0, Math.min(buffer.length, open.bytes - at));
    io.readFully(open.fd, piece, at, open.file);
    hash.update(piece);
  }
  return hash.digest('hex');
}

function missing(part: string): never {
  throw new PithError('INTERNAL', { message: `part "${part}" was not declared` });
}

/** Where the part of a tensor lies until the result is put together. */
export function spoolFile(spool: string, part: string): string {
  return `${spool}.${part}`;
}
