/** All sequences through one part of a model at a time: only that part's weights are in memory, hidden states lie between. */
import * as tf from '#tf';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import { Batch } from '../../models/batch.js';
import type { Scope, TokenModel } from '../../models/graph.js';
import type { HiddenStates } from './hidden.js';
import { SeenEnough, type InputTap } from './input-tap.js';
import type { SequenceBatch, Sequences } from './sequences.js';
import { PartWeights, upTo } from './weights.js';

export interface ForwardRun {
  readonly model: TokenModel;
  readonly reader: CheckpointReader;
  readonly sequences: Sequences;
  /** Tokens of a batch. */
  readonly batchTokens: number;
  readonly hidden: HiddenStates;
  /** What gathered rows of the embeddings may take; all at once by default. */
  readonly tableBytes?: number;
  readonly checkpointCancel: () => void;
  /** A block, or what comes before or after them, was done for so many tokens. */
  readonly report: (tokens: number) => void;
}

/** Batches of one run with their device parts; equal shapes share one, those with a mask are made once for all blocks. */
export class Batches implements Disposable {
  readonly #kept = new Map<string, Batch>();

  get({ members, length }: SequenceBatch, mask?: Uint8Array): Batch {
    const shape = { batch: members.length, length, ...(mask === undefined ? {} : { mask }) };
    // no sequence is in two batches
    const key = mask === undefined ? `${members.length}x${length}` : members.join(' ');
    let batch = this.#kept.get(key);
    if (batch === undefined) {
      batch = new Batch(shape);
      this.#kept.set(key, batch);
    }
    return batch;
  }

  [Symbol.dispose](): void {
    for (const b of this.#kept.values()) b.dispose();
    this.#kept.clear();
  }
}

/** Embeddings of all sequences into `hidden`. */
export async function embedAll(run: ForwardRun, batches: Batches): Promise<void> {
  const { model, reader, sequences } = run;
  const [words, ...others] = model.input.tables;
  const all = sequences.batches(run.batchTokens);
  const longest = all[0]?.length ?? 0;
  for (const { group, ids } of groups(run, all)) {
    const wanted = new Map([[words!.name, ids]]);
    for (const t of others) wanted.set(t.name, upTo(Math.min(t.rows, longest + POSITION_SLACK)));
    using weights = await PartWeights.load(reader, model.input, wanted);
    for (const b of group) await step(run, b, batches, (batch) => model.embed(weights, sequences.ids(b), batch));
  }
}

/** Rows before the first position: OPT has two. */
const POSITION_SLACK = 2;

/** Batches that together need so few rows of the embedding that these fit in memory, but at least one batch a group. */
function* groups(run: ForwardRun, all: readonly SequenceBatch[]): Generator<{ group: SequenceBatch[]; ids: Int32Array }> {
  const { tableBytes = Infinity, model, sequences } = run;
  const rows = tableBytes / (4 * model.input.tables[0]!.columns);
  // 0 is what padding asks for
  let ids = new Set([0]);
  let group: SequenceBatch[] = [];
  for (const b of all) {
    const own = new Set(b.members.flatMap((m) => [...sequences.all[m]!]));
    const together = new Set([...ids, ...own]);
    if (group.length > 0 && together.size > rows) {
      yield { group, ids: Int32Array.from(ids) };
      group = [];
      ids = new Set([0, ...own]);
    } else ids = together;
    group.push(b);
  }
  if (group.length > 0) yield { group, ids: Int32Array.from(ids) };
}

/** One block over all sequences, in place. `wrap` puts something on the block's weights: a tap, an adapter. */
export async function runBlock(run: ForwardRun, index: number, batches: Batches, wrap: (weights: PartWeights) => Scope = (w) => w): Promise<void> {
  using weights = await PartWeights.load(run.reader, run.model.blocks[index]!);
  const scope = wrap(weights);
  for (const b of run.sequences.batches(run.batchTokens)) {
    await step(run, b, batches, (batch, x) => run.model.block(index, scope, x!, batch));
  }
}

/** The same with a tap on the inputs of the block's linear layers. A tap that stops leaves the hidden states as they were. */
export async function runTapped(run: ForwardRun, index: number, batches: Batches, tap: InputTap): Promise<void> {
  using weights = await PartWeights.load(run.reader, run.model.blocks[index]!);
  const scope = tap.wrap(weights);
  for (const b of run.sequences.batches(run.batchTokens)) {
    tap.begin(b);
    try {
      await step(run, b, batches, (batch, x) => run.model.block(index, scope, x!, batch));
    } catch (error) {
      if (!(error instanceof SeenEnough)) throw error;
      reportBatch(run, b);
    }
    await tap.settle();
  }
}

/** What the output layer multiplies, in place. */
export async function finishAll(run: ForwardRun, batches: Batches): Promise<void> {
  using weights = await PartWeights.load(run.reader, run.model.output);
  for (const b of run.sequences.batches(run.batchTokens)) await step(run, b, batches, (_, x) => run.model.finish(weights, x!));
}

type OfBatch = (batch: Batch, x: tf.Tensor2D | undefined) => tf.Tensor2D;

/** One batch: f takes its hidden states and gives what is written in their place. */
export async function step(run: ForwardRun, b: SequenceBatch, batches: Batches, f: OfBatch): Promise<void> {
  run.checkpointCancel();
  const { hidden, sequences, model } = run;
  const batch = batches.get(b, model.bidirectional === true ? sequences.mask(b) : undefined);
  const runs = sequences.runs(b);
  const width = model.config.hiddenSize;
  const before = f.length > 1 ? gather(hidden, runs, b.members.length * b.length, width) : undefined;
  const y = tf.tidy(() => f(batch, before === undefined ? undefined : tf.tensor2d(before, [batch.batch * batch.length, width])));
  const values = (await y.data()) as Float32Array;
  y.dispose();
  const out = values.length / (batch.batch * batch.length);
  for (const [inBatch, among, count] of runs) hidden.write(among, values.subarray(inBatch * out, (inBatch + count) * out));
  reportBatch(run, b);
}

function reportBatch({ report, sequences }: ForwardRun, b: SequenceBatch): void {
  report(b.members.reduce((sum, m) => sum + sequences.all[m]!.length, 0));
}

/** Rows of a batch, zeros where a sequence has ended. */
export function gather(hidden: HiddenStates, runs: ReturnType<Sequences['runs']>, rows: number, width: number): Float32Array {
  const [first] = runs;
  if (runs.length === 1 && first![2] === rows) return hidden.read(first![1], rows);
  const out = new Float32Array(rows * width);
  for (const [inBatch, among, count] of runs) out.set(hidden.read(among, count), inBatch * width);
  return out;
}
