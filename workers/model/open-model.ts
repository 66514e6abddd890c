/** A model that a task names: its checkpoint opened, its config read, every tensor of the graph checked. */
import type { CheckpointReader } from '../../formats/checkpoint.js';
import type { Bert } from '../../models/bert.js';
import type { CausalModel } from '../../models/causal.js';
import { requireCausalConfig, requireEncoderConfig } from '../../models/config/parse.js';
import { bertModel, causalModel } from '../../models/index.js';
import type { ModelRef } from '../messages/refs.js';
import type { OpenOptions } from '../adapted-reader.js';
import type { WorkerState } from '../state.js';

/** How a checkpoint is opened to be run. */
export const RUN: OpenOptions = { merged: 'F32' };

export async function openModel(state: WorkerState, ref: ModelRef): Promise<{ model: CausalModel; reader: CheckpointReader }> {
  const reader = await state.reader(ref.checkpoint, RUN);
  const config = requireCausalConfig(ref.config, ref.configFile);
  return { model: await causalModel(config, { file: ref.checkpoint.path, infos: reader.infos }), reader };
}

/** The same for a text encoder. */
export async function openEncoder(state: WorkerState, ref: ModelRef): Promise<{ model: Bert; reader: CheckpointReader }> {
  const reader = await state.reader(ref.checkpoint, RUN);
  const config = requireEncoderConfig(ref.config, ref.configFile);
  return { model: await bertModel(config, { file: ref.checkpoint.path, infos: reader.infos }), reader };
}
