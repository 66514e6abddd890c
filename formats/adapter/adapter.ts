/**
 * A PEFT LoRA adapter on disk: `adapter_config.json` beside `adapter_model.safetensors` (peft 0.21.2). Every tensor is accounted
 * for: a pair of factors, a magnitude, a bias, or a full copy of a base tensor. What is missing or foreign is named.
 */
import { dirname, join } from 'node:path';
import { PithError } from '../../core/errors.js';
import { isFloat } from '../../core/float.js';
import { sameShape } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import * as io from '../io.js';
import { readText } from '../json.js';
import { SafetensorsFile } from '../safetensors/file.js';
import { parseConfig, patternValue, scalingOf, type LoraConfig } from './config.js';

export const ADAPTER_FILE = 'adapter_model.safetensors';
export const CONFIG_FILE = 'adapter_config.json';
/** Every key of a causal model's adapter starts with it. */
export const KEY_PREFIX = 'base_model.model.';

export interface LoraModule {
  /** Path in the model, without the prefix. */
  readonly path: string;
  readonly embedding: boolean;
  /** Keys in the file. a: (r, in), b: (out, r), convolutions with their kernel behind; embeddings: a: (r, n), b: (d, r). */
  readonly a: TensorInfo;
  readonly b: TensorInfo;
  readonly rank: number;
  /** s of W' = W + s B A. */
  readonly scaling: number;
  /** DoRA: (out), convolutions (1, out, 1, 1). */
  readonly magnitude?: TensorInfo;
  /** lora_bias: (out), added to the base's bias times the scaling. */
  readonly bias?: TensorInfo;
}

export class Adapter implements Disposable {
  private constructor(
    readonly folder: string,
    readonly config: LoraConfig,
    readonly file: SafetensorsFile,
    readonly modules: ReadonlyMap<string, LoraModule>,
    /** Full copies: name of the base tensor -> key in the file. */
    readonly saved: ReadonlyMap<string, TensorInfo>,
  ) {}

