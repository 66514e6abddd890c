/** A file whose size and layout are known: written under a temp name in any order, seen under its own only when whole. */
import { dirname, resolve } from 'node:path';
import { PithError } from '../../core/errors.js';
import * as io from '../io.js';

export class PlannedFile {
  readonly path: string;
  readonly tempPath: string;
  #fd: number | undefined;

  private constructor(path: string, tempPath: string, fd: number) {
    this.path = path;
    this.tempPath = tempPath;
    this.#fd = fd;
  }

  /** OUTPUT_EXISTS unless `force`; the temp file is made at its full size. */
  static create(path: string, fileBytes: number, options: { readonly force?: boolean } = {}): PlannedFile {
    const full = resolve(path);
    if (options.force !== true && io.stat(full) !== undefined) throw new PithError('OUTPUT_EXISTS', { file: path });
    const tempPath = io.tempPath(full);
    const fd = io.openWrite(tempPath, 'wx');
    const file = new PlannedFile(full, tempPath, fd);
    try {
      io.truncate(fd, fileBytes, tempPath);
    } catch (error) {
      file.abort();
      throw error;
    }
    return file;
  }

  write(position: number, bytes: Uint8Array): void {
    if (this.#fd === undefined) throw new PithError('INTERNAL', { message: 'write after the end' });
    io.writeFully(this.#fd, bytes, position, this.tempPath);
  }

  /** Data on disk, still under the temp name: all files of a set are synced before the first is renamed. */
  sync(): void {
    if (this.#fd === undefined) return;
    io.fsync(this.#fd, this.tempPath);
    io.close(this.#fd);
    this.#fd = undefined;
  }

  finalize(): void {
    try {
      this.sync();
      io.rename(this.tempPath, this.path);
    } catch (error) {
      this.abort();
      throw error;
    }
    io.fsyncDir(dirname(this.path));
  }

  abort(): void {
    if (this.#fd !== undefined) io.close(this.#fd);
    this.#fd = undefined;
    io.remove(this.tempPath);
  }
}
