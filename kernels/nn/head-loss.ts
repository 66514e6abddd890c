/** Cross entropy of the next token over the whole vocabulary, in blocks of tokens: the logits of a sequence never lie in memory together. */
import * as tf from '#tf';
import { frozenLinear, decodedPanel } from './frozen-linear.js';
import type { FrozenMatrix } from './frozen-matrix.js';
import { activation } from './gated.js';
import { fusedKernel, hasFused, PANEL_VALUES, runFusedAll, withGradient, type FusedKernel, type Heap, type Inputs } from './heap.js';

export interface HeadOptions {
  /** Logits become cap tanh(z / cap); 0: as they are. */
  readonly softcap: number;
  /** The loss will be differentiated: its gradient to x is computed on the way. */
  readonly train: boolean;
}

interface HeadAttrs extends HeadOptions {
  readonly matrix: FrozenMatrix;
}

/** -log p(target) of every token. x: (T, H); w: (V, H); targets: (T) int32, below 0: no loss there. Gives (T); its gradient goes to x. */
export function headLoss(x: tf.Tensor2D, w: FrozenMatrix, targets: tf.Tensor1D, options: HeadOptions): tf.Tensor1D {
  if (!hasFused(HEAD)) return plainHeadLoss(x, w, targets, options.softcap);
  return withGradient(
    [x],
    () => {
      const [value, ...saved] = runFusedAll(HEAD, { x, targets }, { ...options, matrix: w });
      return { value: value!, saved };
    },
    // each row of the kept gradient belongs to one loss
    (dy, [g]) => tf.mul(g!, tf.expandDims(dy, 1)),
  ) as tf.Tensor1D;
}

export interface HeadGradient {
  /** (T) -log p(target), 0 where there is no target. */
  readonly losses: tf.Tensor1D;
  /** (T, H) of sum weights * losses to x. */
  readonly dx: tf.Tensor2D;
}

/**
 * Losses, and the gradient of their weighted sum, at once: no logits are computed twice, none lie in memory together.
 * x: (T, H); w: (V, H); targets: (T) int32, below 0: none; weights: (T).
 */
export function headGradient(x: tf.Tensor2D, w: FrozenMatrix, targets: tf.Tensor1D, weights: tf.Tensor1D, softcap: number): HeadGradient {
  if (!hasFused(HEAD)) return plainHeadGradient(x, w, targets, weights, softcap);
  const [losses, dx] = runFusedAll(HEAD, { x, targets, weights }, { softcap, train: true, matrix: w });
  return { losses: losses as tf.Tensor1D, dx: dx as tf.Tensor2D };
}

export function plainHeadGradient(x: tf.Tensor2D, w: FrozenMatrix, targets: tf.Tensor1D, weights: tf.Tensor1D, softcap: number): HeadGradient {
  const loss = (h: tf.Tensor): tf.Tensor1D => crossEntropy(headLogits(h as tf.Tensor2D, w, softcap), targets);
  const dx = tf.grad((h) => tf.sum(tf.mul(loss(h), weights)))(x);
  return { losses: tf.tidy(() => loss(x)), dx: dx as tf.Tensor2D };
}

/** Logits of some tokens: (T, V). bias: (V). */
export function headLogits(x: tf.Tensor2D, w: FrozenMatrix, softcap: number, bias?: tf.Tensor1D): tf.Tensor2D {
  return tf.tidy(() => {
    const z = frozenLinear(x, w, bias);
    return softcap > 0 ? tf.mul(activation(tf.div(z, softcap), 'tanh'), softcap) : z;
  });
}

export function plainHeadLoss(x: tf.Tensor2D, w: FrozenMatrix, targets: tf.Tensor1D, softcap: number): tf.Tensor1D {
  return tf.tidy(() => {
    return crossEntropy(headLogits(x, w, softcap), targets);
  });
}

