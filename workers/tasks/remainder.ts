/** Codes the remainder of one tensor, losslessly, against what its lossy delta restores to. */
import { PithError } from '../../core/errors.js';
import { decodeLossy, halved, REMAINDER_PART } from '../decode-layers.js';
import type { RemainderResult, RemainderTask } from '../messages/delta.js';
import { HashingSource } from '../sources.js';
import { SpoolParts } from '../spool-parts.js';
import type { TaskControl, WorkerState } from '../state.js';

export async function remainder(state: WorkerState, task: RemainderTask, control: TaskControl): Promise<RemainderResult> {
  const delta = await state.delta(task.delta);
  const entry = delta.entry(task.tuned.name);
  const base = task.base === undefined ? undefined : new HashingSource(await state.reader(task.base.checkpoint), task.base.name);
  const tuned = new HashingSource(await state.reader(task.tuned.checkpoint), task.tuned.name);
  using lossy = await decodeLossy(state, task.settings, halved(control), delta, entry, base);
  const lossless = await state.codec({ name: 'lossless', params: {} });
  const parts = new SpoolParts(task.spool);
  try {
    await lossless.encode(state.ctx(task.settings, entry.name, halved(control)), lossy, tuned, parts.prefixed(''), {});
    const part = parts.finish().find((p) => p.part === REMAINDER_PART)!;
    const got = await tuned.digest(control.checkpointCancel);
    if (got !== entry.sha256) throw new PithError('HASH_MISMATCH', { file: task.tuned.checkpoint.path, tensor: entry.name, expected: entry.sha256, got });
    return { bytes: part.bytes, sha256: part.sha256 };
  } finally {
    parts.close();
  }
}
