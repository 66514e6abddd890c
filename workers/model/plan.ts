/** How a forward pass divides what memory it was given. */
import { PithError } from '../../core/errors.js';
import { byteLength } from '../../core/shape.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import type { Part, TokenModel } from '../../models/graph.js';
import { activationBytes } from '../../models/memory.js';
import { tensorsOf } from '../../models/tensors.js';
import type { Sequences } from './sequences.js';

export interface ForwardPlan {
  /** Tokens of a batch. */
  readonly batchTokens: number;
  /** What the hidden states may take in memory; larger ones go to a file. */
  readonly hiddenBytes: number;
  /** Gathered rows of the embeddings. */
  readonly tableBytes: number;
  /** A panel of the output layer with its logits. */
  readonly headBytes: number;
}

export interface PlanOptions {
  readonly memoryBytes: number;
  /** Scores of all pairs of a sequence's tokens lie in memory: true without the fused kernels. */
  readonly wholeScores: boolean;
  /** Hidden states of how many models are kept. */
  readonly sides: number;
}

/** Larger batches gain nothing: what a weight's decoding costs is spread over enough tokens. */
const MOST_TOKENS = 2048;

/** Stored bytes of a part's weights. */
export function partBytes(part: Part, reader: CheckpointReader): number {
  return tensorsOf({ ...part, tables: [] }).reduce((sum, { name }) => {
    const info = reader.infos.get(name)!;
    return sum + byteLength(info.dtype, info.shape);
  }, 0);
}

/** MEMORY_BUDGET (64) when one block and one sequence do not fit. */
export function planForward(model: TokenModel, reader: CheckpointReader, sequences: Sequences, o: PlanOptions): ForwardPlan {
  const weights = Math.max(...[model.input, ...model.blocks, model.output].map((p) => partBytes(p, reader)));
  const longest = Math.max(0, ...sequences.all.map((s) => s.length));
  const { fixed, perToken } = tokenBytes(model, o.wholeScores);
  const token = fixed + longest * perToken;
  const least = weights + longest * token;
  if (least > o.memoryBytes) {
    const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6)} MB`;
    throw new PithError('MEMORY_BUDGET', {
      message: `${reader.source}: one block and one sequence of ${longest} tokens take ${megabytes(least)}, --max-memory leaves ${megabytes(o.memoryBytes)} to each worker; give it more, or fewer --threads`,
    });
  }
  const room = o.memoryBytes - weights;
  const batch = Math.min(MOST_TOKENS, Math.max(longest, Math.floor(room / 2 / token)));
  const left = room - Math.max(batch, longest) * token;
  return {
    batchTokens: batch,
    hiddenBytes: Math.floor((left * 0.8) / o.sides),
    tableBytes: Math.floor(room / 4),
    // the blocks' weights and activations are gone by then
    headBytes: Math.floor(o.memoryBytes / 2),
  };
}

/** What a token takes while its batch is in a block: each linear's output twice and the residual stream; scores for each token of its sequence. */
export function tokenBytes(model: TokenModel, wholeScores: boolean): { readonly fixed: number; readonly perToken: number } {
  const { hiddenSize } = model.config;
  const outputs = model.blocks[0]?.linears.reduce((sum, l) => sum + l.out, 0) ?? 0;
  // scores, what is added to them, their softmax and its input
  return { fixed: activationBytes({ hiddenSize, outputs, scores: 0 }), perToken: wholeScores ? 16 * model.config.numHeads : 0 };
}