  /** `path`: the folder, or its `adapter_model.safetensors`. NOT_FOUND (66), or 65: see core/errors.ts. */
  static open(path: string): Adapter {
    const s = io.stat(path);
    if (s === undefined) throw new PithError('NOT_FOUND', { file: path });
    const folder = s.isFile ? dirname(path) : path;
    const configFile = join(folder, CONFIG_FILE);
    if (io.stat(configFile) === undefined) throw new PithError('NOT_AN_ADAPTER', { file: folder, message: `it has no ${CONFIG_FILE}` });
    const text = readText(configFile, (message) => new PithError('NOT_AN_ADAPTER', { file: configFile, message }));
    const config = parseConfig(text, configFile);
    const weights = join(folder, ADAPTER_FILE);
    if (io.stat(weights) === undefined) throw new PithError('NOT_AN_ADAPTER', { file: folder, message: `it has no ${ADAPTER_FILE}` });
    const file = SafetensorsFile.open(weights);
    try {
      const { modules, saved } = sortKeys(file, config);
      return new Adapter(folder, config, file, modules, saved);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** A tensor's values, whole: factors are small. */
  bytes(info: TensorInfo): Uint8Array {
    return this.file.read(info.name).bytes;
  }

  [Symbol.dispose](): void {
    this.file.close();
  }
}

/** Whether a folder looks like an adapter: it has a config of one. */
export function isAdapterFolder(path: string): boolean {
  return io.stat(join(path, CONFIG_FILE))?.isFile === true;
}

type Slot = 'a' | 'b' | 'magnitude' | 'bias';
interface Found extends Partial<Record<Slot, TensorInfo>> {
  embedding: boolean;
}

/** Suffix of a key -> what it holds. */
const SUFFIXES: readonly (readonly [suffix: string, slot: Slot, embedding: boolean])[] = [
  ['.lora_A.weight', 'a', false],
  ['.lora_B.weight', 'b', false],
  ['.lora_embedding_A', 'a', true],
  ['.lora_embedding_B', 'b', true],
  ['.lora_magnitude_vector.weight', 'magnitude', false],
  ['.lora_magnitude_vector', 'magnitude', false],
  ['.lora_B.bias', 'bias', false],
];
/** Modules whose full weight peft saves unasked when the vocabulary was resized. */
const EMBEDDINGS = /(^|\.)(embed_tokens|lm_head|wte|word_embeddings|embed_in|embed_out|shared)$/;

function sortKeys(file: SafetensorsFile, config: LoraConfig): { modules: Map<string, LoraModule>; saved: Map<string, TensorInfo> } {
  const found = new Map<string, Found>();
  const saved = new Map<string, TensorInfo>();
  for (const { info } of file.entries.values()) {
    const foreign = (message: string): PithError => new PithError('ADAPTER_KEY', { file: file.path, tensor: info.name, message });
    if (!info.name.startsWith(KEY_PREFIX)) throw foreign(`its name does not start with ${KEY_PREFIX}`);
    if (!isFloat(info.dtype)) throw foreign(`${info.dtype} is no float type`);
    // a key may still hold the adapter's name
    const key = info.name
      .slice(KEY_PREFIX.length)
      .replace('.default.', '.')
      .replace(/\.default$/, '');
    const suffix = SUFFIXES.find(([s]) => key.endsWith(s));
    if (suffix === undefined) {
      saved.set(savedName(key, config, foreign), info);
      continue;
    }
    const [text, slot, embedding] = suffix;
    const path = key.slice(0, -text.length);
    const module = found.get(path) ?? { embedding: false };
    if (module[slot] !== undefined) throw foreign(`module "${path}" has it twice`);
    if (slot === 'bias' && !config.loraBias) throw foreign('the config says lora_bias false, peft would ignore it');
    if (slot === 'magnitude' && !config.useDora) throw foreign('the config says use_dora false, peft would ignore it');
    module[slot] = info;
    module.embedding ||= embedding;
    found.set(path, module);
  }
  if (found.size === 0 && saved.size === 0) throw new PithError('NOT_AN_ADAPTER', { file: file.path, message: 'it holds no tensors' });
  return { modules: new Map([...found].map(([path, f]) => [path, lora(path, f, file, config)])), saved };
}

/** Name of the base tensor that a full copy replaces. */
function savedName(key: string, config: LoraConfig, foreign: (message: string) => PithError): string {
  const module = key.replace(/\.(weight|bias)$/, '');
  if (module === key) throw foreign('it is neither a factor nor a weight or bias');
  const base = module.replace(/\.base_layer$/, '').replace('.modules_to_save', '');
  const name = base + key.slice(module.length);
  // peft takes any ending: "norm" selects input_layernorm too
  const listed = config.modulesToSave.some((m) => base.endsWith(m) || `.${base}`.includes(`.${m}.`));
  const bias = key.endsWith('.bias') && config.bias !== 'none';
  if (!listed && !bias && !EMBEDDINGS.test(base)) throw foreign('its module is not in modules_to_save');
  return name;
}

function lora(path: string, f: Found, file: SafetensorsFile, config: LoraConfig): LoraModule {
  const names = f.embedding ? ['lora_embedding_A', 'lora_embedding_B'] : ['lora_A.weight', 'lora_B.weight'];
  const missing = (suffix: string): never => {
    throw new PithError('TENSOR_MISSING', { file: file.path, tensor: `${KEY_PREFIX}${path}.${suffix}` });
  };
  const a = f.a ?? missing(names[0]!);
  const b = f.b ?? missing(names[1]!);
  const configFile = join(dirname(file.path), CONFIG_FILE);
  const rank = patternValue(config.rankPattern, path, configFile) ?? config.r;
  const wrong = (info: TensorInfo, expected: string): never => {
    throw new PithError('SHAPE_MISMATCH', { file: file.path, tensor: info.name, expected, got: `[${info.shape.join(', ')}]` });
  };
  if (a.shape.length < 2 || a.shape[0] !== rank) wrong(a, `[${rank}, in] by the rank of the config`);
  if (b.shape.length !== a.shape.length || b.shape[1] !== rank || !b.shape.slice(2).every((d) => d === 1)) wrong(b, `[out, ${rank}] by the rank of the config`);
  const out = b.shape[0]!;
  if (config.useDora && f.magnitude === undefined) missing('lora_magnitude_vector');
  if (f.magnitude !== undefined && f.magnitude.shape.reduce((x, y) => x * y, 1) !== out) wrong(f.magnitude, `[${out}]`);
  if (config.loraBias && !f.embedding && f.bias === undefined) missing('lora_B.bias');
  if (f.bias !== undefined && !sameShape(f.bias.shape, [out])) wrong(f.bias, `[${out}]`);
  return {
    path,
    embedding: f.embedding,
    a,
    b,
    rank,
    scaling: scalingOf(config, path, rank, configFile),
    ...(f.magnitude === undefined ? {} : { magnitude: f.magnitude }),
    ...(f.bias === undefined ? {} : { bias: f.bias }),
  };
}
