/** What becomes of each module of a fine-tune in an adapter: factors, a full copy, or nothing. The rules are those of mergekit-extract-lora. */
import { PithError } from '../core/errors.js';
import { byteLength, matrixShape, sameShape } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import { KEY_PREFIX } from '../formats/adapter/adapter.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { isFloat } from '../core/float.js';
import { modulesOf, tiedHead, type ModelConfig, type ModelModule } from '../models/modules.js';

export interface ExtractSelection {
  readonly embedLora: boolean;
  /** Modules, by path or last part, that are saved whole. */
  readonly saveModules: readonly string[];
  /** Regular expressions, searched for in module paths. */
  readonly include: readonly string[];
  readonly exclude: readonly string[];
  readonly skipUndecomposable: boolean;
}

export interface LoraPlan {
  readonly path: string;
  readonly weight: TensorInfo;
  readonly embedding: boolean;
  /** The weight lies as (in, out): its factors are those of the transpose. */
  readonly transposed: boolean;
  /** (in, out) of the layer. */
  readonly sides: readonly [input: number, output: number];
  readonly bias?: string;
}

export interface SavedTensor {
  /** Key in the adapter. */
  readonly key: TensorInfo;
  /** Name in the tuned checkpoint. */
  readonly source: string;
}

export interface ExtractPlan {
  readonly config: ModelConfig;
  readonly lora: readonly LoraPlan[];
  readonly saved: readonly SavedTensor[];
  /** Modules with a full copy, for modules_to_save. */
  readonly savedModules: readonly string[];
  /** All module paths of the model. */
  readonly paths: readonly string[];
  readonly unchanged: number;
  readonly skipped: readonly { readonly name: string; readonly reason: string }[];
  readonly warnings: readonly string[];
}

const leafOf = (path: string): string => path.slice(path.lastIndexOf('.') + 1);

type Pair = Readonly<Record<'base' | 'tuned', CheckpointReader>>;

export async function planExtract(pair: Pair, config: ModelConfig, s: ExtractSelection): Promise<ExtractPlan> {
  const { base, tuned } = pair;
  const { modules, others } = modulesOf(tuned.infos, config);
  const head = tiedHead(modules, config);
  const all = head === undefined ? modules : [...modules, head];
  const plan = new Planner(pair, s);
  for (const m of all) await plan.add(m, m === head);
  plan.saveNamesakes();
  for (const name of others) {
    const b = base.infos.get(name);
    if (b !== undefined && (await sameBytes(pair, name))) continue;
    plan.skipped.push({ name, reason: 'differs from the base, but belongs to no module that an adapter can carry' });
  }
  return { config, paths: all.map((m) => m.path), ...plan.result() };
}

class Planner {
  readonly lora: LoraPlan[] = [];
  readonly saved: SavedTensor[] = [];
  readonly savedModules: string[] = [];
  readonly skipped: { name: string; reason: string }[] = [];
  readonly warnings: string[] = [];
  readonly #include: RegExp[];
  readonly #exclude: RegExp[];
  #same: ModelModule[] = [];

  constructor(
    private readonly pair: Pair,
    private readonly s: ExtractSelection,
  ) {
    this.#include = s.include.map(expression);
    this.#exclude = s.exclude.map(expression);
  }

