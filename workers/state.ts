/** What a thread keeps between tasks: readers that are open, methods that are created. */
import { PithError } from '../core/errors.js';
import { Rng } from '../core/rng.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { checkpointStamp } from '../formats/stamp.js';
import type { Adapter } from '../formats/adapter/adapter.js';
import type { DeltaFile } from '../formats/delta/file.js';
import { loadMethod } from '../methods/index.js';
import type { PanelKernel } from '../kernels/lowrank/panel.js';
import type { Ctx } from '../methods/define.js';
import type { DeltaCodec } from '../methods/kinds.js';
import type { CheckpointRef, MethodRef, RunSettings } from './messages.js';
import { openAny } from './open.js';

export interface TaskControl {
  readonly report: (bytes: number) => void;
  readonly checkpointCancel: () => void;
}

export class WorkerState {
  readonly #readers = new Map<string, Promise<CheckpointReader>>();
  readonly #deltas = new Map<string, Promise<DeltaFile>>();
  readonly #adapters = new Map<string, Promise<Adapter>>();
  #scratch = new Float32Array(0);
  #panels: Promise<PanelKernel> | undefined;
  readonly #codecs = new Map<string, Promise<DeltaCodec>>();

  /** FILE_CHANGED when the files are not those that the plan saw. */
  async reader(ref: CheckpointRef): Promise<CheckpointReader> {
    const key = `${ref.path}\n${ref.stamp}`;
    let reader = this.#readers.get(key);
    if (reader === undefined) {
      reader = openAny(ref.path);
      this.#readers.set(key, reader);
    }
    const opened = await reader;
    const got = checkpointStamp(opened);
    if (got !== ref.stamp) throw new PithError('FILE_CHANGED', { file: ref.path, expected: ref.stamp, got });
    return opened;
  }

  delta(path: string): Promise<DeltaFile> {
    let file = this.#deltas.get(path);
    if (file === undefined) {
      file = import('../formats/delta/file.js').then((m) => m.DeltaFile.open(path));
      this.#deltas.set(path, file);
    }
    return file;
  }

  adapter(folder: string): Promise<Adapter> {
    let adapter = this.#adapters.get(folder);
    if (adapter === undefined) {
      adapter = import('../formats/adapter/adapter.js').then((m) => m.Adapter.open(folder));
      this.#adapters.set(folder, adapter);
    }
    return adapter;
  }

  codec(ref: MethodRef): Promise<DeltaCodec> {
    const key = JSON.stringify([ref.name, ref.params]);
    let codec = this.#codecs.get(key);
    if (codec === undefined) {
      codec = loadMethod('delta', ref.name).then((m) => m.create(ref.params));
      this.#codecs.set(key, codec);
    }
    return codec;
  }

  /** The thread's kernel for deltas in panels. */
  panels(): Promise<PanelKernel> {
    this.#panels ??= import('../kernels/lowrank/panel.js').then((m) => m.PanelKernel.create());
    return this.#panels;
  }

  /** A matrix of the thread, valid until the next call: a new one for every tensor would pile up until the next collection. */
  scratch(values: number): Float32Array {
    const { length } = this.#scratch;
    if (length < values || length > 4 * values + (1 << 20)) this.#scratch = new Float32Array(values);
    return this.#scratch.subarray(0, values);
  }

  /** The stream is named by the seed and the tensor, never by the thread. */
  ctx(settings: RunSettings, tensor: string, control: TaskControl): Ctx {
    return {
      device: settings.device,
      rng: new Rng(settings.seed).fork(tensor),
      blasThreads: settings.blasThreads,
      memoryBytes: settings.memoryBytes,
      report: control.report,
      checkpointCancel: control.checkpointCancel,
    };
  }
}
