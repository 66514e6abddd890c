/**
 * Compression block by block on what the compressed blocks before give: the statistics of a block are taken on hidden states that come from its
 * compressed predecessors, its layers are compressed, and the block is run again with them to make the next block's inputs. True-sequential goes on
 * so inside a block: layers that share an input (q, k, v; o; gate, up; down) are compressed before the inputs of the next ones are looked at.
 *
 * What compresses is the caller's: it turns a step into tasks of its own, each of which writes the tensors that a layer is now into the layer's
 * overlay file. The steps are ordinary ones (steps.ts): put others before and behind them, and run all with runSteps.
 */
import { createHash } from 'node:crypto';
import type { ProgressEvent } from '../core/events.js';
import { statInfo, type InputStatistic, type StatsManifest } from '../formats/stats/schema.js';
import { prepareStats } from '../formats/stats/write.js';
import type { ResultOf, Task } from '../workers/messages.js';
import type { InputGroup, LinearShape, OverlayRef } from '../workers/messages/passes.js';
import type { FilePlace } from '../workers/messages/refs.js';
import { writtenFile } from '../workers/written.js';
import { blockStep, embedStep, type PassContext } from './block-pass.js';
import { runJobs, type Job } from './schedule.js';
import type { SpoolPart, Step } from './steps.js';

export interface SequentialOptions<T extends Task> {
  /** Layers that are compressed, by block. */
  readonly modules: readonly (readonly LinearShape[])[];
  /** What the tasks need of their inputs. */
  readonly statistics: readonly InputStatistic[];
  readonly trueSequential: boolean;
  /** What the statistics files say of themselves; asked for when the first one is made. */
  readonly manifest: () => Omit<StatsManifest, 'alias'>;
  /** The tasks of a step, when its statistics are there. They run side by side. */
  readonly compress: (step: CompressStep) => readonly Job<T>[];
  /** What came of them, by label. Spool files that they wrote beside the overlays, and parts of files, are checked when the run goes on later. */
  readonly compressed: (
    step: CompressStep,
    results: ReadonlyMap<string, ResultOf<T>>,
  ) => { readonly files?: readonly string[]; readonly parts?: readonly SpoolPart[]; readonly result?: unknown };
  /** What `compressed` gave as its result, also of a step that an earlier run did. */
  readonly finished?: (result: unknown) => void;
  /** What a step's tasks report in the progress. */
  readonly bytes: (modules: readonly LinearShape[]) => number;
}

export interface CompressStep {
  readonly block: number;
  readonly modules: readonly LinearShape[];
  /** Path of the statistics file that holds their inputs. */
  readonly stats: string;
  /** What of the block was compressed before, on top of the checkpoint: true-sequential only. */
  readonly overlay: readonly OverlayRef[];
  /** Path of the safetensors file that a layer's task writes: every tensor in it that the checkpoint has too takes that one's place. */
  readonly overlayOf: (module: string) => string;
}

/** Spool file of the tensors that a layer is now, needed until its block's outputs are made. Names may hold anything, their hash may not. */
export const overlayName = (module: string): string => `overlay-${createHash('sha256').update(module).digest('hex').slice(0, 32)}.safetensors`;

/** From the embeddings to the last block's layers. */
export function sequentialSteps<T extends Task>(c: PassContext, o: SequentialOptions<T>): Step[] {
  const last = c.shape.blocks.length - 1;
  const steps: Step[] = [embedStep(c)];
  for (let block = 0; block <= last; block++) {
    const modules = o.modules[block]!;
    let done: readonly LinearShape[] = [];
    for (const part of partsOf(c.shape.blocks[block]!.groups, modules, o.trueSequential)) {
      steps.push(...statisticsSteps(c, o, block, part, done), compressStep(c, o, block, part, done));
      done = [...done, ...part.modules];
    }
    if (block < last) steps.push(passOn(c, block, done));
  }
  return steps;
}

/** Layers that are compressed together, and their inputs. */
interface Part {
  readonly index: number;
  readonly modules: readonly LinearShape[];
  readonly groups: readonly InputGroup[];
}

