/** What a changed weight leaves of a layer's output, by as much as is known of its inputs. */
import type { MatrixOps } from '../linalg/matrix-ops.js';
import { layerError } from './layer-error.js';

export interface ErrorMeasure {
  /** X^T X of the layer's inputs, (n, n); used where it is there. */
  readonly gram?: Float32Array;
  /** Its diagonal alone, (n). */
  readonly squares?: Float32Array;
}

export interface ChangeError {
  readonly error: number;
  readonly of: 'output' | 'diagonal' | 'weight';
}

/**
 * sqrt(tr(D G D^T) / tr(W G W^T)), D = What - W: the output's error ||X D^T||_F / ||X W^T||_F. With squares alone G is their diagonal, with neither
 * it is I. w, what: (m, n).
 */
export function changeError(ops: MatrixOps, w: Float32Array, what: Float32Array, m: number, n: number, { gram, squares }: ErrorMeasure): ChangeError {
  if (gram !== undefined) return { error: layerError(w, what, m, n, gram, ops), of: 'output' };
  let [lost, whole] = [0, 0];
  for (let i = 0; i < w.length; i++) {
    const weight = squares === undefined ? 1 : squares[i % n]!;
    const d = what[i]! - w[i]!;
    lost += d * d * weight;
    whole += w[i]! * w[i]! * weight;
  }
  return { error: whole > 0 ? Math.sqrt(lost / whole) : 0, of: squares === undefined ? 'weight' : 'diagonal' };
}
