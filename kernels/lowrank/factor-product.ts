/** A B in storage: what two linear layers in place of one stand for. */
import { byteLength } from '../../core/shape.js';
import type { DenseDType, PanelKernel } from './panel.js';

const PANEL_VALUES = 1 << 19;

/** a: (m, rank), b: (rank, n), f32 -> the stored bytes of A B, the product in the fixed order of `panel.ts` and rounded once. */
export function factorProduct(kernel: PanelKernel, dtype: DenseDType, a: Float32Array, b: Float32Array, rank: number, n: number): Uint8Array {
  const m = a.length / rank;
  const rows = Math.max(1, Math.min(m, Math.floor(PANEL_VALUES / Math.max(1, n))));
  const out = new Uint8Array(byteLength(dtype, [m, n]));
  const panels = kernel.factor(b, rank, n, rows);
  const zeros = new Uint8Array(byteLength(dtype, [rows, n]));
  for (let i = 0; i < m; i += rows) {
    const count = Math.min(rows, m - i);
    const bytes = panels.add(dtype, zeros.subarray(0, byteLength(dtype, [count, n])), a.subarray(i * rank, (i + count) * rank));
    out.set(bytes, byteLength(dtype, [i, n]));
  }
  return out;
}
