/** What a training recipe may say of a batch: how much each token and each sample counts. Weights are constants in the backward pass. */

/** The tokens of a batch that are learnt, one after the other. */
export interface RecipeBatch {
  /** -log p of every token, nats. */
  readonly losses: Float32Array;
  /** Sample of every token. */
  readonly samples: Int32Array;
}

export interface Recipe {
  /** Weight of every token of the batch, from its losses; absent: all 1, and no pass over the logits beforehand. */
  tokenWeights?(batch: RecipeBatch): Float32Array;
}
