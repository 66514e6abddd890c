/** What a model's graph says of its weights, and how its code reaches them: plain, adapted, quantized or watched alike. */
import type { Tensor1D, Tensor2D } from '#tf';

/** y = x W^T + b. */
export interface LinearSpec {
  /** Its name in the checkpoint without `.weight`. */
  readonly module: string;
  readonly out: number;
  readonly in: number;
  readonly bias: boolean;
  /** Stored as (in, out): Conv1D. */
  readonly transposed?: true;
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

export const part = (p: Partial<Part>): Part => ({ linears: p.linears ?? [], vectors: p.vectors ?? [], tables: p.tables ?? [] });