  /** A norm goes with its namesakes: one name in modules_to_save then stands for all of them. */
  saveNamesakes(): void {
    const leaves = new Set(this.savedModules.map(leafOf));
    for (const m of this.#same.filter((s) => s.kind === 'other' && leaves.has(leafOf(s.path)))) this.#put(m);
  }

  result() {
    const { lora, saved, savedModules, skipped, warnings } = this;
    return { lora, saved, savedModules, skipped, warnings, unchanged: this.#same.length };
  }

  async add(m: ModelModule, tied: boolean): Promise<void> {
    const leaf = leafOf(m.path);
    const excluded = this.#exclude.some((r) => r.test(m.path));
    const vocabulary = m.kind === 'embedding' || m.kind === 'head';
    const grown = vocabulary && !this.#sameShape(m.weight);
    const whole = vocabulary && (!this.s.embedLora || grown) && !excluded;
    if (whole && grown) this.warnings.push(`${m.path}: its shape is not the base's, it is saved whole`);
    if (whole || this.s.saveModules.some((name) => name === m.path || name === leaf)) return this.#save(m);
    if (excluded || (this.#include.length > 0 && !this.#include.some((r) => r.test(m.path)))) return;
    if (m.kind !== 'other') {
      this.#decompose(m, tied);
      return;
    }
    if (this.s.skipUndecomposable) this.skipped.push({ name: m.path, reason: 'cannot be decomposed' });
    else await this.#save(m);
  }

  #sameShape(name: string): boolean {
    const [a, b] = [this.pair.base.infos.get(name), this.pair.tuned.infos.get(name)];
    return a === undefined || b === undefined || sameShape(a.shape, b.shape);
  }

  async #save(m: ModelModule): Promise<void> {
    const names = [m.weight, ...(m.bias === undefined ? [] : [m.bias])];
    let same = true;
    for (const name of names) same &&= this.pair.base.infos.has(name) && (await sameBytes(this.pair, name));
    if (same) this.#same.push(m);
    else this.#put(m);
  }

  #put(m: ModelModule): void {
    this.#same = this.#same.filter((s) => s !== m);
    this.savedModules.push(m.path);
    for (const source of [m.weight, ...(m.bias === undefined ? [] : [m.bias])]) {
      const name = KEY_PREFIX + m.path + (source === m.weight ? '.weight' : '.bias');
      this.saved.push({ source, key: { ...this.pair.tuned.infos.get(source)!, name } });
    }
  }

  #decompose(m: ModelModule, tied: boolean): void {
    const { base, tuned } = this.pair;
    const weight = tuned.infos.get(m.weight)!;
    const expected = base.infos.get(m.weight);
    if (expected === undefined) throw new PithError('TENSOR_MISSING', { file: base.source, tensor: m.weight });
    if (!sameShape(expected.shape, weight.shape)) {
      const text = (i: TensorInfo): string => `[${i.shape.join(', ')}]`;
      throw new PithError('SHAPE_MISMATCH', { file: tuned.source, tensor: m.weight, expected: `${text(expected)} as in ${base.source}`, got: text(weight) });
    }
    if (!isFloat(weight.dtype) || !isFloat(expected.dtype))
      throw new PithError('DTYPE_UNSUPPORTED', { file: tuned.source, tensor: m.weight, got: weight.dtype, message: 'only float weights have factors' });
    const [rows, columns] = matrixShape(weight.shape);
    const transposed = m.kind === 'embedding' || m.conv1d;
    const sides = transposed ? ([rows, columns] as const) : ([columns, rows] as const);
    if (tied)
      this.warnings.push(`${m.path} shares the embedding's weight: peft adds both adapters when it merges; use the adapter unmerged, or fuse it with pith`);
    this.lora.push({ path: m.path, weight, embedding: m.kind === 'embedding', transposed, sides, ...(m.bias === undefined ? {} : { bias: m.bias }) });
  }
}

function expression(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (cause) {
    throw new PithError('USAGE', { message: `"${text}" is no regular expression` }, { cause });
  }
}

const PANEL_BYTES = 1 << 20;

/** Whether both checkpoints hold the same type, shape and bytes under a name; ends at the first difference. */
export async function sameBytes({ base, tuned }: Pair, name: string): Promise<boolean> {
  const [a, b] = [base.infos.get(name)!, tuned.infos.get(name)!];
  if (a.dtype !== b.dtype || !sameShape(a.shape, b.shape)) return false;
  const bytes = byteLength(a.dtype, a.shape);
  const [x, y] = [new Uint8Array(Math.min(bytes, PANEL_BYTES)), new Uint8Array(Math.min(bytes, PANEL_BYTES))];
  for (let at = 0; at < bytes; at += PANEL_BYTES) {
    const n = Math.min(PANEL_BYTES, bytes - at);
    await base.readInto(name, at, x.subarray(0, n));
    await tuned.readInto(name, at, y.subarray(0, n));
    if (Buffer.compare(x.subarray(0, n), y.subarray(0, n)) !== 0) return false;
  }
  return true;
}
