/** `pith delta split` and `join`: a delta of two layers as two files, and the same file again. */
import { resolve } from 'node:path';
import { PithError } from '../core/errors.js';
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { DeltaFile } from '../formats/delta/file.js';
import { cutExact, cutLossy, ExactFile, joinLayers } from '../formats/delta/layers.js';
import type { Span } from '../formats/delta/stored.js';
import { fetchSpans, locateDelta, type LocatedDelta, type RemoteAccess } from './delta-locate.js';
import { partialFolder } from './journal.js';
import { checkOutput, published, requireSpace, RESULT } from './publish.js';

interface Common {
  readonly force: boolean;
  readonly signal: AbortSignal;
}

export interface SplitOptions extends Common, RemoteAccess {
  /** A delta of two layers: a file, or a URL. */
  readonly delta: string;
  /** Where the layers go; one at least. */
  readonly lossy?: string;
  readonly exact?: string;
}

export interface JoinOptions extends Common {
  readonly lossy: string;
  readonly exact: string;
  readonly out: string;
}

export interface WrittenFile {
  readonly path: string;
  readonly bytes: number;
}

export interface SplitReport {
  readonly delta: string;
  readonly lossy?: WrittenFile;
  readonly exact?: WrittenFile;
}

/** Interval of progress events while bytes are copied, in ms. */
const TICK_MS = 100;

const JOB = 'delta split';

/** NO_EXACT_LAYER for a delta of one layer. Of a remote one only what is written is fetched. Both files come, or none. */
export async function* deltaSplit(o: SplitOptions): Pipeline<SplitReport> {
  const started = performance.now();
  const outs = [o.lossy, o.exact].filter((path) => path !== undefined);
  if (outs.length === 0) throw new PithError('USAGE', { message: 'split: say where a layer goes, with --lossy, --exact or both' });
  if (o.lossy !== undefined && o.exact !== undefined && resolve(o.lossy) === resolve(o.exact)) {
    throw new PithError('USAGE', { message: 'split: --lossy and --exact name one file' });
  }
  for (const path of outs) checkOutput(path, o.force);
  using located = await locateDelta(o.delta, { ...o, exact: o.exact !== undefined, folder: partialFolder(resolve(outs[0]!)) });
  const { delta } = located;
  if (delta.manifest.exact === undefined) throw new PithError('NO_EXACT_LAYER', { file: delta.path });
  yield { type: 'job.start', job: JOB, totalBytes: delta.file.bytes, tasks: outs.length, resumedBytes: 0 };
  const report = yield* writeLayers(o, located);
  yield { type: 'job.done', job: JOB, ms: performance.now() - started };
  return { delta: delta.path, ...report };
}

async function* writeLayers(o: SplitOptions, located: LocatedDelta): AsyncGenerator<ProgressEvent, Omit<SplitReport, 'delta'>, void> {
  const { delta } = located;
  const { lossyBytes } = delta;
  const { lossy, exact } = o;
  const writeExact = async function* (): AsyncGenerator<ProgressEvent, Omit<SplitReport, 'delta'>, void> {
    if (exact === undefined) return {};
    const part = [lossyBytes, delta.file.bytes] as const;
    const file = yield* published(exact, o.force, (spool) => writeLayer(o, located, part, exact, () => cutExact(delta, spool(RESULT))));
    return { exact: file };
  };
  if (lossy === undefined) return yield* writeExact();
  // the lossy file gets its name last: with a damaged exact layer there is neither
  return yield* published(lossy, o.force, async function* (spool) {
    const file = yield* writeLayer(o, located, [0, lossyBytes], lossy, () => cutLossy(delta, spool(RESULT)));
    return { lossy: file, ...(yield* writeExact()) };
  });
}

async function* writeLayer(
  o: SplitOptions,
  from: LocatedDelta,
  part: Span,
  path: string,
  cut: () => Generator<number, number, void>,
): AsyncGenerator<ProgressEvent, WrittenFile, void> {
  yield* fetchSpans(from, [part]);
  requireSpace(path, part[1] - part[0]);
  return { path, bytes: yield* stepped(JOB, cut(), part[1] - part[0], o.signal) };
}

/** LAYERS_MISMATCH when the two were not cut from one file. */
export async function* deltaJoin(o: JoinOptions): Pipeline<WrittenFile> {
  const started = performance.now();
  const job = 'delta join';
  checkOutput(o.out, o.force);
  using lossy = DeltaFile.open(o.lossy);
  using exact = ExactFile.open(o.exact);
  requireSpace(o.out, exact.fileBytes);
  yield { type: 'job.start', job, totalBytes: exact.fileBytes, tasks: 1, resumedBytes: 0 };
  const bytes = yield* published(o.out, o.force, async function* (spool) {
    const written = yield* stepped(job, joinLayers(lossy, exact, spool(RESULT)), exact.fileBytes, o.signal);
    // as any reader will: both layers fit each other
    using whole = DeltaFile.open(spool(RESULT), o.out);
    whole.checkLayers();
    return written;
  });
  yield { type: 'job.done', job, ms: performance.now() - started };
  return { path: o.out, bytes };
}

/** Runs a copy with progress; between two steps it can be cancelled. */
async function* stepped(
  job: string,
  steps: Generator<number, number, void>,
  totalBytes: number,
  signal: AbortSignal,
): AsyncGenerator<ProgressEvent, number, void> {
  let doneBytes = 0;
  let said = performance.now();
  try {
    for (;;) {
      const step = steps.next();
      if (step.done === true) return step.value;
      doneBytes += step.value;
      if (performance.now() - said < TICK_MS) continue;
      said = performance.now();
      yield { type: 'progress', job, doneBytes: Math.min(doneBytes, totalBytes), totalBytes };
      await new Promise((go) => setImmediate(go));
      if (signal.aborted) throw new PithError('CANCELLED');
    }
  } finally {
    steps.return(0);
  }
}
