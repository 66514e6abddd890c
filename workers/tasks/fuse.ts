/** One tensor of a merged checkpoint, straight to its place in the output. */
import { panelBuffer } from '../../core/panel-buffer.js';
import * as io from '../../formats/io.js';
import { mergeTensor } from '../merge-tensor.js';
import type { FuseResult, FuseTask } from '../messages/adapters.js';
import type { TaskControl, WorkerState } from '../state.js';

export async function fuse(state: WorkerState, task: FuseTask, control: TaskControl): Promise<FuseResult> {
  const adapter = task.adapter === undefined ? undefined : await state.adapter(task.adapter);
  const { file, position } = task.target;
  const fd = io.openWrite(file, 'r+');
  try {
    return await mergeTensor(
      { ...task, name: task.base.name },
      {
        base: await state.reader(task.base.checkpoint),
        adapter,
        kernel: () => state.panels(),
        buffer: (bytes) => panelBuffer(bytes, 'fuse'),
        write: (at, bytes) => io.writeFully(fd, bytes, position + at, file),
        control,
      },
    );
  } finally {
    io.close(fd);
  }
}