function partsOf(groups: readonly InputGroup[], modules: readonly LinearShape[], trueSequential: boolean): Part[] {
  const wanted = new Map(modules.map((m) => [m.module, m]));
  const own = groups.map((g) => ({ ...g, modules: g.modules.filter((m) => wanted.has(m)) })).filter((g) => g.modules.length > 0);
  const parts = trueSequential ? own.map((g) => [g]) : own.length === 0 ? [] : [own];
  return parts.map((part, index) => ({ index, groups: part, modules: part.flatMap((g) => g.modules.map((m) => wanted.get(m)!)) }));
}

const overlayOf = (c: PassContext, modules: readonly LinearShape[]): OverlayRef[] => modules.map((m) => ({ file: c.journal.spool(overlayName(m.module)) }));
const overlayFiles = (modules: readonly LinearShape[]): string[] => modules.map((m) => overlayName(m.module));
const statsName = (block: number, part: Part): string => `statistics-${block}.${part.index}`;

function statisticsSteps<T extends Task>(c: PassContext, o: SequentialOptions<T>, block: number, part: Part, before: readonly LinearShape[]): Step[] {
  const file = statsName(block, part);
  const tensors = part.groups.flatMap((g) => o.statistics.map((s) => statInfo(g.modules[0]!, s, { in: g.in, out: 0 })));
  const alias = Object.fromEntries(part.groups.flatMap(({ modules: [first, ...rest] }) => rest.map((m) => [m, first!])));
  const places = (): ReadonlyMap<string, FilePlace> => prepareStats(c.journal.spool(file), { ...o.manifest(), alias }, tensors).places;
  return passesWith(c, block, part.groups).map((groups) =>
    blockStep(c, {
      key: `statistics ${block}.${part.index} of ${c.memory.batchTokens}: ${groups.map((g) => g.modules[0]!).join(' ')}`,
      block,
      groups,
      statistics: o.statistics,
      output: false,
      target: { file, places },
      overlay: overlayOf(c, before),
      reads: overlayFiles(before),
    }),
  );
}

/** The passes that memory allows over a block, with only these of its inputs. */
function passesWith(c: PassContext, block: number, groups: readonly InputGroup[]): InputGroup[][] {
  const of = new Map(groups.flatMap((g) => g.modules.map((m) => [m, g] as const)));
  return c.memory.passes[block]!.map((pass) => [...new Set(pass.flatMap((g) => g.modules.flatMap((m) => of.get(m) ?? [])))]).filter((p) => p.length > 0);
}

function compressStep<T extends Task>(c: PassContext, o: SequentialOptions<T>, block: number, part: Part, before: readonly LinearShape[]): Step {
  const { modules } = part;
  const step: CompressStep = {
    block,
    modules,
    stats: c.journal.spool(statsName(block, part)),
    overlay: overlayOf(c, before),
    overlayOf: (module) => c.journal.spool(overlayName(module)),
  };
  return {
    key: `compress ${block}.${part.index}`,
    reads: [statsName(block, part), ...overlayFiles(before)],
    bytes: o.bytes(modules),
    async *run() {
      const results = new Map<string, ResultOf<T>>();
      yield* runAll(c, o.compress(step), results);
      const { files = [], parts = [], result } = o.compressed(step, results);
      const whole = [...overlayFiles(modules), ...files].map((file): SpoolPart => ({ file, position: 0, ...writtenFile(c.journal.spool(file)) }));
      return { parts: [...whole, ...parts], result };
    },
    ...(o.finished === undefined ? {} : { finished: o.finished }),
  };
}

async function* runAll<T extends Task>(c: PassContext, jobs: readonly Job<T>[], results: Map<string, ResultOf<T>>): AsyncGenerator<ProgressEvent, void, void> {
  const { job, pool, signal, progress } = c;
  const options = { job, pool, signal, maxMemoryBytes: c.settings.memoryBytes, totalBytes: progress.totalBytes };
  yield* runJobs(jobs, { ...options, doneBytes: pool.doneBytes + progress.resumedBytes }, (j, result) => {
    results.set(j.label, result);
    return undefined;
  });
}

/** The block again, as it now is. */
function passOn(c: PassContext, block: number, compressed: readonly LinearShape[]): Step {
  return blockStep(c, {
    key: `block ${block}`,
    block,
    groups: [],
    statistics: [],
    output: true,
    target: { file: '', places: () => new Map() },
    overlay: overlayOf(c, compressed),
    reads: overlayFiles(compressed),
  });
}
