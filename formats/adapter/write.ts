/** Writes an adapter's folder: full copies while the factors are still computed, then the factors, then the header. */
import { join } from 'node:path';
import { PithError } from '../../core/errors.js';
import { panelBuffer } from '../../core/panel-buffer.js';
import { byteLength } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import * as io from '../io.js';
import { buildHeader, compareUtf8 } from '../safetensors/layout.js';
import { ADAPTER_FILE, CONFIG_FILE } from './adapter.js';

/** Where a tensor's bytes lie before they are put together. */
export interface SpooledTensor extends TensorInfo {
  readonly file: string;
  readonly position: number;
}

const METADATA = { format: 'pt' };
const byName = <T extends TensorInfo>(infos: readonly T[]): T[] => [...infos].sort((a, b) => compareUtf8(a.name, b.name));

export class AdapterWriter {
  readonly path: string;
  readonly #fd: number;
  readonly #headerBytes: number;
  readonly #saved: readonly TensorInfo[];
  #at: number;

  /** `saved`: the full copies; `planned`: factors at their largest. The header's place is kept free for both. */
  constructor(
    readonly folder: string,
    saved: readonly TensorInfo[],
    planned: readonly TensorInfo[],
    fileName = ADAPTER_FILE,
  ) {
    io.mkdir(folder);
    this.path = join(folder, fileName);
    this.#saved = byName(saved);
    this.#headerBytes = headerBytes(saved, planned, this.path);
    this.#at = this.#headerBytes;
    this.#fd = io.openWrite(this.path, 'wx');
  }

  /** Full copies, in the order of their names. */
  async writeSaved(read: (info: TensorInfo, begin: number, target: Uint8Array) => Promise<void>): Promise<void> {
    for (const info of this.#saved) {
      const bytes = byteLength(info.dtype, info.shape);
      for (let at = 0; at < bytes;) {
        const piece = panelBuffer(bytes - at, 'adapter copy');
        await read(info, at, piece);
        this.#append(piece);
        at += piece.length;
      }
    }
    if (this.#saved.length > 0) await io.flushEarly(this.#fd, this.path);
  }

  #append(bytes: Uint8Array): void {
    io.writeFully(this.#fd, bytes, this.#at, this.path);
    this.#at += bytes.length;
  }

  /** Factors behind the copies, the header before them; on disk when it returns. Bytes of the file. */
  finish(factors: readonly SpooledTensor[], config: string, extra: Readonly<Record<string, string>> = {}): number {
    const sorted = byName(factors);
    const { header } = buildHeader([...this.#saved, ...sorted], METADATA, this.path, { padTo: this.#headerBytes });
    if (header.length !== this.#headerBytes) throw new PithError('INTERNAL', { message: `${this.path}: the header outgrew its place` });
    for (const f of sorted) {
      const bytes = new Uint8Array(byteLength(f.dtype, f.shape));
      const fd = io.openRead(f.file);
      try {
        io.readFully(fd, bytes, f.position, f.file);
      } finally {
        io.close(fd);
      }
      this.#append(bytes);
    }
    io.writeFully(this.#fd, header, 0, this.path);
    io.fsync(this.#fd, this.path);
    for (const [name, text] of Object.entries({ [CONFIG_FILE]: config, ...extra })) {
      io.writeFileDurably(join(this.folder, name), Buffer.from(text, 'utf8'));
    }
    return this.#at;
  }

  close(): void {
    io.close(this.#fd);
  }
}

/** Bytes that the header takes at most: smaller or fewer factors need no more. */
export function headerBytes(saved: readonly TensorInfo[], factors: readonly TensorInfo[], file: string): number {
  return buildHeader([...byName(saved), ...byName(factors)], METADATA, file).header.length;
}
