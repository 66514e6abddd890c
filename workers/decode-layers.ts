/** A tensor of a delta of two layers: the lossy layer's result first, then the exact remainder on it. */
import { PithError } from '../core/errors.js';
import type { DeltaFile } from '../formats/delta/file.js';
import type { Quality, TensorEntry } from '../formats/delta/schema.js';
import type { PartSource, TensorSink, TensorSource } from '../methods/kinds.js';
import type { Codecs, TaskControl } from './codecs.js';
import { codecOf, decodePieces, namingTensor } from './decode-pieces.js';
import type { RunSettings } from './messages/refs.js';
import { Scratch } from './scratch.js';
import { HashingSink } from './sources.js';

/** The part that the lossless codec writes. */
export const REMAINDER_PART = 'residual';

/** Whether a tensor needs both layers. */
export const hasRemainder = (delta: DeltaFile, entry: TensorEntry, quality: Quality): boolean => quality === 'exact' && delta.exact?.has(entry.name) === true;

/** What the lossy layer restores to, proven: DELTA_TENSOR when it is not what the file promises. The caller disposes of it. */
export async function decodeLossy(
  codecs: Codecs,
  settings: RunSettings,
  control: TaskControl,
  delta: DeltaFile,
  entry: TensorEntry,
  base: TensorSource | undefined,
): Promise<Scratch> {
  const tensor = new Scratch({ name: entry.name, dtype: entry.dtype, shape: entry.shape });
  try {
    const hashing = new HashingSink();
    const sink: TensorSink = {
      write: async (position, bytes) => {
        await hashing.write(position, bytes);
        await tensor.write(position, bytes);
      },
    };
    await decodePieces(codecs, settings, control, delta, entry, base, sink);
    const [expected, got] = [delta.expected(entry, 'lossy'), hashing.digest()];
    if (got !== expected)
      throw new PithError('DELTA_TENSOR', { file: delta.path, tensor: entry.name, message: `the lossy layer: expected sha256 ${expected}, got ${got}` });
    return tensor;
  } catch (error) {
    tensor[Symbol.dispose]();
    throw error;
  }
}

/** The tuned tensor, from what the lossy layer restores to. DELTA_MALFORMED when the file names a lossy method for it. */
export async function decodeRemainder(
  codecs: Codecs,
  settings: RunSettings,
  control: TaskControl,
  delta: DeltaFile,
  entry: TensorEntry,
  lossy: TensorSource,
  sink: TensorSink,
): Promise<void> {
  const layer = delta.manifest.exact!;
  const codec = await codecOf(codecs, delta, layer.method);
  if (!codec.lossless) throw new PithError('DELTA_MALFORMED', { file: delta.path, message: 'its exact layer is coded by a lossy method' });
  const ctx = codecs.ctx(settings, entry.name, control);
  await namingTensor(delta, entry.name, () => codec.decode(ctx, lossy, remainderOf(delta, entry.name), entry, sink));
}

function remainderOf(delta: DeltaFile, tensor: string): PartSource {
  const total = (): number => delta.exact?.bytes(tensor) ?? 0;
  const readInto = async (_: string, begin: number, target: Uint8Array): Promise<void> => delta.exact?.readInto(tensor, begin, target);
  return {
    info: (part) => ({ name: part, dtype: 'U8', shape: [total()] }),
    read: async (part, begin = 0, end = total()) => {
      const bytes = new Uint8Array(end - begin);
      await readInto(part, begin, bytes);
      return bytes;
    },
    readInto,
  };
}

/** Half of each stage counts: a tensor is one tensor in the progress. */
export function halved(control: TaskControl): TaskControl {
  return { ...control, report: (bytes) => control.report(bytes / 2) };
}
