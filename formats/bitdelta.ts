/**
 * A diff as the release of BitDelta saves it (github.com/FasterDecoding/BitDelta, bitdelta/diff.py: save_diff), its dictionary as a
 * safetensors file:
 *   <module>.mask   I32 [n / 32, m]: bit k, least significant first, of word (i, j) is the sign of weight (j, 32 i + k); 1 is plus
 *   <module>.coeff  F32 scalar
 *   <name>.weight, <name>.bias: whole tensors of the fine-tune
 * It names no base and holds no hashes: nothing that is made with it can be proven.
 */
import { PithError } from '../core/errors.js';
import { isFloat } from '../core/float.js';
import { elementCount } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import { SafetensorsFile } from './safetensors/file.js';

export interface CodedModule {
  readonly mask: TensorInfo;
  readonly coeff: TensorInfo;
}

const [MASK, COEFF] = ['.mask', '.coeff'] as const;

/** Weights of one word of a mask. */
export const WORD_BITS = 32;

export class BitDeltaDiff implements Disposable {
  private constructor(
    readonly file: SafetensorsFile,
    /** Path of the module -> its sign mask and scale. */
    readonly modules: ReadonlyMap<string, CodedModule>,
    /** Name of a base tensor -> the tensor that takes its place. */
    readonly whole: ReadonlyMap<string, TensorInfo>,
  ) {}

  get path(): string {
    return this.file.path;
  }

  /** undefined for a file of another kind; DIFF_TENSOR (65) for a part that is missing or foreign. Reads the header alone. */
  static open(path: string): BitDeltaDiff | undefined {
    const file = SafetensorsFile.open(path);
    try {
      const modules = new Map<string, CodedModule>();
      const whole = new Map<string, TensorInfo>();
      const ours = file.metadata?.get('pith.format') !== undefined;
      const paths = ours ? [] : [...file.entries.keys()].filter((name) => name.endsWith(MASK)).map((name) => name.slice(0, -MASK.length));
      if (!paths.some((p) => file.entries.has(p + COEFF))) {
        file.close();
        return undefined;
      }
      for (const { info } of file.entries.values()) {
        if (info.name.endsWith(MASK)) modules.set(info.name.slice(0, -MASK.length), coded(file, info.name.slice(0, -MASK.length)));
        else if (info.name.endsWith(COEFF)) part(file, info.name.slice(0, -COEFF.length) + MASK);
        else if (/\.(weight|bias)$/.test(info.name) && isFloat(info.dtype)) whole.set(info.name, info);
        else
          throw new PithError('DIFF_TENSOR', { file: path, tensor: info.name, message: 'it is neither a mask, a coeff, nor a weight or bias in a float type' });
      }
      return new BitDeltaDiff(file, modules, whole);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.file.close();
  }
}

function part(file: SafetensorsFile, name: string): TensorInfo {
  const entry = file.entries.get(name);
  if (entry === undefined) throw new PithError('DIFF_TENSOR', { file: file.path, tensor: name, message: 'it is missing' });
  return entry.info;
}

function coded(file: SafetensorsFile, path: string): CodedModule {
  const [mask, coeff] = [part(file, path + MASK), part(file, path + COEFF)];
  const wrong = (info: TensorInfo, expected: string): PithError => {
    const message = `expected ${expected}, got ${info.dtype} [${info.shape.join(', ')}]`;
    return new PithError('DIFF_TENSOR', { file: file.path, tensor: info.name, message });
  };
  if (mask.dtype !== 'I32' || mask.shape.length !== 2) throw wrong(mask, 'I32 [n / 32, m]');
  if (!isFloat(coeff.dtype) || elementCount(coeff.shape) !== 1) throw wrong(coeff, 'one float');
  return { mask, coeff };
}
