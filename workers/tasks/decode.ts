/** Restores one tensor from its base and its parts; writes it into the planned file, or only hashes it. */
import { PithError } from '../../core/errors.js';
import { byteLength } from '../../core/shape.js';
import type { TensorInfo } from '../../core/tensor.js';
import * as io from '../../formats/io.js';
import type { DeltaFile } from '../../formats/delta/file.js';
import type { TensorEntry } from '../../formats/delta/schema.js';
import type { DeltaCodec, PartSource, TensorSink, TensorSource } from '../../methods/kinds.js';
import type { DecodeResult, DecodeTask } from '../messages.js';
import { EXTRA_ROWS } from '../pieces.js';
import { HashingSink, HashingSource, rowsOf, shifted } from '../sources.js';
import type { TaskControl, WorkerState } from '../state.js';
import { panelBuffer } from '../../core/panel-buffer.js';

/** What a codec says of damaged data: it knows neither file nor tensor. */
const STREAM_ERRORS: ReadonlySet<string> = new Set(['RESIDUAL_MALFORMED', 'FACTORS_MALFORMED', 'LEVELS_MALFORMED']);

export async function decode(state: WorkerState, task: DecodeTask, control: TaskControl): Promise<DecodeResult> {
  const delta = await state.delta(task.delta);
  const entry = delta.entry(task.tensor);
  const base = task.base === undefined ? undefined : new HashingSource(await state.reader(task.base.checkpoint), task.base.name);
  const fd = task.target === undefined ? undefined : io.openWrite(task.target.file, 'r+');
  try {
    const at = task.target?.position ?? 0;
    const sink = new HashingSink((position, bytes) => {
      if (fd !== undefined) io.writeFully(fd, bytes, at + position, task.target!.file);
    });
    try {
      await decodePieces(state, task, control, delta, entry, base, sink);
    } catch (error) {
      if (!(error instanceof PithError) || error.code !== 'DELTA_TENSOR') throw error;
      // another base decodes to nonsense: say what is really wrong
      const baseSha256 = await base?.digest(control.checkpointCancel);
      const expected = entry.base?.sha256;
      if (task.lenient !== true && baseSha256 !== undefined && expected !== undefined && baseSha256 !== expected) {
        throw new PithError('WRONG_BASE', { file: delta.path, tensor: entry.name, expected, got: baseSha256, base: task.base?.checkpoint.path ?? '' });
      }
      if (task.lenient !== true) throw error;
      return { sha256: '', damaged: error.message, ...(baseSha256 === undefined ? {} : { baseSha256 }) };
    }
    const expected = byteLength(entry.dtype, entry.shape);
    if (sink.bytes !== expected)
      throw new PithError('DELTA_TENSOR', { file: delta.path, tensor: entry.name, message: `expected ${expected} bytes, got ${sink.bytes}` });
    const baseSha256 = await base?.digest(control.checkpointCancel);
    return { sha256: sink.digest(), ...(baseSha256 === undefined ? {} : { baseSha256 }) };
  } finally {
    if (fd !== undefined) io.close(fd);
  }
}

async function decodePieces(
  state: WorkerState,
  task: DecodeTask,
  control: TaskControl,
  delta: DeltaFile,
  entry: TensorEntry,
  base: HashingSource | undefined,
  sink: TensorSink,
): Promise<void> {
  const ctx = state.ctx(task.settings, entry.name, control);
  const common = entry.base?.rows ?? entry.shape[0] ?? 1;
  const grown = entry.base?.rows !== undefined && entry.shape.length > 0;
  const target: TensorInfo = grown ? { ...entry, shape: [common, ...entry.shape.slice(1)] } : entry;
  const source = base !== undefined && grown ? rowsOf(base, 0, common) : base;
  const has = (prefix: string): boolean => Object.keys(entry.parts).some((p) => p.startsWith(EXTRA_ROWS) === (prefix !== ''));
  try {
    if (entry.method === 'identical' || !has('')) await copy(source ?? missing(delta, entry), sink, control);
    else await (await codecOf(state, delta, entry.method)).decode(ctx, source, partsOf(delta, entry.name, ''), target, sink);
    if (!grown || common === entry.shape[0]) return;
    const rest: TensorInfo = { ...entry, shape: [entry.shape[0]! - common, ...entry.shape.slice(1)] };
    const lossless = await state.codec({ name: 'lossless', params: {} });
    await lossless.decode(ctx, undefined, partsOf(delta, entry.name, EXTRA_ROWS), rest, shifted(sink, byteLength(entry.dtype, target.shape)));
  } catch (error) {
    if (error instanceof PithError && STREAM_ERRORS.has(error.code)) {
      throw new PithError('DELTA_TENSOR', { file: delta.path, tensor: entry.name, message: error.message }, { cause: error });
    }
    throw error;
  }
}

/** DELTA_MALFORMED when the file names a method or parameters that are not known here, DELTA_VERSION for a later version of one. */
async function codecOf(state: WorkerState, delta: DeltaFile, index: number): Promise<DeltaCodec> {
  const method = delta.manifest.methods[index]!;
  try {
    const codec = await state.codec({ name: method.name, params: method.params });
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
