/** Codes one tensor: hash base and tuned on the way, code, and for a lossy method decode again to learn what restore yields. */
import { rowCount } from '../../core/shape.js';
import type { Ctx } from '../../methods/define.js';
import type { Assigned, CodecStats, DeltaCodec, EncodeInfo, TensorSource } from '../../methods/kinds.js';
import { ErrorSink } from '../error-sink.js';
import type { EncodeResult, EncodeTask } from '../messages/delta.js';
import type { LayerStatsRef } from '../messages/refs.js';
import { HashingSource, rowsOf, shifted } from '../sources.js';
import { SpoolParts } from '../spool-parts.js';
import { EXTRA_ROWS } from '../pieces.js';
import type { TaskControl, WorkerState } from '../state.js';

export async function encode(state: WorkerState, task: EncodeTask, control: TaskControl): Promise<EncodeResult> {
  const codec = await state.codec(task.method);
  // a lossy codec reads both again to decode and to compare
  const keep = (use: string): { keep?: string } => (codec.lossless ? {} : { keep: use });
  const tuned = new HashingSource(await state.reader(task.tuned.checkpoint), task.tuned.name, keep('encode tuned'));
  const base = task.base === undefined ? undefined : new HashingSource(await state.reader(task.base.checkpoint), task.base.name, keep('encode base'));
  const lossless = await state.codec({ name: 'lossless', params: {} });
  const ctx = state.ctx(task.settings, tuned.name, control);
  const assigned = task.point === undefined ? {} : (codec.budget?.assign(task.point) ?? {});
  const stats = task.stats === undefined ? undefined : await layerStats(state, codec, task.stats);
  const parts = new SpoolParts(task.spool);
  try {
    const pieces = split(base, tuned, task.commonRows, codec, lossless);
    const coded: Coded[] = [];
    for (const p of pieces) coded.push(await encodePiece(ctx, p, parts, lossless, assigned, stats));
    const spooled = parts.finish();
    const tunedSha256 = await tuned.digest(control.checkpointCancel);
    const baseSha256 = await base?.digest(control.checkpointCancel);
    const lossy = coded.some((p) => !p.codec.lossless && !p.info.identical);
    const restored = lossy ? await decodeAgain(ctx, coded, parts, new ErrorSink(base, tuned, await state.panels())) : undefined;
    return {
      info: merge(coded, restored?.error),
      parts: spooled,
      tunedSha256,
      restoredSha256: restored?.sha256 ?? tunedSha256,
      byMethod: coded[0]!.codec === codec,
      ...(restored === undefined ? {} : { squares: restored.squares }),
      ...(baseSha256 === undefined ? {} : { baseSha256 }),
    };
  } finally {
    parts.close();
  }
}

/** Only what the codec makes use of is read. */
async function layerStats(state: WorkerState, codec: DeltaCodec, { file, module, transposed }: LayerStatsRef): Promise<CodecStats> {
  const stats = await state.stats(file);
  const read = Object.fromEntries((codec.uses ?? []).map((name) => [name, stats.read(module, name)]));
  return { tokens: stats.tokens(module), transposed, ...read };
}

interface Piece {
  readonly codec: DeltaCodec;
  readonly base: TensorSource | undefined;
  readonly tuned: TensorSource;
  readonly prefix: string;
  readonly offset: number;
}

interface Coded extends Piece {
  readonly info: EncodeInfo;
}

/** A method that declines a tensor leaves it to the lossless coder. */
async function encodePiece(ctx: Ctx, piece: Piece, parts: SpoolParts, lossless: DeltaCodec, assigned: Assigned, stats?: CodecStats): Promise<Coded> {
  const into = parts.prefixed(piece.prefix);
  let coded: Coded = { ...piece, info: await piece.codec.encode(ctx, piece.base, piece.tuned, into, assigned, stats) };
  if (coded.info.declined === true) {
    parts.drop(piece.prefix);
    coded = { ...piece, codec: lossless, info: await lossless.encode(ctx, piece.base, piece.tuned, into, {}) };
  }
  if (coded.info.identical) parts.drop(piece.prefix);
  return coded;
}

/** One piece, or two when the tuned tensor has more rows than the base: the common rows, then the others standalone. */
function split(base: TensorSource | undefined, tuned: TensorSource, commonRows: number | undefined, codec: DeltaCodec, lossless: DeltaCodec): Piece[] {
  if (base === undefined || commonRows === undefined) return [{ codec, base, tuned, prefix: '', offset: 0 }];
  const rows = rowCount(tuned.shape);
  const common = rowsOf(tuned, 0, commonRows);
  const first: Piece = { codec, base: rowsOf(base, 0, commonRows), tuned: common, prefix: '', offset: 0 };
  if (rows === commonRows) return [first];
  return [first, { codec: lossless, base: undefined, tuned: rowsOf(tuned, commonRows, rows), prefix: EXTRA_ROWS, offset: common.byteLength }];
}

async function decodeAgain(
  ctx: Ctx,
  coded: readonly Coded[],
  parts: SpoolParts,
  sink: ErrorSink,
): Promise<{ sha256: string; error: number; squares: [number, number] }> {
  for (const p of coded) {
    if (p.info.identical && p.base !== undefined) await sink.copy(p.base, p.offset);
    else await p.codec.decode(ctx, p.base, parts.source(p.prefix), p.tuned, shifted(sink, p.offset));
  }
  return sink.result();
}

function merge(coded: readonly Coded[], error: number | undefined): EncodeInfo {
  return {
    identical: coded.every((p) => p.info.identical),
    facts: coded[0]!.info.facts,
    ...(error === undefined ? {} : { error }),
  };
}
