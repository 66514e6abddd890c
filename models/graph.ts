/** What a model's graph says of its weights, and how its code reaches them: plain, adapted, quantized or watched alike. */
import type { Tensor1D, Tensor2D } from '#tf';
import type { Batch } from './batch.js';

/** y = x W^T + b. */
export interface LinearSpec {
  /** Its name in the checkpoint without `.weight`. */
  readonly module: string;
  readonly out: number;
  readonly in: number;
  readonly bias: boolean;
  /** Stored as (in, out): Conv1D. */
  readonly transposed?: true;
  /** Stored shape of a convolution's kernel, (out, ...): `in` counts all values of an output channel, and x is unfolded. */
  readonly shape?: readonly number[];
}

/** A gain, a bias: one row in f32. */
export interface VectorSpec {
  readonly name: string;
  readonly length: number;
  readonly shape?: readonly number[];
}

/** A table whose rows are picked by number: embeddings, positions. */
export interface TableSpec {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
}

/** The tensors that are in memory together: a block's, or those before and after the blocks. */
export interface Part {
  readonly linears: readonly LinearSpec[];
  readonly vectors: readonly VectorSpec[];
  readonly tables: readonly TableSpec[];
}

/** How a graph reaches its weights. What stands behind it decides: frozen matrices, an adapter on top, a tap on the inputs. */
export interface Scope {
  /** x: (T, in). Gives (T, out), bias added. */
  linear(module: string, x: Tensor2D): Tensor2D;
  /** (length), f32. */
  vector(name: string): Tensor1D;
  /** Rows of a table: (ids.length, columns), f32. */
  rows(table: string, ids: Int32Array): Tensor2D;
}

/** The output layer: logits = x W^T. */
export interface HeadSpec {
  /** Full name of its weight; the input embedding's where they are tied. */
  readonly weight: string;
  readonly vocabulary: number;
  readonly columns: number;
  /** Full name of a bias over the vocabulary. */
  readonly bias?: string;
  /** z -> c tanh(z / c); 0: none. */
  readonly softcap: number;
}

/** A graph as executors, checks and compression see it: parts in order, one function a part. Hidden states are (batch * length, hiddenSize). */
export interface BlockModel {
  readonly config: { readonly hiddenSize: number; readonly numHeads: number };
  /** Before the blocks, the blocks, after them without the output layer. */
  readonly input: Part;
  readonly blocks: readonly Part[];
  readonly output: Part;
  /** The output layer, where the checkpoint has one. */
  readonly head?: HeadSpec | undefined;
  block(index: number, scope: Scope, x: Tensor2D, batch: Batch): Tensor2D;
  /** What the output layer multiplies. */
  finish(scope: Scope, x: Tensor2D): Tensor2D;
}

/** A graph that reads tokens. */
export interface TokenModel extends BlockModel {
  /** A token sees those after it too: padding has to be masked. */
  readonly bidirectional?: true;
  /** ids: (batch * length). Gives (batch * length, hidden). */
  embed(scope: Scope, ids: Int32Array, batch: Batch): Tensor2D;
}

/** A graph that reads images or spectra. */
export interface SignalModel extends BlockModel {
  /** values: (batch, ...) as the model's own preprocessing gives them. Gives (batch * length, hidden). */
  embed(scope: Scope, values: Float32Array, batch: Batch): Tensor2D;
}

export const part = (p: Partial<Part>): Part => ({ linears: p.linears ?? [], vectors: p.vectors ?? [], tables: p.tables ?? [] });
