/** A checkpoint some of whose tensors come from another one: a model in which only part is compressed. */
import { PithError } from '../core/errors.js';
import { sameShape } from '../core/shape.js';
import type { TensorInfo, TensorView } from '../core/tensor.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { readerFolder } from '../formats/open-checkpoint.js';

/** Shapes must agree (SHAPE_MISMATCH, 65); types may differ. Both readers stay their owner's. */
export class OverlayReader implements CheckpointReader {
  readonly source: string;
  readonly infos: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly files = [];
  readonly #names: ReadonlySet<string>;

  constructor(
    private readonly under: CheckpointReader,
    private readonly over: CheckpointReader,
    names: Iterable<string>,
  ) {
    this.source = under.source;
    this.metadata = under.metadata;
    this.#names = new Set(names);
    this.infos = new Map([...under.infos].map(([name, info]) => [name, this.#names.has(name) ? this.#replacement(info) : info]));
  }

  #replacement({ name, shape }: TensorInfo): TensorInfo {
    const info = this.over.infos.get(name);
    if (info === undefined) throw new PithError('TENSOR_MISSING', { file: this.over.source, tensor: name });
    if (sameShape(info.shape, shape)) return info;
    throw new PithError('SHAPE_MISMATCH', { file: this.over.source, tensor: name, expected: `[${shape.join(', ')}]`, got: `[${info.shape.join(', ')}]` });
  }

  #of(name: string): CheckpointReader {
    return this.#names.has(name) ? this.over : this.under;
  }

  read(name: string, rows?: readonly [start: number, end: number]): Promise<TensorView> {
    return this.#of(name).read(name, rows);
  }

  readInto(name: string, begin: number, target: Uint8Array): Promise<void> {
    return this.#of(name).readInto(name, begin, target);
  }

  sideFolder(): Promise<string | undefined> {
    return readerFolder(this.under);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // both belong to others
  }
}
