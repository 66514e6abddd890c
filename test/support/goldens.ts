/** Reference values made by scripts/golden: what torch and transformers computed, read as f32. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeF32 } from '../../core/float.js';
import { SafetensorsFile } from '../../formats/safetensors/file.js';
import { ROOT } from './files.js';

export interface GoldenTensor {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

export interface Golden<Document> {
  readonly document: Document;
  readonly tensors: ReadonlyMap<string, GoldenTensor>;
  /** A tensor that must be there. */
  tensor(name: string): GoldenTensor;
}

export interface OpDocument<Case> {
  readonly tolerance: number;
  readonly noise: number;
  readonly cases: Readonly<Record<string, Case>>;
}

/** How golden.json describes one model; `input_ids` and so on as transformers names them. */
export interface ModelDocument {
  readonly tolerance: number;
  readonly noise: number;
  readonly class: string;
  readonly loss?: number;
  readonly gradientNoise?: number;
  readonly input_ids?: readonly (readonly number[])[];
  readonly attention_mask?: readonly (readonly number[])[];
  readonly position_ids?: readonly (readonly number[])[];
  readonly token_type_ids?: readonly (readonly number[])[];
  readonly decoder_input_ids?: readonly (readonly number[])[];
  readonly resolved: ResolvedModel;
}

/** What the loaded model says of itself; empty for graphs without rotary embeddings. */
export interface ResolvedModel {
  readonly headDim?: number;
  readonly kvHeads?: number;
  readonly scales?: readonly number[];
  readonly windows?: readonly (number | null)[];
  readonly 'rope.full'?: ResolvedRope;
  readonly 'rope.sliding'?: ResolvedRope;
}

export interface ResolvedRope {
  readonly inverseFrequencies: readonly number[];
  readonly attentionFactor: number;
}

const GOLDEN = join(ROOT, 'test', 'golden');

function read<Document>(json: string, tensorFile: string): Golden<Document> {
  using file = SafetensorsFile.open(tensorFile);
  const tensors = new Map<string, GoldenTensor>();
  for (const name of file.entries.keys()) {
    const view = file.read(name);
    tensors.set(name, { shape: view.shape, values: decodeF32(view.dtype, view.bytes) });
  }
  const tensor = (name: string): GoldenTensor => {
    const found = tensors.get(name);
    if (found === undefined) throw new Error(`${tensorFile} has no ${name}`);
    return found;
  };
  return { document: JSON.parse(readFileSync(json, 'utf8')) as Document, tensors, tensor };
}

/** One operation: its cases, and tensors named `<case>.<tensor>`. */
export const opGolden = <Case>(op: string): Golden<OpDocument<Case>> => read(join(GOLDEN, 'ops', `${op}.json`), join(GOLDEN, 'ops', `${op}.safetensors`));

/** Folder of a model's config.json and model.safetensors. */
export const modelFolder = (name: string): string => join(GOLDEN, 'models', name);
export const modelNames = (): string[] => readdirSync(join(GOLDEN, 'models')).sort();
export const modelConfigOf = (name: string): unknown => JSON.parse(readFileSync(join(modelFolder(name), 'config.json'), 'utf8'));
export const modelGolden = (name: string): Golden<ModelDocument> => read(join(modelFolder(name), 'golden.json'), join(modelFolder(name), 'golden.safetensors'));

export interface CalibrationDocument {
  readonly tolerance: { readonly inputs: number; readonly gradients: number; readonly kronecker: number };
  /** Mean over sequences that predict something, nats. */
  readonly loss: number;
  /** Blocks whose Kronecker factors are stored. */
  readonly kroneckerBlocks: readonly number[];
  readonly sequences: readonly (readonly number[])[];
}

/** Statistics of a model's layers; `tiny` is the shipped base, the others are models of `modelNames`. */
export const calibrationGolden = (name: string): Golden<CalibrationDocument> =>
  read(join(GOLDEN, 'calibrate', `${name}.json`), join(GOLDEN, 'calibrate', `${name}.safetensors`));
export const calibrationNames = (): string[] =>
  readdirSync(join(GOLDEN, 'calibrate'))
    .filter((f) => f.endsWith('.json'))
    .map((f) => f.slice(0, -'.json'.length))
    .sort();

/** Largest absolute difference; infinite where the lengths differ or a value is not a number. */
export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let max = 0;
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs(a[i]! - b[i]!);
    if (!(d <= max)) max = Number.isNaN(d) ? Infinity : d;
  }
  return max;
}
