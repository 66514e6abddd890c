/**
 * A checkpoint with two linear layers in place of one, as the dense model: factors are multiplied when their weight is read, in f32 and a fixed order
 * (kernels/lowrank/panel.ts), and rounded once, so that its bytes and its content hash are the same on every machine.
 */
import { PithError } from '../core/errors.js';
import { decodeF32 } from '../core/float.js';
import { byteLength } from '../core/shape.js';
import type { TensorInfo, TensorView } from '../core/tensor.js';
import type { CheckpointFile, CheckpointReader, StoredForm } from '../formats/checkpoint.js';
import { withoutFields } from '../formats/config-fields.js';
import {
  denseView,
  METADATA_KEY,
  RANKS_KEY,
  readSection,
  SECTION_KEY,
  type DenseView,
  type FactoredWeight,
  type FactorizedSection,
} from '../formats/factorized.js';
import * as io from '../formats/io.js';
import { rowSlice } from '../formats/row-slice.js';
import { asOneFile } from '../formats/safetensors/one-file.js';
import { checkpointStamp } from '../formats/stamp.js';
import { transposed } from '../kernels/linalg/matrix-ops.js';
import { factorProduct } from '../kernels/lowrank/factor-product.js';
import { isDense, PanelKernel } from '../kernels/lowrank/panel.js';
import type { OpenOptions } from './adapted-reader.js';
import { copySideFiles } from './side-copies.js';

export class FactorizedReader implements CheckpointReader {
  readonly source: string;
  readonly infos: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly warnings: readonly string[];
  readonly #view: DenseView;
  readonly #section: FactorizedSection | undefined;
  #kernel: Promise<PanelKernel> | undefined;
  #file: CheckpointFile | undefined;
  #folder: string | undefined;
  #sides: Promise<string | undefined> | undefined;
  /** The weight that was multiplied last; reads wait for each other, as the kernel holds one product at a time. */
  #last: Promise<{ readonly name: string; readonly bytes: Uint8Array }> = Promise.resolve({ name: '', bytes: new Uint8Array(0) });

  /** FACTORIZED_MALFORMED or DTYPE_UNSUPPORTED (65). Owns `parts` from then on. */
  constructor(
    readonly parts: CheckpointReader,
    { merged }: OpenOptions,
  ) {
    this.source = parts.source;
    this.#section = readSection(parts.metadata, parts.source);
    this.#view = denseView(parts.infos, this.#section, parts.source);
    for (const { a } of this.#view.weights.values()) {
      if (!isDense(a.dtype))
        throw new PithError('DTYPE_UNSUPPORTED', { file: parts.source, tensor: a.name, got: a.dtype, message: 'factors are BF16, F16 or F32' });
    }
    const running = (info: TensorInfo): TensorInfo => (merged !== undefined && this.#view.weights.has(info.name) ? { ...info, dtype: merged } : info);
    this.infos = new Map([...this.#view.infos].map(([name, info]) => [name, running(info)]));
    this.metadata = Object.fromEntries(Object.entries(parts.metadata).filter(([key]) => key !== METADATA_KEY));
    this.warnings = parts.warnings ?? [];
  }

  /** Modules and their factors, by the names of their weights. */
  get weights(): ReadonlyMap<string, FactoredWeight> {
    return this.#view.weights;
  }

  get files(): readonly CheckpointFile[] {
    this.#file ??= asOneFile(this.infos.values(), this.parts.files[0]!.path, this.source);
    return [this.#file];
  }

  get stored(): StoredForm {
    const tensors = new Map<string, { name: string; type: string; bytes: number }>();
    for (const { info, rank, a, b } of this.#view.weights.values()) {
      const bytes = byteLength(a.dtype, a.shape) + byteLength(b.dtype, b.shape);
      tensors.set(info.name, { name: `rank ${rank}`, type: `${a.dtype} factors`, bytes });
    }
    for (const [name, info] of this.#view.infos) {
      if (!tensors.has(name)) tensors.set(name, { name: this.#view.renamed.get(name) ?? name, type: info.dtype, bytes: byteLength(info.dtype, info.shape) });
    }
    const files = this.parts.files.map(({ name, bytes, order }) => ({ name, bytes, tensors: order.length }));
    const facts = { layers: this.#view.weights.size, ...(this.#section === undefined ? {} : { method: this.#section.method }) };
    return { format: 'factorized', files, facts, tensors };
  }

  stamp(): string {
    return checkpointStamp(this.parts);
  }

  async read(name: string, rows?: readonly [start: number, end: number]): Promise<TensorView> {
    const info = this.#info(name);
    const slice = rowSlice(info, rows, this.source);
    const bytes = new Uint8Array(slice.bytes);
    await this.readInto(name, slice.begin, bytes);
    return { ...info, shape: slice.shape, bytes };
  }

  #info(name: string): TensorInfo {
    const info = this.infos.get(name);
    if (info === undefined) throw new PithError('TENSOR_MISSING', { file: this.source, tensor: name });
    return info;
  }

  async readInto(name: string, begin: number, target: Uint8Array): Promise<void> {
    const info = this.#info(name);
    const weight = this.#view.weights.get(name);
    if (weight === undefined) return this.parts.readInto(this.#view.renamed.get(name) ?? name, begin, target);
    const last = this.#last.catch(() => undefined);
    this.#last = last.then(async (kept) => (kept?.name === name ? kept : { name, bytes: await this.#multiply(weight, info) }));
    const { bytes } = await this.#last;
    target.set(bytes.subarray(begin, begin + target.length));
  }

  async #multiply({ a, b, rank, transposed: flipped }: FactoredWeight, info: TensorInfo): Promise<Uint8Array> {
    const [left, right] = await Promise.all([this.parts.read(a.name), this.parts.read(b.name)]);
    const [fa, fb] = [decodeF32(left.dtype, left.bytes), decodeF32(right.dtype, right.bytes)];
    const kernel = await (this.#kernel ??= PanelKernel.create());
    const [rows, columns] = info.shape as [number, number];
    const dtype = info.dtype as 'BF16' | 'F16' | 'F32';
    return flipped
      ? factorProduct(kernel, dtype, transposed(fb, rank, rows), transposed(fa, columns, rank), rank, columns)
      : factorProduct(kernel, dtype, fa, fb, rank, columns);
  }

  /** Copies of the other files, config.json without what it says of the factors: the dense model's. */
  sideFolder(): Promise<string | undefined> {
    return (this.#sides ??= this.#copySides());
  }

  async #copySides(): Promise<string | undefined> {
    this.#folder = await copySideFiles(this.parts, (config) => withoutFields(config, [SECTION_KEY, RANKS_KEY]));
    return this.#folder;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#last.catch(() => undefined);
    if (this.#folder !== undefined) io.remove(this.#folder);
    await this.parts[Symbol.asyncDispose]();
  }
}

/** `parts` is closed when its factors do not fit. */
export async function openFactorized(parts: CheckpointReader, options: OpenOptions): Promise<CheckpointReader> {
  try {
    return new FactorizedReader(parts, options);
  } catch (error) {
    await parts[Symbol.asyncDispose]();
    throw error;
  }
}
