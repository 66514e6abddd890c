/** Hashes one tensor's content and samples its words on the way. */
import { panelBuffer } from '../../core/panel-buffer.js';
import { contentPrefix } from '../../formats/store/schema.js';
import { aloneBits, sketchPosition, sketchWords } from '../../kernels/residual/sketch.js';
import { residualElements, wordKind } from '../../kernels/residual/words.js';
import type { StoreScanResult, StoreScanTask } from '../messages/store.js';
import { HashingSource } from '../sources.js';
import type { TaskControl, WorkerState } from '../state.js';

export async function storeScan(state: WorkerState, task: StoreScanTask, control: TaskControl): Promise<StoreScanResult> {
  const source = new HashingSource(await state.reader(task.tensor.checkpoint), task.tensor.name, { prefix: contentPrefix });
  const { dtype, shape } = source;
  const elements = residualElements(dtype, shape);
  const wordBytes = wordKind(dtype).width / 8;
  const count = sketchWords(elements);
  const sketch = new Uint8Array(count * wordBytes);
  const buffer = panelBuffer(source.byteLength, 'scan');
  let k = 0;
  for (let at = 0; at < source.byteLength; at += buffer.length) {
    control.checkpointCancel();
    const piece = buffer.subarray(0, Math.min(buffer.length, source.byteLength - at));
    await source.readInto(at, piece);
    for (; k < count; k++) {
      const from = sketchPosition(elements, k) * wordBytes - at;
      if (from >= piece.length) break;
      sketch.set(piece.subarray(from, from + wordBytes), k * wordBytes);
    }
    control.report(piece.length);
  }
  const bits = aloneBits(dtype, sketch);
  return { object: await source.digest(control.checkpointCancel), sketch, aloneBytes: Math.ceil((bits * elements) / 8) };
}
