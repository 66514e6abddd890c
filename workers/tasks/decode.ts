/** Restores one tensor from its base and its parts; writes it into the planned file, or only hashes it. */
import { PithError } from '../../core/errors.js';
import { byteLength } from '../../core/shape.js';
import type { Quality } from '../../formats/delta/schema.js';
import * as io from '../../formats/io.js';
import type { DecodeResult, DecodeTask } from '../messages/delta.js';
import { decodeLossy, decodeRemainder, halved, hasRemainder } from '../decode-layers.js';
import { decodePieces } from '../decode-pieces.js';
import { HashingSink, HashingSource } from '../sources.js';
import type { TaskControl, WorkerState } from '../state.js';

export async function decode(state: WorkerState, task: DecodeTask, control: TaskControl): Promise<DecodeResult> {
  const delta = await state.delta(task.delta, task.deltaName);
  const entry = delta.entry(task.tensor);
  const base = task.base === undefined ? undefined : new HashingSource(await state.reader(task.base.checkpoint), task.base.name);
  const fd = task.target === undefined ? undefined : io.openWrite(task.target.file, 'r+');
  try {
    const at = task.target?.position ?? 0;
    const sink = new HashingSink((position, bytes) => {
      if (fd !== undefined) io.writeFully(fd, bytes, at + position, task.target!.file);
    });
    let layer: Quality = 'lossy';
    try {
      if (!hasRemainder(delta, entry, task.quality)) await decodePieces(state, task.settings, control, delta, entry, base, sink);
      else {
        using lossy = await decodeLossy(state, task.settings, halved(control), delta, entry, base);
        layer = 'exact';
        await decodeRemainder(state, task.settings, halved(control), delta, entry, lossy, sink);
      }
    } catch (error) {
      if (!(error instanceof PithError) || error.code !== 'DELTA_TENSOR') throw error;
      // another base decodes to nonsense: say what is really wrong
      const baseSha256 = await base?.digest(control.checkpointCancel);
      const expected = entry.base?.sha256;
      if (task.lenient !== true && baseSha256 !== undefined && expected !== undefined && baseSha256 !== expected) {
        throw new PithError('WRONG_BASE', { file: delta.path, tensor: entry.name, expected, got: baseSha256, base: task.base?.checkpoint.path ?? '' });
      }
      if (task.lenient !== true) throw error;
      return { sha256: '', damaged: error.message, layer, ...(baseSha256 === undefined ? {} : { baseSha256 }) };
    }
    const expected = byteLength(entry.dtype, entry.shape);
    if (sink.bytes !== expected)
      throw new PithError('DELTA_TENSOR', { file: delta.path, tensor: entry.name, message: `expected ${expected} bytes, got ${sink.bytes}` });
    const baseSha256 = await base?.digest(control.checkpointCancel);
    return { sha256: sink.digest(), ...(baseSha256 === undefined ? {} : { baseSha256 }) };
  } finally {
    if (fd !== undefined) io.close(fd);
  }
}
