/**
 * A base with a diff of BitDelta's release applied, as a checkpoint. What comes out is what the release's load_diff makes: the scale is
 * rounded to the weight's type before it is added, whole tensors are taken in the base's type. Nothing of it is proven: the diff names
 * no base; names, types and shapes are checked.
 */
import { basename } from 'node:path';
import { PithError } from '../core/errors.js';
import { decodeF32, encodeAs, isFloat } from '../core/float.js';
import { byteLength, matrixShape, sameShape } from '../core/shape.js';
import type { TensorInfo, TensorView } from '../core/tensor.js';
import { WORD_BITS, type BitDeltaDiff, type CodedModule } from '../formats/bitdelta.js';
import type { CheckpointFile, CheckpointReader } from '../formats/checkpoint.js';
import { withFields } from '../formats/config-fields.js';
import * as io from '../formats/io.js';
import { rowSlice } from '../formats/row-slice.js';
import { asOneFile } from '../formats/safetensors/one-file.js';
import { checkpointStamp } from '../formats/stamp.js';
import { isDense, type DenseDType } from '../kernels/lowrank/panel.js';
import type { PartSource, TensorSource } from '../methods/kinds.js';
import { findTensor } from '../models/modules.js';
import { Codecs, DECODE_SETTINGS, NO_CONTROL } from './codecs.js';
import { Scratch } from './scratch.js';
import { copySideFiles } from './side-copies.js';

/** Modules whose rows may be more or fewer: the vocabulary's. */
const VOCABULARY = /(^|\.)(embed_tokens|lm_head|wte|word_embeddings|embed_in|embed_out|shared)\.weight$/;

interface Changed {
  readonly coded?: CodedModule;
  readonly whole?: TensorInfo;
}

export class BitDeltaReader implements CheckpointReader {
  readonly infos: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly warnings: readonly string[];
  readonly #changes = new Map<string, Changed>();
  readonly #codecs = new Codecs();
  #vocabulary: number | undefined;
  #file: CheckpointFile | undefined;
  #last: { readonly name: string; readonly tensor: Scratch } | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #folder: string | undefined;
  #sides: Promise<string | undefined> | undefined;

  /** TENSOR_MISSING, SHAPE_MISMATCH or DTYPE_UNSUPPORTED (65) when the diff does not fit. Owns both from then on. */
  constructor(
    readonly source: string,
    readonly base: CheckpointReader,
    readonly diff: BitDeltaDiff,
  ) {
    const infos = new Map(base.infos);
    for (const [path, module] of diff.modules) this.#changes.set(this.#coded(path, module), { coded: module });
    for (const [name, whole] of diff.whole) {
      const info = this.#whole(name, whole);
      this.#changes.set(info.name, { whole });
      infos.set(info.name, info);
    }
    this.infos = infos;
    this.metadata = base.metadata;
    this.warnings = [unproven(diff, base.source), ...(base.warnings ?? [])];
  }

  /** Every change by the name of its tensor. */
  get changes(): ReadonlyMap<string, Changed> {
    return this.#changes;
  }

  #find(name: string): TensorInfo {
    const at = name.lastIndexOf('.');
    const info = this.base.infos.get(name) ?? findTensor(this.base.infos, name.slice(0, at), name.slice(at + 1));
    if (info === undefined) throw new PithError('TENSOR_MISSING', { file: this.base.source, tensor: name });
    if (this.#changes.has(info.name)) throw new PithError('DIFF_TENSOR', { file: this.diff.path, tensor: name, message: 'it is there twice' });
    return info;
  }

