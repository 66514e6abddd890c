/** Which tensor of a base each part of an adapter changes; from headers alone. What does not fit is named. */
import { PithError } from '../core/errors.js';
import { DTYPES, type DType } from '../core/dtype.js';
import { matrixShape, sameShape } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import type { Adapter, LoraModule } from '../formats/adapter/adapter.js';
import { refuseMovedBase } from '../formats/adapter/config.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { findTensor, isConv1d, modulesOf, tiedHead, type ModelConfig } from '../models/modules.js';

export interface FusedTensor {
  /** In the result. */
  readonly info: TensorInfo;
  /** Tensor of the base that it comes from. */
  readonly base: string;
  readonly module?: string;
  readonly transposed?: boolean;
  readonly bias?: boolean;
  /** Key of a full copy in the adapter. */
  readonly saved?: string;
}

export interface FusePlan {
  /** Every tensor of the result, in the base's order. */
  readonly tensors: readonly FusedTensor[];
  /** The head gets a weight of its own: tie_word_embeddings no longer holds. */
  readonly untied: boolean;
  /** Rows of the input embedding where they are not the base's. */
  readonly vocabulary?: number;
}

type Change = Omit<FusedTensor, 'info' | 'base'> & { readonly shape?: readonly number[]; readonly dtype?: DType };

/** `dtype`: of every float tensor of the result; undefined: the base's. */
export function planFuse(base: CheckpointReader, adapter: Adapter, config: ModelConfig, dtype: DType | undefined): FusePlan {
  refuseMovedBase(adapter.config, adapter.folder);
  const planner = new Planner(base, adapter, config);
  for (const [name, key] of adapter.saved) planner.save(name, key);
  for (const m of adapter.modules.values()) planner.merge(m);
  const dense = (d: DType): boolean => d === 'BF16' || d === 'F16' || d === 'F32';
  const outType = (d: DType): DType => (dtype !== undefined && dense(d) ? dtype : d);
  const fused = (info: TensorInfo, from: string): FusedTensor => {
    const { shape, dtype: own, ...change } = planner.changes.get(info.name) ?? {};
    return { info: { ...info, shape: shape ?? info.shape, dtype: outType(own ?? info.dtype) }, base: from, ...change };
  };
  const tensors = [...base.infos.values()].map((info) => fused(info, info.name));
  const head = planner.untiedHead();
  if (head !== undefined) tensors.push(fused({ ...base.infos.get(head.weight)!, name: `${head.path}.weight` }, head.weight));
  return { tensors, untied: head !== undefined, ...planner.vocabulary() };
}

class Planner {
  /** Base tensor -> what becomes of it. */
  readonly changes = new Map<string, Change>();
  readonly #head;
  #headUsed = false;

  constructor(
    private readonly base: CheckpointReader,
    private readonly adapter: Adapter,
    private readonly config: ModelConfig,
  ) {
    this.#head = tiedHead(modulesOf(base.infos, config).modules, config);
  }

  untiedHead() {
    return this.#headUsed ? this.#head : undefined;
  }

  vocabulary(): { vocabulary?: number } {
    for (const [name, { shape }] of this.changes) {
      if (shape !== undefined && !sameShape(shape, this.base.infos.get(name)?.shape ?? shape)) return { vocabulary: shape[0]! };
    }
    return {};
  }

