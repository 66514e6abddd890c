/** A decoder that predicts next tokens. */
import type { CausalConfig } from './config/types.js';
import type { HeadSpec, TokenModel } from './graph.js';

export interface CausalModel extends TokenModel {
  readonly config: CausalConfig;
  readonly head: HeadSpec;
}
