/** What `pith factorize` will do, from headers alone: which layers, what the method needs of them, how much memory. */
import { DTYPES } from '../../core/dtype.js';
import { byteLength } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import { factorNames, FACTORIZED_VERSION, METADATA_KEY, RANKS_KEY, SECTION_KEY } from '../../formats/factorized.js';
import type { ConfigField } from '../../formats/config-fields.js';
import type { Factorizer } from '../../methods/kinds.js';
import type { MethodRef } from '../../workers/messages/refs.js';
import type { CalibrateOptions } from '../calibrate-plan.js';
import type { LinearLayer } from '../linear-layers.js';
import type { RunOptions } from '../run-options.js';
import type { RankTarget } from './ranks.js';

export interface FactorizeOptions extends RunOptions {
  readonly checkpoint: string;
  readonly out: string;
  readonly method: MethodRef;
  readonly target: RankTarget;
  /** A statistics file, or the text that they are taken on. */
  readonly stats?: string;
  readonly data?: { readonly windows: CalibrateOptions['data']; readonly identity: object };
  readonly save: 'factors' | 'dense';
  /** By the name of a weight. */
  readonly selects: (weight: string) => boolean;
  readonly force: boolean;
  readonly dryRun: boolean;
  readonly resume: boolean;
  readonly shardBytes?: number;
}

const SCRATCH_BYTES = 16 << 20;

/** Host memory of one layer's task at most. */
export function layerBytes(method: Factorizer, { m, n }: LinearLayer, withGram: boolean): number {
  const sizes = { inputSqNorm: n, inputAbsMean: n, inputGram: n * n, fisherRow: m, fisherA: n * n, fisherB: m * m };
  const statistics = new Set([...method.needs, ...(withGram ? (['inputGram'] as const) : [])]);
  const read = [...statistics].reduce((sum, s) => sum + 4 * sizes[s], 0);
  return SCRATCH_BYTES + 8 * m * n + read + Math.max(method.memoryBytes(m, n), 16 * m * n);
}

/** The output's tensors, when every layer's rank is known (undefined: it stays as it is). */
export function outputInfos(
  o: Pick<FactorizeOptions, 'save'>,
  reader: CheckpointReader,
  layers: readonly LinearLayer[],
  ranks: readonly (number | undefined)[],
): TensorInfo[] {
  if (o.save === 'dense') return [...reader.infos.values()];
  const infos = new Map(reader.infos);
  layers.forEach(({ module, weight, bias, m, n }, i) => {
    const rank = ranks[i];
    if (rank === undefined) return;
    const names = factorNames(module);
    infos.delete(weight.name);
    infos.set(names.a, { name: names.a, dtype: weight.dtype, shape: [m, rank] });
    infos.set(names.b, { name: names.b, dtype: weight.dtype, shape: [rank, n] });
    if (bias === undefined) return;
    infos.set(names.bias, { ...reader.infos.get(bias)!, name: names.bias });
    infos.delete(bias);
  });
  return [...infos.values()];
}

export const parametersOf = (infos: Iterable<TensorInfo>): number =>
  [...infos].reduce((sum, t) => sum + (byteLength(t.dtype, t.shape) * 8) / DTYPES[t.dtype].bits, 0);

/** What the output says of itself. */
export interface Section {
  readonly metadata: Readonly<Record<string, string>>;
  readonly config: readonly ConfigField[];
}

export function sectionOf(
  o: Pick<FactorizeOptions, 'method' | 'save'>,
  layers: readonly LinearLayer[],
  ranks: readonly (number | undefined)[],
  source: string,
): Section {
  const factored = layers.flatMap((l, i) => (ranks[i] === undefined ? [] : [{ ...l, rank: ranks[i] }]));
  if (o.save === 'dense' || factored.length === 0) return { metadata: {}, config: [] };
  const rankOf = Object.fromEntries(factored.map((l) => [l.module, l.rank]));
  const transposed = factored.filter((l) => l.transposed).map((l) => l.module);
  const section = { version: FACTORIZED_VERSION, method: o.method.name, params: o.method.params, source, ranks: rankOf, transposed };
  const value = JSON.stringify(section);
  return {
    metadata: { [METADATA_KEY]: value },
    config: [
      { key: RANKS_KEY, value: JSON.stringify(rankOf), add: true },
      { key: SECTION_KEY, value, add: true },
    ],
  };
}
