/** A pass over a model block by block, its hidden states in the spool: how memory is shared, and the steps of the pass. */
import { PithError } from '../core/errors.js';
import type { ProgressEvent } from '../core/events.js';
import { statName, type FisherStatistic, type InputStatistic } from '../formats/stats/schema.js';
import { GramSum } from '../kernels/linalg/gram-sum.js';
import type { ResultOf, Task } from '../workers/messages.js';
import type { BlockGradientTask, BlockTask, InputGroup, LinearShape, ModelShapeResult, OverlayRef, SpooledPass } from '../workers/messages/passes.js';
import type { FilePlace, ModelRef, RunSettings, TokenFile, Written } from '../workers/messages/refs.js';
import * as io from '../formats/io.js';
import type { WorkerPool } from '../workers/pool.js';
import type { Journal } from './journal.js';
import { runJobs } from './schedule.js';
import { runSteps, stepsDone, type SpoolPart, type Step, type StepDone } from './steps.js';

/** What the steps of one pass share. */
export interface PassContext {
  readonly job: string;
  readonly pool: WorkerPool;
  readonly journal: Journal<StepDone>;
  readonly signal: AbortSignal;
  readonly settings: RunSettings;
  readonly model: ModelRef;
  readonly shape: ModelShapeResult;
  readonly tokens: TokenFile;
  readonly memory: PassMemory;
  /** Of all steps, and of those that an earlier run did; what the pool reported before the first step is taken off. */
  readonly progress: { totalBytes: number; resumedBytes: number };
}

const TOKENS = 'tokens';

/** Writes the sequences into the spool. */
export function passContext(o: Omit<PassContext, 'tokens' | 'progress'>, sequences: readonly Int32Array[]): PassContext {
  const file = o.journal.spool(TOKENS);
  const fd = io.openWrite(file, 'w+');
  try {
    for (const s of sequences) io.writeFully(fd, new Uint8Array(s.buffer, s.byteOffset, s.byteLength), null, file);
  } finally {
    io.close(fd);
  }
  return { ...o, tokens: { file, lengths: sequences.map((s) => s.length) }, progress: { totalBytes: 0, resumedBytes: 0 } };
}

/** Runs the steps that are not done; `keep`: spool files that outlast them. */
export async function* runPass(c: PassContext, steps: readonly Step[], keep: readonly string[]): AsyncGenerator<ProgressEvent, void, void> {
  const plan = { journal: c.journal, steps, keep: new Set([TOKENS, ...keep]) };
  const first = stepsDone(plan);
  const bytesOf = (some: readonly Step[]): number => some.reduce((sum, s) => sum + s.bytes, 0);
  const resumedBytes = bytesOf(steps.slice(0, first));
  c.progress.totalBytes = bytesOf(steps);
  c.progress.resumedBytes = resumedBytes - c.pool.doneBytes;
  yield { type: 'job.start', job: c.job, totalBytes: c.progress.totalBytes, tasks: steps.length, resumedBytes };
  yield* runSteps(plan, first);
}

export interface PassMemory {
  readonly batchTokens: number;
  /** By block: groups of inputs that are summed in one pass over it. */
  readonly passes: readonly (readonly (readonly InputGroup[])[])[];
}

/** Larger batches gain nothing: what a weight's decoding costs is spread over enough tokens. */
const MOST_TOKENS = 2048;
/** A backward pass keeps what the forward pass made. */
const BACKWARD = 3;

export interface MemoryRequest {
  readonly maxMemoryBytes: number;
  /** Tokens of the longest sequence. */
  readonly longest: number;
  /** By block: the inputs that are wanted. */
  readonly groups: readonly (readonly InputGroup[])[];
  readonly gram: boolean;
  readonly backward: boolean;
  /** What is computed of a layer's gradients takes so much, when the block's weights are gone. */
  readonly pairBytes?: number;
  /** What errors name. */
  readonly source: string;
}

/** Bytes of the sums over inputs of n channels. */
export const sumsBytes = (n: number, gram: boolean): number => 16 * n + (gram ? GramSum.bytes(n) + 4 * GramSum.scratchValues(n) : 0);

const tokenBytes = (shape: ModelShapeResult, longest: number, backward: boolean): number =>
  (shape.tokenBytes.fixed + longest * shape.tokenBytes.perToken) * (backward ? BACKWARD : 1);

/** The logits of some tokens beside the output layer's weight. */
const HEAD_BLOCK = 64 << 20;

/** Stored weights that are in memory together. */
const weightBytes = (shape: ModelShapeResult, backward: boolean): number =>
  Math.max(0, ...shape.blocks.map((b) => b.weightBytes), backward ? shape.head.bytes + HEAD_BLOCK : 0);

