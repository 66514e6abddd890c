/** Decodes one tensor of a delta from its base and its parts: the common rows, then those that only the tuned tensor has. */
import { PithError } from '../core/errors.js';
import { panelBuffer } from '../core/panel-buffer.js';
import { byteLength } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import type { DeltaFile } from '../formats/delta/file.js';
import type { TensorEntry } from '../formats/delta/schema.js';
import type { DeltaCodec, PartSource, TensorSink, TensorSource } from '../methods/kinds.js';
import type { Codecs, TaskControl } from './codecs.js';
import type { RunSettings } from './messages/refs.js';
import { EXTRA_ROWS } from './pieces.js';
import { rowsOf, shifted } from './sources.js';

/** What a codec says of damaged data: it knows neither file nor tensor. */
const STREAM_ERRORS: ReadonlySet<string> = new Set(['RESIDUAL_MALFORMED', 'FACTORS_MALFORMED', 'LEVELS_MALFORMED', 'SPARSE_MALFORMED']);

export async function decodePieces(
  codecs: Codecs,
  settings: RunSettings,
  control: TaskControl,
  delta: DeltaFile,
  entry: TensorEntry,
  base: TensorSource | undefined,
  sink: TensorSink,
): Promise<void> {
  const ctx = codecs.ctx(settings, entry.name, control);
  const common = entry.base?.rows ?? entry.shape[0] ?? 1;
  const grown = entry.base?.rows !== undefined && entry.shape.length > 0;
  const target: TensorInfo = grown ? { ...entry, shape: [common, ...entry.shape.slice(1)] } : entry;
  const source = base !== undefined && grown ? rowsOf(base, 0, common) : base;
  const has = (prefix: string): boolean => Object.keys(entry.parts).some((p) => p.startsWith(EXTRA_ROWS) === (prefix !== ''));
  await namingTensor(delta, entry.name, async () => {
    if (entry.method === 'identical' || !has('')) await copy(source ?? missing(delta, entry), sink, control);
    else await (await codecOf(codecs, delta, entry.method)).decode(ctx, source, partsOf(delta, entry.name, ''), target, sink);
    if (!grown || common === entry.shape[0]) return;
    const rest: TensorInfo = { ...entry, shape: [entry.shape[0]! - common, ...entry.shape.slice(1)] };
    const lossless = await codecs.codec({ name: 'lossless', params: {} });
    await lossless.decode(ctx, undefined, partsOf(delta, entry.name, EXTRA_ROWS), rest, shifted(sink, byteLength(entry.dtype, target.shape)));
  });
}

/** What a codec says of damaged data becomes DELTA_TENSOR, with file and tensor. */
export async function namingTensor(delta: DeltaFile, tensor: string, decode: () => Promise<void>): Promise<void> {
  try {
    await decode();
  } catch (error) {
    if (error instanceof PithError && STREAM_ERRORS.has(error.code)) {
      throw new PithError('DELTA_TENSOR', { file: delta.path, tensor, message: error.message }, { cause: error });
    }
    throw error;
  }
}

/** DELTA_MALFORMED when the file names a method or parameters that are not known here, DELTA_VERSION for a later version of one. */
export async function codecOf(codecs: Codecs, delta: DeltaFile, index: number): Promise<DeltaCodec> {
  const method = delta.manifest.methods[index]!;
  try {
    const codec = await codecs.codec({ name: method.name, params: method.params });
    if (method.version <= codec.version) return codec;
    throw new PithError('DELTA_VERSION', { file: `${delta.path}: method ${method.name}`, expected: codec.version, got: method.version });
  } catch (error) {
    // 64 is for what the user asked; here the file asks
    if (!(error instanceof PithError) || error.exitCode !== 64) throw error;
    throw new PithError('DELTA_MALFORMED', { file: delta.path, message: error.message }, { cause: error });
  }
}

function partsOf(delta: DeltaFile, tensor: string, prefix: string): PartSource {
  return {
    info: (part) => delta.partInfo(tensor, prefix + part),
    read: async (part, begin, end) => delta.readPart(tensor, prefix + part, begin, end),
    readInto: async (part, begin, target) => delta.readPartInto(tensor, prefix + part, begin, target),
  };
}

async function copy(base: TensorSource, sink: TensorSink, control: TaskControl): Promise<void> {
  const buffer = panelBuffer(base.byteLength, 'copy');
  for (let at = 0; at < base.byteLength; at += buffer.length) {
    control.checkpointCancel();
    const piece = buffer.subarray(0, Math.min(buffer.length, base.byteLength - at));
    await base.readInto(at, piece);
    await sink.write(at, piece);
    control.report(piece.length);
  }
}

function missing(delta: DeltaFile, entry: TensorEntry): never {
  throw new PithError('DELTA_TENSOR', { file: delta.path, tensor: entry.name, message: 'it has neither parts nor a base' });
}
