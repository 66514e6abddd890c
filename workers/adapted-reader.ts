/** A base with an adapter applied, as a checkpoint: changed tensors are merged when they are read, one at a time. */
import { join } from 'node:path';
import { PithError } from '../core/errors.js';
import { byteLength } from '../core/shape.js';
import type { TensorInfo, TensorView } from '../core/tensor.js';
import { Adapter } from '../formats/adapter/adapter.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import * as io from '../formats/io.js';
import { readJson } from '../formats/json.js';
import { readerConfigFolder, readerFolder } from '../formats/open-checkpoint.js';
import { rowSlice } from '../formats/row-slice.js';
import { checkpointStamp } from '../formats/stamp.js';
import { PanelKernel } from '../kernels/lowrank/panel.js';
import { modelConfig, type ModelConfig } from '../models/modules.js';
import { planFuse, type FusedTensor } from './fuse-plan.js';
import { mergeTensor } from './merge-tensor.js';

export interface OpenOptions {
  /** Type of the tensors that an adapter changes; the base's where absent. Running a model wants what peft computes, which rounds nothing. */
  readonly merged?: 'F32';
}

const BUFFER_BYTES = 4 << 20;

/** The model's config.json, or nothing beside a bare file. */
export async function readModelConfig(reader: CheckpointReader): Promise<ModelConfig> {
  const folder = await readerFolder(reader);
  const file = folder === undefined ? undefined : join(folder, 'config.json');
  if (file === undefined || io.stat(file) === undefined) return modelConfig(undefined);
  return modelConfig(readJson(file, (message) => new PithError('NOT_A_CHECKPOINT', { file, message })));
}

export class AdaptedReader implements CheckpointReader {
  readonly infos: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly files = [];
  readonly #tensors: ReadonlyMap<string, FusedTensor>;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #kernel: Promise<PanelKernel> | undefined;
  /** The tensor that was merged last; reads wait for each other, as the kernel holds one product at a time. */
  #last: Promise<{ readonly name: string; readonly bytes: Uint8Array }> = Promise.resolve({ name: '', bytes: new Uint8Array(0) });

  /** ADAPTER_BASE (65) when the adapter does not fit. */
  constructor(
    readonly source: string,
    private readonly base: CheckpointReader,
    private readonly adapter: Adapter,
    config: ModelConfig,
    { merged }: OpenOptions,
  ) {
    const plan = planFuse(base, adapter, config, undefined);
    const exact = (t: FusedTensor): FusedTensor => (merged === undefined || t.module === undefined ? t : { ...t, info: { ...t.info, dtype: merged } });
    const tensors = plan.tensors.map(exact);
    this.#tensors = new Map(tensors.map((t) => [t.info.name, t]));
    this.infos = new Map(tensors.map((t) => [t.info.name, t.info]));
    this.metadata = base.metadata;
  }

  #tensor(name: string): FusedTensor {
    const t = this.#tensors.get(name);
    if (t === undefined) throw new PithError('TENSOR_MISSING', { file: this.source, tensor: name });
    return t;
  }

  configFolder(): Promise<string | undefined> {
    return readerConfigFolder(this.base);
  }

  stamp(): string {
    const files = ['adapter_config.json', 'adapter_model.safetensors'].map((name) => {
      const { bytes, mtimeMs } = io.stat(join(this.adapter.folder, name)) ?? { bytes: 0, mtimeMs: 0 };
      return `${name}:${bytes}:${mtimeMs}`;
    });
    return `${checkpointStamp(this.base)}+${files.join('+')}`;
  }

  async read(name: string, rows?: readonly [start: number, end: number]): Promise<TensorView> {
    const { info } = this.#tensor(name);
    const slice = rowSlice(info, rows, this.source);
    const bytes = new Uint8Array(slice.bytes);
    await this.readInto(name, slice.begin, bytes);
    return { ...info, shape: slice.shape, bytes };
  }

  async readInto(name: string, begin: number, target: Uint8Array): Promise<void> {
    const t = this.#tensor(name);
    if (t.module === undefined && t.saved === undefined) return this.base.readInto(t.base, begin, target);
    const last = this.#last.catch(() => undefined);
    this.#last = last.then(async (kept) => (kept?.name === name ? kept : { name, bytes: await this.#merge(t) }));
    const { bytes } = await this.#last;
    target.set(bytes.subarray(begin, begin + target.length));
  }

  async #merge(t: FusedTensor): Promise<Uint8Array> {
    const { info, base: name, ...change } = t;
    const out = new Uint8Array(byteLength(info.dtype, info.shape));
    await mergeTensor(
      { ...change, name, dtype: info.dtype },
      {
        base: this.base,
        adapter: this.adapter,
        kernel: () => (this.#kernel ??= PanelKernel.create()),
        buffer: (bytes) => this.#buffer.subarray(0, Math.min(BUFFER_BYTES, bytes)),
        write: (at, bytes) => out.set(bytes, at),
        control: { report: () => undefined, checkpointCancel: () => undefined },
      },
    );
    return out;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.adapter[Symbol.dispose]();
    await this.base[Symbol.asyncDispose]();
  }
}

/** `BASE+ADAPTER_DIR`. The base is closed when the adapter cannot be applied. */
export async function openAdapted(argument: string, base: CheckpointReader, folder: string, options: OpenOptions): Promise<CheckpointReader> {
  let adapter: Adapter | undefined;
  try {
    adapter = Adapter.open(folder);
    return new AdaptedReader(argument, base, adapter, await readModelConfig(base), options);
  } catch (error) {
    adapter?.[Symbol.dispose]();
    await base[Symbol.asyncDispose]();
    throw error;
  }
}
