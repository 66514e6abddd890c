/** Convolutions as matrix products: what a kernel meets at each place as one row, in the order of the stored kernel's values. */
import * as tf from '#tf';
import { embeddingRows } from './embedding.js';

export interface ImageShape {
  readonly batch: number;
  readonly channels: number;
  /** (height, width), pixels. */
  readonly size: readonly [number, number];
  readonly patch: readonly [number, number];
}

/**
 * Patches side by side, row by row; a rest at the right or below is left out, as a convolution without padding does.
 * pixels: (batch, channels, height, width). Gives (batch * patches, channels * patch height * patch width).
 */
export function unfoldPatches(pixels: Float32Array, { batch, channels, size: [height, width], patch: [ph, pw] }: ImageShape): Float32Array {
  const [down, across] = [Math.floor(height / ph), Math.floor(width / pw)];
  const out = new Float32Array(batch * down * across * channels * ph * pw);
  let at = 0;
  for (let b = 0; b < batch; b++) {
    for (let p = 0; p < down * across; p++) {
      const [top, left] = [Math.floor(p / across) * ph, (p % across) * pw];
      for (let c = 0; c < channels; c++) {
        for (let y = 0; y < ph; y++, at += pw) {
          const from = ((b * channels + c) * height + top + y) * width + left;
          out.set(pixels.subarray(from, from + pw), at);
        }
      }
    }
  }
  return out;
}

/** Frames that a kernel of 3 sees, a zero frame beyond either end. x: (batch * length, c). Gives (batch * ceil(length / stride), c * 3). */
export function unfoldFrames(x: tf.Tensor2D, batch: number, stride: number): tf.Tensor2D {
  return tf.tidy(() => {
    const [rows, c] = x.shape;
    const length = rows / batch;
    const out = Math.ceil(length / stride);
    const taps = Int32Array.from({ length: batch * out * 3 }, (_, i) => {
      const place = (Math.floor(i / 3) % out) * stride + (i % 3) - 1;
      return place < 0 || place >= length ? rows : Math.floor(i / (3 * out)) * length + place;
    });
    const padded: tf.Tensor2D = tf.concat([x, tf.zeros([1, c])], 0);
    const seen = tf.reshape(embeddingRows(padded, tf.tensor1d(taps, 'int32')), [batch * out, 3, c]);
    return tf.reshape(tf.transpose(seen, [0, 2, 1]), [batch * out, c * 3]);
  });
}
