/** A decoded tensor that is read again: in memory when small, else in a temporary file without a name. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TensorInfo } from '../core/tensor.js';
import { byteLength } from '../core/shape.js';
import * as io from '../formats/io.js';
import type { TensorSink, TensorSource } from '../methods/kinds.js';

const MEMORY_BYTES = 8 << 20;

export class Scratch implements TensorSource, TensorSink, Disposable {
  readonly name: string;
  readonly dtype: TensorInfo['dtype'];
  readonly shape: readonly number[];
  readonly byteLength: number;
  readonly #memory: Uint8Array | undefined;
  #file: { readonly fd: number; readonly path: string } | undefined;

  constructor(info: TensorInfo) {
    this.name = info.name;
    this.dtype = info.dtype;
    this.shape = info.shape;
    this.byteLength = byteLength(info.dtype, info.shape);
    if (this.byteLength <= MEMORY_BYTES) {
      this.#memory = new Uint8Array(this.byteLength);
      return;
    }
    const path = io.tempPath(join(tmpdir(), 'pith-decoded'));
    this.#file = { fd: io.openWrite(path, 'wx+'), path };
    // a killed process leaves nothing; where an open file cannot be removed, dispose does it
    if (process.platform !== 'win32') io.remove(path);
  }

  async write(position: number, bytes: Uint8Array): Promise<void> {
    if (this.#memory !== undefined) this.#memory.set(bytes, position);
    else io.writeFully(this.#file!.fd, bytes, position, this.#file!.path);
  }

  async readInto(begin: number, target: Uint8Array): Promise<void> {
    if (this.#memory !== undefined) target.set(this.#memory.subarray(begin, begin + target.length));
    else io.readFully(this.#file!.fd, target, begin, this.#file!.path);
  }

  [Symbol.dispose](): void {
    if (this.#file === undefined) return;
    io.close(this.#file.fd);
    if (process.platform === 'win32') io.remove(this.#file.path);
    this.#file = undefined;
  }
}