function crossEntropy(z: tf.Tensor2D, targets: tf.Tensor1D): tf.Tensor1D {
  const used = tf.cast(tf.greaterEqual(targets, 0), 'float32');
  const picked = tf.sum(tf.mul(z, tf.oneHot(tf.cast(tf.maximum(targets, 0), 'int32'), z.shape[1])), 1);
  return tf.mul(tf.sub(tf.logSumExp(z, 1), picked), used);
}

const HEAD = 'PithHeadLoss';

/** Values of a block of logits: 32 MiB. */
const BLOCK_VALUES = 1 << 23;

function losses(h: Heap, { x, targets, weights }: Inputs, attrs: HeadAttrs): tf.TensorInfo[] {
  const [tokens, width] = x!.shape as [number, number];
  const { matrix: w, softcap, train } = attrs;
  const out = h.output([tokens]);
  const gradient = train ? h.output([tokens, width]) : undefined;
  const block = Math.min(tokens, Math.max(16, Math.floor(BLOCK_VALUES / w.rows)));
  const logits = h.output([block, w.rows]);
  // lse, the target's logit, the weight of every row
  const sums = h.output([3, block]);
  for (let start = 0; start < tokens; start += block) {
    const rows = Math.min(block, tokens - start);
    logitRows(h, h.at(x!) + 4 * start * width, rows, w, h.at(logits));
    const [lse, picked, shares] = [0, 1, 2].map((i) => h.at(sums) + 4 * i * block) as [number, number, number];
    const target = h.at(targets!) + 4 * start;
    h.nn.logSumExpRows(h.at(logits), target, lse, picked, rows, w.rows, softcap);
    const [lv, pv, loss] = [h.values(lse, rows), h.values(picked, rows), h.values(h.at(out) + 4 * start, rows)];
    const wanted = new Int32Array(h.backend.wasm.HEAPU8.buffer, target, rows);
    for (let i = 0; i < rows; i++) loss[i] = wanted[i]! < 0 ? 0 : lv[i]! - pv[i]!;
    if (gradient === undefined) continue;
    if (weights === undefined) h.values(shares, rows).fill(1);
    else h.values(shares, rows).set(h.values(h.at(weights) + 4 * start, rows));
    h.nn.crossEntropyGradRows(h.at(logits), target, lse, shares, rows, w.rows, softcap);
    backRows(h, h.at(logits), rows, w, h.at(gradient) + 4 * start * width);
  }
  for (const t of [logits, sums]) h.free(t);
  return gradient === undefined ? [out] : [out, gradient];
}

const step = (w: FrozenMatrix): number => Math.max(1, Math.floor(PANEL_VALUES / w.columns));

function logitRows(h: Heap, x: number, rows: number, w: FrozenMatrix, z: number): void {
  for (let v = 0; v < w.rows; v += step(w)) {
    const n = Math.min(step(w), w.rows - v);
    const panel = decodedPanel(h, w, v, v + n);
    h.blas!.sgemm(
      false,
      true,
      rows,
      n,
      w.columns,
      1,
      h.values(x, rows * w.columns),
      w.columns,
      panel,
      w.columns,
      0,
      h.values(z + 4 * v, (rows - 1) * w.rows + n),
      w.rows,
    );
  }
}

// dx = dz W
function backRows(h: Heap, z: number, rows: number, w: FrozenMatrix, dx: number): void {
  for (let v = 0; v < w.rows; v += step(w)) {
    const n = Math.min(step(w), w.rows - v);
    const panel = decodedPanel(h, w, v, v + n);
    const dz = h.values(z + 4 * v, (rows - 1) * w.rows + n);
    h.blas!.sgemm(false, false, rows, w.columns, n, 1, dz, w.rows, panel, w.columns, v === 0 ? 0 : 1, h.values(dx, rows * w.columns), w.columns);
  }
}

export const headLossKernels: readonly FusedKernel[] = [fusedKernel<HeadAttrs>(HEAD, losses, true)];
