/** Codes one tensor as an object: against its base, or alone where that is smaller, then gives it its name. */
import { createHash } from 'node:crypto';
import { dirname } from 'node:path';
import { PithError } from '../../core/errors.js';
import { rowCount } from '../../core/shape.js';
import * as io from '../../formats/io.js';
import { SKETCH, writeObject, type ObjectPart } from '../../formats/store/object.js';
import { contentPrefix, MAX_DEPTH } from '../../formats/store/schema.js';
import { sketchPosition, sketchWords } from '../../kernels/residual/sketch.js';
import { residualElements, wordKind } from '../../kernels/residual/words.js';
import type { Ctx } from '../../methods/define.js';
import type { DeltaCodec, TensorSource } from '../../methods/kinds.js';
import type { StorePutResult, StorePutTask } from '../messages/store.js';
import { EXTRA_ROWS } from '../pieces.js';
import { HashingSource, rowsOf } from '../sources.js';
import { SpoolParts, spoolFile } from '../spool-parts.js';
import type { TaskControl, WorkerState } from '../state.js';

/** Above this share of the raw bytes the tensor is coded alone too, and the smaller one kept. */
const POOR_SHARE = 0.5;

interface Coded {
  readonly parts: readonly ObjectPart[];
  readonly base: { readonly object: string; readonly rows?: number } | null;
  readonly depth: number;
}

export async function storePut(state: WorkerState, task: StorePutTask, control: TaskControl): Promise<StorePutResult> {
  const store = await state.store(task.store);
  const source = new HashingSource(await state.reader(task.tensor.checkpoint), task.tensor.name, { prefix: contentPrefix });
  const lossless = await state.codec({ name: 'lossless', params: {} });
  const ctx = state.ctx(task.settings, source.name, control);
  const made: string[] = [];
  const temp = `${task.spool}.object`;
  try {
    const against = task.base === undefined ? undefined : await codeAgainst(state, task, task.base, source, lossless, ctx, control, made);
    const poor = against === undefined || size(against) > POOR_SHARE * source.byteLength;
    const alone: Coded | undefined = poor
      ? { parts: await code(lossless, ctx, undefined, source, `${task.spool}.alone`, made), base: null, depth: 0 }
      : undefined;
    const best = against === undefined || (alone !== undefined && size(alone) < size(against)) ? alone! : against;
    const got = await source.digest(control.checkpointCancel);
    if (got !== task.object) throw new PithError('FILE_CHANGED', { file: task.tensor.checkpoint.path, expected: task.object, got });
    made.push(temp);
    const { dtype, shape } = source;
    const head = { dtype, shape: [...shape], coding: 'lossless' as const, base: best.base, depth: best.depth };
    const bytes = writeObject(temp, head, [...best.parts, await sketchOf(source)]);
    const path = store.folder.object(task.object);
    io.mkdir(dirname(path));
    const placed = task.replace ? (io.rename(temp, path), true) : io.linkNew(temp, path);
    return { bytes: placed ? bytes : 0, depth: best.depth, ...(best.base === null ? {} : { base: best.base.object }) };
  } finally {
    for (const file of made) io.remove(file);
  }
}

const size = (c: Coded): number => c.parts.reduce((sum, p) => sum + p.bytes, 0);

/** undefined when the base cannot be decoded: the tensor does not depend on it. */
async function codeAgainst(
  state: WorkerState,
  task: StorePutTask,
  ref: NonNullable<StorePutTask['base']>,
  source: HashingSource,
  lossless: DeltaCodec,
  ctx: Ctx,
  control: TaskControl,
  made: string[],
): Promise<Coded | undefined> {
  const store = await state.store(task.store);
  try {
    using file = store.open(ref.object);
    const depth = file.head.depth + 1;
    if (depth > MAX_DEPTH) return undefined;
    using base = await store.load(ref.object, { report: () => undefined, checkpointCancel: control.checkpointCancel });
    const { rows } = ref;
    const common = rows === undefined ? source : rowsOf(source, 0, rows);
    const parts = await code(lossless, ctx, rows === undefined ? base : rowsOf(base, 0, rows), common, task.spool, made);
    const total = rowCount(source.shape);
    if (rows !== undefined && rows < total) {
      const extra = await code(lossless, ctx, undefined, rowsOf(source, rows, total), `${task.spool}.rest`, made);
      parts.push(...extra.map((p) => ({ ...p, part: EXTRA_ROWS + p.part })));
    }
    return { parts, base: ref, depth };
  } catch (error) {
    if (error instanceof PithError && (error.code === 'OBJECT_DAMAGED' || error.code === 'OBJECT_MISSING')) return undefined;
    throw error;
  }
}

async function code(lossless: DeltaCodec, ctx: Ctx, base: TensorSource | undefined, tuned: TensorSource, spool: string, made: string[]): Promise<ObjectPart[]> {
  const parts = new SpoolParts(spool);
  try {
    await lossless.encode(ctx, base, tuned, parts.prefixed(''), {});
    return parts.finish().map((p) => {
      const from = spoolFile(spool, p.part);
      made.push(from);
      return { part: p.part, bytes: p.bytes, sha256: p.sha256, from };
    });
  } finally {
    parts.close();
  }
}

async function sketchOf(source: TensorSource): Promise<ObjectPart> {
  const elements = residualElements(source.dtype, source.shape);
  const wordBytes = wordKind(source.dtype).width / 8;
  const bytes = new Uint8Array(sketchWords(elements) * wordBytes);
  for (let k = 0; k < bytes.length / wordBytes; k++) {
    await source.readInto(sketchPosition(elements, k) * wordBytes, bytes.subarray(k * wordBytes, (k + 1) * wordBytes));
  }
  return { part: SKETCH, bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex'), from: bytes };
}
