/** The linear layers of a model's blocks, from names and shapes alone: what prune and its kin work on. */
import { PithError } from '../core/errors.js';
import type { TensorInfo } from '../core/tensor.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { isDense } from '../kernels/lowrank/panel.js';
import { isConv1d, modulesOf, type ModelConfig } from '../models/modules.js';
import { placeOf } from '../models/place.js';

export interface LinearLayer {
  readonly module: string;
  readonly weight: TensorInfo;
  /** Stored as (in, out). */
  readonly transposed: boolean;
  /** Outputs and inputs. */
  readonly m: number;
  readonly n: number;
}

export interface LayerChoice {
  readonly checkpoint: string;
  /** By the name of a weight. */
  readonly selects: (weight: string) => boolean;
}

/** Embeddings, norms, biases and the output layer are none. USAGE (64) when none is selected, DTYPE_UNSUPPORTED (65) for one that is not BF16, F16 or F32. */
export function linearLayers(o: LayerChoice, reader: CheckpointReader, config: ModelConfig): LinearLayer[] {
  const linears = modulesOf(reader.infos, config).modules.filter((m) => m.kind === 'linear' && placeOf(m.weight).layer !== undefined);
  const chosen = linears.filter((m) => o.selects(m.weight));
  if (chosen.length === 0) {
    const names = linears.length === 0 ? 'it has none in its blocks' : `the names are as "${linears[0]!.weight}"`;
    throw new PithError('USAGE', { message: `${o.checkpoint}: no linear layer is selected; ${names}` });
  }
  return chosen.map(({ weight: name, path }) => {
    const weight = reader.infos.get(name)!;
    if (!isDense(weight.dtype)) {
      throw new PithError('DTYPE_UNSUPPORTED', { file: o.checkpoint, tensor: name, got: weight.dtype, message: 'BF16, F16 or F32 is expected' });
    }
    const transposed = isConv1d(path, config);
    const [rows, columns] = weight.shape as [number, number];
    const [m, n] = transposed ? [columns, rows] : [rows, columns];
    return { module: name.slice(0, -'.weight'.length), weight, transposed, m, n };
  });
}
