/** Byte-range views of stored tensors for the methods, hashed while they are read from front to back. */
import { createHash, type Hash } from 'node:crypto';
import { byteLength, rowLength } from '../core/shape.js';
import { DTYPES } from '../core/dtype.js';
import type { TensorInfo } from '../core/tensor.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import type { TensorSink, TensorSource } from '../methods/kinds.js';
import { PithError } from '../core/errors.js';
import { panelBuffer } from '../core/panel-buffer.js';

/** Up to this size a source that is read several times is read from its file once. */
const KEPT_BYTES = 4 << 20;

/** Hashes every byte once, at whichever read reaches it first in order; `digest` reads what nobody asked for. */
export class HashingSource implements TensorSource {
  readonly name: string;
  readonly dtype: TensorInfo['dtype'];
  readonly shape: readonly number[];
  readonly byteLength: number;
  readonly #hash: Hash = createHash('sha256');
  #hashed = 0;
  #kept: Uint8Array | undefined;

  constructor(
    readonly reader: CheckpointReader,
    name: string,
    /** `prefix` goes into the hash before the bytes; `keep` names the thread's buffer that holds a small tensor from its first read on. */
    private readonly options: { readonly prefix?: (info: TensorInfo) => string; readonly keep?: string } = {},
  ) {
    const info = reader.infos.get(name);
    if (info === undefined) throw new PithError('TENSOR_MISSING', { file: reader.source, tensor: name });
    this.name = name;
    this.dtype = info.dtype;
    this.shape = info.shape;
    this.byteLength = byteLength(info.dtype, info.shape);
    if (options.prefix !== undefined) this.#hash.update(options.prefix(info));
  }

  async readInto(begin: number, target: Uint8Array): Promise<void> {
    if (this.options.keep !== undefined && this.byteLength <= KEPT_BYTES) {
      if (this.#kept === undefined) {
        this.#kept = panelBuffer(this.byteLength, this.options.keep);
        await this.reader.readInto(this.name, 0, this.#kept);
        this.#hash.update(this.#kept);
        this.#hashed = this.byteLength;
      }
      target.set(this.#kept.subarray(begin, begin + target.length));
      return;
    }
    await this.reader.readInto(this.name, begin, target);
    const end = begin + target.length;
    if (begin <= this.#hashed && end > this.#hashed) {
      this.#hash.update(target.subarray(this.#hashed - begin));
      this.#hashed = end;
    }
  }

  async digest(checkpointCancel: () => void): Promise<string> {
    const buffer = this.#hashed < this.byteLength ? panelBuffer(this.byteLength - this.#hashed, 'digest') : undefined;
    while (buffer !== undefined && this.#hashed < this.byteLength) {
      checkpointCancel();
      await this.readInto(this.#hashed, buffer.subarray(0, Math.min(buffer.length, this.byteLength - this.#hashed)));
    }
    return this.#hash.digest('hex');
  }
}

/** A stored tensor as it is, hashed nowhere. */
export function sourceOf(reader: CheckpointReader, name: string): TensorSource {
  const info = reader.infos.get(name);
  if (info === undefined) throw new PithError('TENSOR_MISSING', { file: reader.source, tensor: name });
  return { ...info, byteLength: byteLength(info.dtype, info.shape), readInto: (begin, target) => reader.readInto(name, begin, target) };
}

/** Rows [start, end) of a source as a tensor of its own. */
export function rowsOf(source: TensorSource, start: number, end: number): TensorSource {
  const offset = (start * rowLength(source.shape) * DTYPES[source.dtype].bits) / 8;
  const shape = [end - start, ...source.shape.slice(1)];
  return {
    name: source.name,
    dtype: source.dtype,
    shape,
    byteLength: byteLength(source.dtype, shape),
    readInto: (begin, target) => source.readInto(offset + begin, target),
  };
}

/** Hashes what is written, in order, and passes it on. */
export class HashingSink implements TensorSink {
  readonly #hash = createHash('sha256');
  #position = 0;

  constructor(
    private readonly next?: (position: number, bytes: Uint8Array) => void,
    prefix = '',
  ) {
    this.#hash.update(prefix);
  }

  async write(position: number, bytes: Uint8Array): Promise<void> {
    if (position !== this.#position) throw new PithError('INTERNAL', { message: `a gap in a decoded tensor at ${this.#position}` });
    this.#hash.update(bytes);
    this.#position += bytes.length;
    this.next?.(position, bytes);
  }

  get bytes(): number {
    return this.#position;
  }

  digest(): string {
    return this.#hash.digest('hex');
  }
}

/** The same sink, its positions shifted: for the later rows of a tensor that is decoded in two pieces. */
export function shifted(sink: TensorSink, by: number): TensorSink {
  return { write: (position, bytes) => sink.write(position + by, bytes) };
}
