/** A stored matrix as f32, in one piece: for work that meets all of it at once. */
import { DTYPES } from '../core/dtype.js';
import { decodeF32 } from '../core/float.js';
import { panelBuffer } from '../core/panel-buffer.js';
import { elementCount } from '../core/shape.js';
import type { TensorSource } from '../methods/kinds.js';
import type { TaskControl } from './state.js';

/** W, or W - W0 with `minus`: float tensors of one shape. */
export async function readF32(source: TensorSource, control: TaskControl, minus?: TensorSource): Promise<Float32Array> {
  const w = new Float32Array(elementCount(source.shape));
  const width = DTYPES[source.dtype].bits / 8;
  for (let at = 0; at < source.byteLength;) {
    control.checkpointCancel();
    const bytes = panelBuffer(source.byteLength - at, 'read-matrix');
    await source.readInto(at, bytes);
    const values = w.subarray(at / width, (at + bytes.length) / width);
    values.set(decodeF32(source.dtype, bytes));
    if (minus !== undefined) {
      const minusWidth = DTYPES[minus.dtype].bits / 8;
      const other = minusWidth === width ? bytes : new Uint8Array((bytes.length / width) * minusWidth);
      await minus.readInto((at / width) * minusWidth, other);
      const w0 = decodeF32(minus.dtype, other);
      for (let i = 0; i < w0.length; i++) values[i] = values[i]! - w0[i]!;
    }
    at += bytes.length;
    control.report(bytes.length);
  }
  return w;
}
