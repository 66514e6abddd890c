/** What a thread keeps between tasks: readers that are open, methods that are created. */
import { PithError } from '../core/errors.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { checkpointStamp } from '../formats/stamp.js';
import type { DeltaFile } from '../formats/delta/file.js';
import type { PanelKernel } from '../kernels/lowrank/panel.js';
import { Codecs } from './codecs.js';
import type { CheckpointRef } from './messages.js';
import { openAny } from './open.js';
import type { StoreObjects } from './store-objects.js';

export type { TaskControl } from './codecs.js';

export class WorkerState extends Codecs {
  readonly #readers = new Map<string, Promise<CheckpointReader>>();
  readonly #deltas = new Map<string, Promise<DeltaFile>>();
  #panels: Promise<PanelKernel> | undefined;
  readonly #stores = new Map<string, Promise<StoreObjects>>();

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
}
