/** What running a model takes in memory, from headers and config alone. */
import { byteLength } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import type { BaseConfig } from './config/types.js';
import { placeOf } from './place.js';

export interface ActivationShape {
  readonly hiddenSize: number;
  /** Channels that a block's linear layers give, all together. */
  readonly outputs: number;
  /** Scores of a token with all others lie in memory: true without the fused kernels. */
  readonly scores: number;
}

/** Bytes of one token that a block holds at once: each linear's output twice, and the residual stream. */
export function activationBytes({ hiddenSize, outputs, scores }: ActivationShape): number {
  return 4 * (8 * hiddenSize + 2 * outputs + scores);
}

/** Stored bytes of the largest block, and a sequence's activations: less than that no worker can do with. An estimate from above. */
export function leastBytes(config: Pick<BaseConfig, 'hiddenSize'>, infos: ReadonlyMap<string, TensorInfo>, tokens: number): number {
  const blocks = new Map<string, { bytes: number; outputs: number }>();
  for (const { name, dtype, shape } of infos.values()) {
    const { stack, layer } = placeOf(name);
    if (layer === undefined) continue;
    const key = `${stack}.${layer}`;
    const { bytes, outputs } = blocks.get(key) ?? { bytes: 0, outputs: 0 };
    // a matrix may lie either way
    blocks.set(key, { bytes: bytes + byteLength(dtype, shape), outputs: outputs + (shape.length === 2 ? Math.max(...shape) : 0) });
  }
  const all = [...blocks.values()];
  const outputs = Math.max(0, ...all.map((b) => b.outputs));
  return Math.max(0, ...all.map((b) => b.bytes)) + tokens * activationBytes({ hiddenSize: config.hiddenSize, outputs, scores: 0 });
}
