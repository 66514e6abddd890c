/** Codes one tensor: hash base and tuned on the way, code, and for a lossy method decode again to learn what restore yields. */
import { rowCount } from '../../core/shape.js';
import type { Ctx } from '../../methods/define.js';
import type { DeltaCodec, EncodeInfo, TensorSource } from '../../methods/kinds.js';
import { ErrorSink } from '../error-sink.js';
import type { EncodeResult, EncodeTask } from '../messages.js';
import { HashingSource, rowsOf, shifted } from '../sources.js';
import { SpoolParts } from '../spool-parts.js';
import { EXTRA_ROWS } from '../pieces.js';
import type { TaskControl, WorkerState } from '../state.js';

export async function encode(state: WorkerState, task: EncodeTask, control: TaskControl): Promise<EncodeResult> {
  const tuned = new HashingSource(await state.reader(task.tuned.checkpoint), task.tuned.name);
  const base = task.base === undefined ? undefined : new HashingSource(await state.reader(task.base.checkpoint), task.base.name);
  const codec = await state.codec(task.method);
  const lossless = await state.codec({ name: 'lossless', params: {} });
  const ctx = state.ctx(task.settings, tuned.name, control);
  const parts = new SpoolParts(task.spool);
  try {
    const pieces = split(base, tuned, task.commonRows, codec, lossless);
    const infos: EncodeInfo[] = [];
    for (const p of pieces) {
      const info = await p.codec.encode(ctx, p.base, p.tuned, parts.prefixed(p.prefix), task.assigned);
      if (info.identical) parts.drop(p.prefix);
      infos.push(info);
    }
    const spooled = parts.finish();
    const tunedSha256 = await tuned.digest(control.checkpointCancel);
    const baseSha256 = await base?.digest(control.checkpointCancel);
    const lossy = pieces.some((p, i) => !p.codec.lossless && !infos[i]!.identical);
    const restored: { sha256: string; error?: number } = lossy ? await decodeAgain(ctx, pieces, infos, parts, base, tuned) : { sha256: tunedSha256 };
    return {
      info: merge(infos, restored.error),
      parts: spooled,
      tunedSha256,
      restoredSha256: restored.sha256,
      ...(baseSha256 === undefined ? {} : { baseSha256 }),
    };
  } finally {
    parts.close();
  }
}

interface Piece {
  readonly codec: DeltaCodec;
  readonly base: TensorSource | undefined;
  readonly tuned: TensorSource;
  readonly prefix: string;
  readonly offset: number;
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
  pieces: readonly Piece[],
  infos: readonly EncodeInfo[],
  parts: SpoolParts,
  base: TensorSource | undefined,
  tuned: TensorSource,
): Promise<{ sha256: string; error: number }> {
  const sink = new ErrorSink(base, tuned);
  for (const [i, p] of pieces.entries()) {
    if (infos[i]!.identical && p.base !== undefined) await sink.copy(p.base, p.offset);
    else await p.codec.decode(ctx, p.base, parts.source(p.prefix), p.tuned, shifted(sink, p.offset));
  }
  return sink.result();
}

function merge(infos: readonly EncodeInfo[], error: number | undefined): EncodeInfo {
  return {
    identical: infos.every((i) => i.identical),
    facts: infos[0]!.facts,
    ...(error === undefined ? {} : { error }),
  };
}