/** Batches, and passes over every block such that the sums of one pass fit. MEMORY_BUDGET (64) when one input's do not. */
export function shareMemory(shape: ModelShapeResult, o: MemoryRequest): PassMemory {
  const weights = weightBytes(shape, o.backward);
  const token = tokenBytes(shape, o.longest, o.backward);
  const largest = Math.max(0, ...o.groups.flat().map((g) => sumsBytes(g.in, o.gram)));
  const free = o.maxMemoryBytes - weights;
  const batchTokens = Math.max(o.longest, Math.min(MOST_TOKENS, Math.floor(Math.min(free / 2, free - largest) / token)));
  const room = free - batchTokens * token;
  const least = Math.max(weights + batchTokens * token + largest, o.pairBytes ?? 0);
  if (least > o.maxMemoryBytes) {
    const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6)} MB`;
    const what = o.pairBytes === least ? 'the Kronecker factors of one layer' : `one block, a batch of ${batchTokens} tokens and the sums of one input`;
    throw new PithError('MEMORY_BUDGET', { message: `${o.source}: ${what} take ${megabytes(least)}, --max-memory is ${megabytes(o.maxMemoryBytes)}` });
  }
  return { batchTokens, passes: o.groups.map((groups) => passesOf(groups, room, o.gram)) };
}

function passesOf(groups: readonly InputGroup[], room: number, gram: boolean): InputGroup[][] {
  const passes: InputGroup[][] = [];
  let left = 0;
  for (const g of groups) {
    const bytes = sumsBytes(g.in, gram);
    if (passes.length === 0 || bytes > left) {
      passes.push([]);
      left = room;
    }
    passes.at(-1)!.push(g);
    left -= bytes;
  }
  return passes;
}

/** Host memory that a pass takes at most. */
export function passBytes(shape: ModelShapeResult, memory: PassMemory, o: Omit<MemoryRequest, 'maxMemoryBytes' | 'groups' | 'source'>): number {
  const sums = memory.passes.flat().map((pass) => pass.reduce((sum, g) => sum + sumsBytes(g.in, o.gram), 0));
  const running = weightBytes(shape, o.backward) + Math.max(0, ...sums) + memory.batchTokens * tokenBytes(shape, o.longest, o.backward);
  return Math.max(running, o.pairBytes ?? 0);
}

export const tokenCount = (t: TokenFile): number => t.lengths.reduce((sum, n) => sum + n, 0);
export const hiddenName = (block: number): string => `hidden-${block}`;
export const gradientName = (block: number): string => `gradient-${block}`;

/** Bytes of the hidden states between two blocks: what one block counts for in the progress. */
export const hiddenBytes = (c: Pick<PassContext, 'shape' | 'tokens'>): number => 4 * c.shape.width * tokenCount(c.tokens);

const passOf = (c: PassContext): SpooledPass => ({ settings: c.settings, model: c.model, tokens: c.tokens, batchTokens: c.memory.batchTokens });

/** Runs one task alone. */
export async function* runTask<T extends Task>(c: PassContext, task: T, label: string): AsyncGenerator<ProgressEvent, ResultOf<T>, void> {
  const { job, pool, signal, progress } = c;
  let result: ResultOf<T> | undefined;
  const options = {
    job,
    pool,
    maxMemoryBytes: c.settings.memoryBytes,
    signal,
    totalBytes: progress.totalBytes,
    doneBytes: pool.doneBytes + progress.resumedBytes,
  };
  yield* runJobs([{ task, bytes: 0, memoryBytes: 0, label }], options, (_, r) => {
    result = r;
    return undefined;
  });
  return result!;
}

const wholeFile = (file: string, w: Written | undefined): SpoolPart[] => (w === undefined ? [] : [{ file, position: 0, ...w }]);

export function embedStep(c: PassContext): Step {
  return {
    key: 'embed',
    reads: [],
    bytes: 0,
    async *run() {
      const { output } = yield* runTask(c, { type: 'embed', ...passOf(c), output: c.journal.spool(hiddenName(0)) }, 'embeddings');
      return { parts: wholeFile(hiddenName(0), output) };
    },
  };
}

export interface BlockStep {
  readonly key: string;
  readonly block: number;
  /** Inputs that are summed; the hidden states after the block are not made unless `output`. */
  readonly groups: readonly InputGroup[];
  readonly statistics: readonly InputStatistic[];
  readonly output: boolean;
  /** Spool file of the statistics, and where in it they go. */
  readonly target: StatsTarget;
  readonly overlay?: readonly OverlayRef[];
  /** Spool files that it reads but for the hidden states: those of the overlay. */
  readonly reads?: readonly string[];
}

export interface StatsTarget {
  /** Name in the spool. */
  readonly file: string;
  /** Of every statistic, by its name; known when the step is run. */
  readonly places: () => ReadonlyMap<string, FilePlace>;
}

export function blockStep(c: PassContext, s: BlockStep): Step {
  const after = hiddenName(s.block + 1);
  return {
    key: s.key,
    reads: [hiddenName(s.block), ...(s.reads ?? [])],
    bytes: hiddenBytes(c),
    async *run() {
      const places = placesOf(
        s.target,
        s.groups.map((g) => g.modules[0]!),
        s.statistics,
      );
      const task: BlockTask = {
        type: 'block',
        ...passOf(c),
        block: s.block,
        overlay: s.overlay ?? [],
        input: c.journal.spool(hiddenName(s.block)),
        ...(s.output ? { output: c.journal.spool(after) } : {}),
        groups: s.groups,
        statistics: s.statistics,
        places,
      };
      const { output, statistics } = yield* runTask(c, task, `block ${s.block}`);
      return { parts: [...wholeFile(after, output), ...statParts(s.target, places, statistics)] };
    },
  };
}

function placesOf(target: StatsTarget, modules: readonly string[], statistics: readonly (InputStatistic | FisherStatistic)[]): Record<string, FilePlace> {
  const all = target.places();
  return Object.fromEntries(modules.flatMap((m) => statistics.map((s) => [statName(m, s), all.get(statName(m, s))!])));
}

function statParts({ file }: StatsTarget, places: Readonly<Record<string, FilePlace>>, written: Readonly<Record<string, Written>>): SpoolPart[] {
  return Object.entries(written).map(([name, w]) => ({ file, position: places[name]!.position, ...w }));
}

/** After the last block; its result is the mean loss. */
export function headGradientStep(c: PassContext): Step {
  const last = c.shape.blocks.length;
  return {
    key: 'head gradient',
    reads: [hiddenName(last)],
    bytes: hiddenBytes(c),
    async *run() {
      const spool = (name: string): string => c.journal.spool(name);
      const task = { type: 'head-gradient', ...passOf(c), input: spool(hiddenName(last)), output: spool(gradientName(last)) } as const;
      const { output, loss } = yield* runTask(c, task, 'output layer');
      return { parts: wholeFile(gradientName(last), output), result: loss };
    },
  };
}

/** What a token of a block's backward pass counts for: its forward pass again, and twice that for both gradients. */
export const GRADIENT_SHARE = 3;
/** Applications of the operator that a Kronecker pair takes, about. */
const PAIR_SWEEPS = 11;

/** Operations of a layer's Kronecker pair. */
export const pairOperations = (l: LinearShape, sequences: number): number => PAIR_SWEEPS * 4 * l.in * l.out * (l.in + l.out) * sequences;

export interface GradientStep {
  readonly block: number;
  readonly modules: readonly LinearShape[];
  readonly statistics: readonly FisherStatistic[];
  /** Gradients to the block's inputs are made: an earlier block needs them. */
  readonly output: boolean;
  readonly target: StatsTarget;
}

export function blockGradientStep(c: PassContext, s: GradientStep): Step {
  const [own, after] = [gradientName(s.block), gradientName(s.block + 1)];
  const pairBytes = s.statistics.some((t) => t !== 'fisherRow') ? pairProgress(c, s) : 0;
  return {
    key: `gradient ${s.block}`,
    reads: [hiddenName(s.block), after],
    bytes: GRADIENT_SHARE * hiddenBytes(c) + pairBytes,
    async *run() {
      const modules = s.modules.map((m) => m.module);
      const places = placesOf(s.target, modules, s.statistics);
      const spool = (name: string): string => c.journal.spool(name);
      const task: BlockGradientTask = {
        type: 'block-gradient',
        ...passOf(c),
        block: s.block,
        input: spool(hiddenName(s.block)),
        gradients: spool(after),
        ...(s.output ? { output: spool(own) } : {}),
        modules: s.modules,
        statistics: s.statistics,
        places,
        spool: spool('weight-gradients'),
        pairBytes,
        pairSweeps: PAIR_SWEEPS,
      };
      const { output, statistics } = yield* runTask(c, task, `gradients of block ${s.block}`);
      return { parts: [...wholeFile(own, output), ...statParts(s.target, places, statistics)] };
    },
  };
}

/** What the pairs of a block count for: as much as a forward pass of as many operations. */
function pairProgress(c: PassContext, { block, modules }: GradientStep): number {
  const forward = 2 * tokenCount(c.tokens) * c.shape.blocks[block]!.linears.reduce((sum, l) => sum + l.in * l.out, 0);
  const pairs = modules.reduce((sum, l) => sum + pairOperations(l, c.tokens.lengths.length), 0);
  return Math.round((hiddenBytes(c) * pairs) / forward);
}
