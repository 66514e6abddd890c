import type { HashResult, HashTask } from '../messages/delta.js';
import { HashingSource } from '../sources.js';
import type { TaskControl, WorkerState } from '../state.js';

/** SHA-256 of one stored tensor. */
export async function hash(state: WorkerState, task: HashTask, control: TaskControl): Promise<HashResult> {
  const source = new HashingSource(await state.reader(task.tensor.checkpoint), task.tensor.name);
  const sha256 = await source.digest(control.checkpointCancel);
  control.report(source.byteLength);
  return { sha256 };
}
