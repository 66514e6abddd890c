/** Decodes one object of a store into the files that hold it, or only proves it. */
import { PithError } from '../../core/errors.js';
import type { TensorInfo } from '../../core/tensor.js';
import * as io from '../../formats/io.js';
import { requireContent } from '../../formats/store/object.js';
import type { TensorSink } from '../../methods/kinds.js';
import type { StoreGetResult, StoreGetTask } from '../messages/store.js';
import type { TaskControl, WorkerState } from '../state.js';

export async function storeGet(state: WorkerState, task: StoreGetTask, control: TaskControl): Promise<StoreGetResult> {
  const store = await state.store(task.store);
  const open = task.targets.map((t) => ({ ...t, fd: io.openWrite(t.file, 'r+') }));
  try {
    if (task.check === 'stored') {
      using object = store.open(task.object);
      object.checkAll();
      return {};
    }
    const write = async (position: number, bytes: Uint8Array): Promise<void> => {
      for (const t of open) io.writeFully(t.fd, bytes, t.position + position, t.file);
    };
    const opened = (info: TensorInfo): TensorSink | undefined => {
      if (task.expected !== undefined) requireContent(store.folder, task.object, info, task.expected);
      return open.length === 0 ? undefined : { write };
    };
    await store.decode(task.object, opened, control);
    return {};
  } catch (error) {
    if (!task.lenient || !(error instanceof PithError) || error.exitCode !== 65) throw error;
    return { damaged: { file: String(error.details['file'] ?? ''), message: error.message } };
  } finally {
    for (const t of open) io.close(t.fd);
  }
}
