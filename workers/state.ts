/** What a thread keeps between tasks: readers that are open, methods that are created. */
import { PithError } from '../core/errors.js';
import type { Adapter } from '../formats/adapter/adapter.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { checkpointStamp } from '../formats/stamp.js';
import type { StatsFile } from '../formats/stats/file.js';
import type { DeltaFile } from '../formats/delta/file.js';
import type { PanelKernel } from '../kernels/lowrank/panel.js';
import type { OpenOptions } from './adapted-reader.js';
import { Codecs } from './codecs.js';
import type { CheckpointRef } from './messages/refs.js';
import { openAny } from './open.js';
import type { StoreObjects } from './store-objects.js';
import type { TrainSession } from './train/session.js';

export type { TaskControl } from './codecs.js';

export class WorkerState extends Codecs {
  readonly #readers = new Map<string, Promise<CheckpointReader>>();
  readonly #deltas = new Map<string, Promise<DeltaFile>>();
  readonly #stats = new Map<string, Promise<StatsFile>>();
  #panels: Promise<PanelKernel> | undefined;
  readonly #adapters = new Map<string, Promise<Adapter>>();
  #scratch = new Float32Array(0);
  /** The model that is being trained. */
  training: TrainSession | undefined;
  readonly #stores = new Map<string, Promise<StoreObjects>>();

  /** FILE_CHANGED when the files are not those that the plan saw. */
  async reader(ref: CheckpointRef, options: OpenOptions = {}): Promise<CheckpointReader> {
    const own = await this.#plainReader(ref, options);
    if (ref.replaced === undefined) return own;
    const { OverlayReader } = await import('./overlay-reader.js');
    return new OverlayReader(own, await this.reader(ref.replaced.by, options), ref.replaced.names);
  }

  async #plainReader(ref: CheckpointRef, options: OpenOptions): Promise<CheckpointReader> {
    const key = `${ref.path}\n${ref.stamp}\n${options.merged ?? ''}`;
    let reader = this.#readers.get(key);
    if (reader === undefined) {
      reader = openAny(ref.path, options);
      this.#readers.set(key, reader);
    }
    const opened = await reader;
    const got = checkpointStamp(opened);
    if (got !== ref.stamp) throw new PithError('FILE_CHANGED', { file: ref.path, expected: ref.stamp, got });
    return opened;
  }

  /** `name`: what errors call it. */
  delta(path: string, name = path): Promise<DeltaFile> {
    let file = this.#deltas.get(path);
    if (file === undefined) {
      file = import('../formats/delta/file.js').then((m) => m.DeltaFile.open(path, name));
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

  stats(path: string): Promise<StatsFile> {
    let file = this.#stats.get(path);
    if (file === undefined) {
      file = import('../formats/stats/file.js').then((m) => m.StatsFile.open(path));
      this.#stats.set(path, file);
    }
    return file;
  }

  store(path: string): Promise<StoreObjects> {
    let store = this.#stores.get(path);
    if (store === undefined) {
      store = Promise.all([import('../formats/store/folder.js'), import('./store-objects.js')]).then(([f, o]) => new o.StoreObjects(f.StoreFolder.open(path)));
      this.#stores.set(path, store);
    }
    return store;
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
}
