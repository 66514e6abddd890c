/** Decodes one object of a store into the files that hold it, or only proves it. */
import { PithError } from '../../core/errors.js';
import * as io from '../../formats/io.js';
import type { StoreGetResult, StoreGetTask } from '../messages.js';
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
    await store.decode(task.object, () => (open.length === 0 ? undefined : { write }), control);
    return {};
  } catch (error) {
    if (!task.lenient || !(error instanceof PithError) || error.exitCode !== 65) throw error;
    return { damaged: { file: String(error.details['file'] ?? ''), message: error.message } };
  } finally {
    for (const t of open) io.close(t.fd);
  }
}