  #coded(path: string, { mask }: CodedModule): string {
    const info = this.#find(`${path}.weight`);
    const [m, n] = matrixShape(info.shape);
    if (!isDense(info.dtype)) throw new PithError('DTYPE_UNSUPPORTED', { file: this.base.source, tensor: info.name, got: info.dtype, message: 'signs are added to BF16, F16 or F32' }); // prettier-ignore
    if (n % WORD_BITS === 0 && sameShape(mask.shape, [n / WORD_BITS, m])) return info.name;
    const expected = `[${n / WORD_BITS}, ${m}] for [${info.shape.join(', ')}] in ${this.base.source}`;
    throw new PithError('SHAPE_MISMATCH', { file: this.diff.path, tensor: mask.name, expected, got: `[${mask.shape.join(', ')}]` });
  }

  #whole(name: string, whole: TensorInfo): TensorInfo {
    const info = this.#find(name);
    if (info.dtype !== whole.dtype && !(isDense(info.dtype) && isFloat(whole.dtype))) {
      throw new PithError('DTYPE_UNSUPPORTED', { file: this.base.source, tensor: info.name, got: info.dtype, message: `${whole.dtype} cannot take its place` });
    }
    if (sameShape(info.shape, whole.shape)) return info;
    const grown = VOCABULARY.test(info.name) && info.shape.length === 2 && whole.shape.length === 2 && info.shape[1] === whole.shape[1];
    if (!grown) {
      const expected = `[${info.shape.join(', ')}] as in ${this.base.source}`;
      throw new PithError('SHAPE_MISMATCH', { file: this.diff.path, tensor: name, expected, got: `[${whole.shape.join(', ')}]` });
    }
    this.#vocabulary = whole.shape[0]!;
    return { ...info, shape: whole.shape };
  }

  get files(): readonly CheckpointFile[] {
    this.#file ??= asOneFile(this.infos.values(), this.diff.path, this.source);
    return [this.#file];
  }

  stamp(): string {
    const { bytes, mtimeMs } = io.stat(this.diff.path) ?? { bytes: 0, mtimeMs: 0 };
    return `${checkpointStamp(this.base)}+${basename(this.diff.path)}:${bytes}:${mtimeMs}`;
  }

  async read(name: string, rows?: readonly [start: number, end: number]): Promise<TensorView> {
    const info = this.infos.get(name) ?? this.#missing(name);
    const slice = rowSlice(info, rows, this.source);
    const bytes = new Uint8Array(slice.bytes);
    await this.readInto(name, slice.begin, bytes);
    return { ...info, shape: slice.shape, bytes };
  }

  #missing(name: string): never {
    throw new PithError('TENSOR_MISSING', { file: this.source, tensor: name });
  }

  async readInto(name: string, begin: number, target: Uint8Array): Promise<void> {
    const info = this.infos.get(name) ?? this.#missing(name);
    const change = this.#changes.get(name);
    if (change === undefined) return this.base.readInto(name, begin, target);
    if (change.whole?.dtype === info.dtype) {
      this.diff.file.readInto(change.whole.name, begin, target);
      return;
    }
    // one at a time: two readers of this reader share its coder and its last tensor
    const turn = this.#queue.then(async () => (await this.#made(info, change)).readInto(begin, target));
    this.#queue = turn.catch(() => undefined);
    await turn;
  }

  async #made(info: TensorInfo, { coded, whole }: Changed): Promise<Scratch> {
    if (this.#last?.name === info.name) return this.#last.tensor;
    this.#forget();
    const tensor = new Scratch(info);
    try {
      if (coded !== undefined) await this.#decode(info, coded, tensor);
      else await tensor.write(0, encodeAs(info.dtype as DenseDType, decodeF32(whole!.dtype, this.diff.file.read(whole!.name).bytes)));
    } catch (error) {
      tensor[Symbol.dispose]();
      throw error;
    }
    this.#last = { name: info.name, tensor };
    return tensor;
  }

  async #decode(info: TensorInfo, { mask, coeff }: CodedModule, to: Scratch): Promise<void> {
    const { file } = this.diff;
    const dtype = info.dtype as DenseDType;
    // load_diff: module.weight.add_(weight.T.to(module.weight.dtype))
    const alpha = decodeF32(dtype, encodeAs(dtype, decodeF32(coeff.dtype, file.read(coeff.name).bytes)));
    const parts: PartSource = {
      info: (part) => (part === 'mask' ? mask : { name: 'coeff', dtype: 'F32', shape: [] }),
      read: async (part) => (part === 'mask' ? file.read(mask.name).bytes : encodeAs('F32', alpha)),
      readInto: async (_, begin, target) => file.readInto(mask.name, begin, target),
    };
    const base: TensorSource = {
      ...info,
      byteLength: byteLength(info.dtype, info.shape),
      readInto: (begin, target) => this.base.readInto(info.name, begin, target),
    };
    const codec = await this.#codecs.codec({ name: 'bitdelta', params: {} });
    try {
      await codec.decode(this.#codecs.ctx(DECODE_SETTINGS, info.name, NO_CONTROL), base, parts, info, to);
    } catch (error) {
      if (!(error instanceof PithError) || error.code !== 'FACTORS_MALFORMED') throw error;
      throw new PithError('DIFF_TENSOR', { file: file.path, tensor: coeff.name, message: error.message }, { cause: error });
    }
  }

  #forget(): void {
    this.#last?.tensor[Symbol.dispose]();
    this.#last = undefined;
  }

  /** Copies of the base's other files, config.json with the new size of the vocabulary. */
  sideFolder(): Promise<string | undefined> {
    return (this.#sides ??= this.#copySides());
  }

  async #copySides(): Promise<string | undefined> {
    const fields = this.#vocabulary === undefined ? [] : [{ key: 'vocab_size', value: String(this.#vocabulary) }];
    this.#folder = await copySideFiles(this.base, (config) => withFields(config, fields));
    return this.#folder;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#queue;
    this.#forget();
    if (this.#folder !== undefined) io.remove(this.#folder);
    this.diff[Symbol.dispose]();
    await this.base[Symbol.asyncDispose]();
  }
}

/** What must be said whenever a diff of the release is used. */
export const unproven = (diff: BitDeltaDiff, base: string): string =>
  `${diff.path}: nothing is proven: a diff of BitDelta's release names no base and holds no hashes; that its names, types and shapes fit ${base} is all that was checked`;
