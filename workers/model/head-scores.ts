/**
 * Scores of tokens from final hidden states: the output layer passes by in panels of its rows, the tokens in blocks, so that neither
 * the logits of all tokens nor (where memory is short) the whole layer are ever in memory.
 */
import * as tf from '#tf';
import { PithError } from '../../core/errors.js';
import { DTYPES } from '../../core/dtype.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import type { FrozenMatrix } from '../../kernels/nn/frozen-matrix.js';
import { headLogits } from '../../kernels/nn/head-loss.js';
import { panelDivergence, panelSums, RunningDivergence, RunningSums } from '../../kernels/nn/token-scores.js';
import type { CausalModel } from '../../models/causal.js';
import type { ScoreResult } from '../messages/model.js';
import type { HiddenStates } from './hidden.js';
import { PartWeights, readMatrix } from './weights.js';

/** A model whose blocks have all run. */
export interface ScoredSide {
  readonly model: CausalModel;
  readonly reader: CheckpointReader;
  readonly hidden: HiddenStates;
}

/** Which rows of the hidden states predict which tokens. */
export interface ScoredRows {
  /** Rising. */
  readonly rows: Int32Array;
  readonly targets: Int32Array;
}

export interface HeadControl {
  readonly memoryBytes: number;
  readonly checkpointCancel: () => void;
  /** A panel of so many rows of the output layer was done for so many tokens. */
  readonly report: (tokens: number, vocabularyRows: number) => void;
}

/** Tokens of a block: what decoding a panel costs is little beside the product. */
const BLOCK_TOKENS = 512;
const LEAST_ROWS = 1024;

/** `reference`: its vocabulary has the same size. */
export async function scoreRows(side: ScoredSide, reference: ScoredSide | undefined, scored: ScoredRows, control: HeadControl): Promise<ScoreResult> {
  const sides = reference === undefined ? [side] : [side, reference];
  const { vocabulary } = side.model.head;
  const sums = sides.map(() => new RunningSums(scored.rows.length));
  const divergence = reference === undefined ? undefined : new RunningDivergence(sums[0]!, sums[1]!);
  const blockTokens = Math.min(BLOCK_TOKENS, scored.rows.length);
  const step = panelRows(sides, blockTokens, control.memoryBytes);
  using outputs = await outputParts(sides);
  for (let first = 0; first < vocabulary && blockTokens > 0; first += step) {
    const last = Math.min(vocabulary, first + step);
    const panels: FrozenMatrix[] = [];
    for (const { reader, model } of sides) panels.push(await readMatrix(reader, model.head.weight, last - first, model.head.columns, [first, last]));
    for (let start = 0; start < scored.rows.length; start += blockTokens) {
      control.checkpointCancel();
      const end = Math.min(scored.rows.length, start + blockTokens);
      const states = sides.map((s) => gather(s, scored.rows.subarray(start, end)));
      const targets = scored.targets.subarray(start, end).map((t) => t - first);
      const [a, b, d] = await panelOf(sides, outputs.parts, panels, states, targets);
      if (divergence === undefined) sums[0]!.add(start, a!, first);
      else divergence.add(start, a!, b!, d!, first);
      control.report(end - start, last - first);
    }
  }
  const [own, other] = sums.map((s) => ({ nll: s.nll(), top: s.top }));
  return { ...own!, ...(divergence === undefined ? {} : { reference: other!, kld: divergence.values() }) };
}

/** Rows of a panel whose weights and logits of a block fit; the whole layer where there is room. */
function panelRows(sides: readonly ScoredSide[], blockTokens: number, memoryBytes: number): number {
  const bytes = sides.reduce((sum, { model: { head }, reader }) => {
    const info = reader.infos.get(head.weight)!;
    // logits of a soft cap lie there three times
    return sum + (head.columns * DTYPES[info.dtype].bits) / 8 + 4 * blockTokens * (head.softcap > 0 ? 3 : 1);
  }, 0);
  return Math.max(LEAST_ROWS, Math.floor(memoryBytes / bytes));
}

async function outputParts(sides: readonly ScoredSide[]): Promise<{ parts: PartWeights[] } & Disposable> {
  const parts: PartWeights[] = [];
  const dispose = (): void => parts.forEach((p) => p[Symbol.dispose]());
  try {
    for (const s of sides) parts.push(await PartWeights.load(s.reader, s.model.output));
  } catch (error) {
    dispose();
    throw error;
  }
  return { parts, [Symbol.dispose]: dispose };
}

function gather({ hidden, model }: ScoredSide, rows: Int32Array): Float32Array {
  const width = model.config.hiddenSize;
  const out = new Float32Array(rows.length * width);
  for (let i = 0; i < rows.length;) {
    let j = i + 1;
    while (j < rows.length && rows[j] === rows[j - 1]! + 1) j++;
    out.set(hidden.read(rows[i]!, j - i), i * width);
    i = j;
  }
  return out;
}

/** Sums of a panel for a block of tokens: the model's, and with a reference its own and the divergence. */
async function panelOf(
  sides: readonly ScoredSide[],
  parts: readonly PartWeights[],
  panels: readonly FrozenMatrix[],
  states: readonly Float32Array[],
  targets: Int32Array,
): Promise<Float32Array[]> {
  const outputs = tf.tidy(() => {
    const wanted = tf.tensor1d(targets, 'int32');
    const logits = sides.map(({ model }, i) => {
      const x = tf.tensor2d(states[i]!, [targets.length, model.config.hiddenSize]);
      return tf.tidy(() => headLogits(model.finish(parts[i]!, x), panels[i]!, model.head.softcap));
    });
    const sums = logits.map((z) => panelSums(z, wanted));
    return logits.length === 1 ? sums : [...sums, panelDivergence(logits[0]!, logits[1]!, sums[0]!, sums[1]!)];
  });
  const values = await Promise.all(outputs.map((t) => t.data() as Promise<Float32Array>));
  tf.dispose(outputs);
  return values;
}

/** Rows and targets of the scored tokens. `from`: first scored token of each sequence, 1 at least. */
export function scoredRows(sequences: readonly Int32Array[], starts: readonly number[], from: (sequence: number) => number): ScoredRows {
  const [rows, targets]: [number[], number[]] = [[], []];
  sequences.forEach((ids, s) => {
    if (from(s) < 1) throw new PithError('INTERNAL', { message: 'the first token of a sequence has nothing before it' });
    for (let i = from(s); i < ids.length; i++) {
      rows.push(starts[s]! + i - 1);
      targets.push(ids[i]!);
    }
  });
  return { rows: Int32Array.from(rows), targets: Int32Array.from(targets) };
}