  #wrong(module: string, expected: string, got: string): PithError {
    return new PithError('ADAPTER_BASE', { file: this.adapter.folder, module, base: this.base.source, expected, got });
  }

  #change(name: string, change: Change): void {
    this.changes.set(name, { ...this.changes.get(name), ...change });
  }

  /** The head that shares the embedding's weight: its own tensor in the result, unless it changes just as the embedding does. */
  #isTiedHead(path: string): boolean {
    return this.#head !== undefined && (path === this.#head.path || path.endsWith(`.${this.#head.path}`));
  }

  save(name: string, key: TensorInfo): void {
    const at = name.lastIndexOf('.');
    const [path, suffix] = [name.slice(0, at), name.slice(at + 1)];
    if (suffix === 'weight' && this.#isTiedHead(path)) {
      this.#saveTied(key);
      return;
    }
    const info = findTensor(this.base.infos, path, suffix);
    if (info === undefined) throw this.#wrong(path, `a tensor "${name}"`, 'none');
    const vocabulary = info.shape.length === 2 && sameShape(info.shape.slice(1), key.shape.slice(1));
    if (!sameShape(info.shape, key.shape) && !vocabulary) throw this.#wrong(path, `[${info.shape.join(', ')}] as in the base`, `[${key.shape.join(', ')}]`);
    this.#change(info.name, { saved: key.name, shape: key.shape });
  }

  #saveTied(key: TensorInfo): void {
    const twin = [...this.adapter.saved].find(([name]) => name.endsWith(this.#head!.weight))?.[1];
    if (twin !== undefined && sameFile(this.adapter, twin, key)) return;
    this.#headUsed = true;
    this.#change(`${this.#head!.path}.weight`, { saved: key.name, shape: key.shape });
  }

  merge(m: LoraModule): void {
    const tied = !m.embedding && this.#isTiedHead(m.path);
    const info = tied ? this.base.infos.get(this.#head!.weight) : findTensor(this.base.infos, m.path, 'weight');
    if (info === undefined) throw this.#wrong(m.path, `a tensor "${m.path}.weight"`, 'none');
    const shape = this.changes.get(info.name)?.shape ?? info.shape;
    if (DTYPES[info.dtype].float === undefined && info.dtype !== 'F64') throw this.#wrong(m.path, 'a weight in a float type', info.dtype);
    const [rows, columns] = matrixShape(shape);
    const [input, output] = [matrixShape(m.a.shape)[1], m.b.shape[0]!];
    const straight = rows === output && columns === input;
    const flipped = rows === input && columns === output;
    const transposed = m.embedding || (flipped && (!straight || this.adapter.config.fanInFanOut || isConv1d(m.path, this.config)));
    if (!(transposed ? flipped : straight)) throw this.#wrong(m.path, `a weight of [${rows}, ${columns}] as in the base`, `factors for [${output}, ${input}]`);
    if (tied && sameTied(this.adapter, m, this.#head!.weight)) return;
    if (tied) this.#headUsed = true;
    this.#change(tied ? `${this.#head!.path}.weight` : info.name, { module: m.path, transposed });
    if (m.bias === undefined) return;
    const bias = findTensor(this.base.infos, m.path, 'bias');
    if (bias === undefined) throw this.#wrong(m.path, 'a bias to add to (lora_bias)', 'a layer without one');
    this.#change(bias.name, { module: m.path, bias: true });
  }
}

function sameFile(adapter: Adapter, a: TensorInfo, b: TensorInfo): boolean {
  return a.dtype === b.dtype && sameShape(a.shape, b.shape) && Buffer.compare(adapter.bytes(a), adapter.bytes(b)) === 0;
}

/** Whether a head's factors are those of the embedding it is tied to: A of one is B of the other, transposed. */
function sameTied(adapter: Adapter, head: LoraModule, weight: string): boolean {
  const twin = [...adapter.modules.values()].find((m) => m.embedding && weight.endsWith(`${m.path}.weight`));
  if (twin?.rank !== head.rank || twin.scaling !== head.scaling || head.magnitude !== undefined) return false;
  return sameTransposed(adapter, head.b, twin.a) && sameTransposed(adapter, twin.b, head.a);
}

/** a: (rows, columns), b: (columns, rows). */
function sameTransposed(adapter: Adapter, a: TensorInfo, b: TensorInfo): boolean {
  const [rows, columns] = matrixShape(a.shape);
  if (a.dtype !== b.dtype || !sameShape(b.shape, [columns, rows])) return false;
  const width = DTYPES[a.dtype].bits / 8;
  const [x, y] = [adapter.bytes(a), adapter.bytes(b)];
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) for (let k = 0; k < width; k++) if (x[(i * columns + j) * width + k] !== y[(j * rows + i) * width + k]) return false;
  }
  return true;
}
