/** Running small models in tests, without the tasks. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { headLogits } from '../../kernels/nn/head-loss.js';
import { requireCausalConfig } from '../../models/config/parse.js';
import { causalModel } from '../../models/index.js';
import { modelRef } from '../../pipelines/model-ref.js';
import { Batches, embedAll, finishAll, runBlock, type ForwardRun } from '../../workers/model/forward.js';
import { hiddenStates } from '../../workers/model/hidden.js';
import { Sequences } from '../../workers/model/sequences.js';
import { readMatrix } from '../../workers/model/weights.js';
import { openAny } from '../../workers/open.js';
import type { ModelRef } from '../../workers/messages/refs.js';

export const TINY = fileURLToPath(new URL('../../../examples/tiny/', import.meta.url));
export const tiny = (name: string): string => join(TINY, name);
export const TINY_LORA = `${tiny('base')}+${tiny('lora')}`;

export async function refOf(path: string): Promise<ModelRef> {
  await using reader = await openAny(path);
  return await modelRef(path, reader);
}

/** Logits of every token of every sequence, (tokens, vocabulary), on the backend in use; for models whose output layer is as wide as their blocks. */
export async function logitsOf(path: string, sequences: readonly Int32Array[], batchTokens = 1024): Promise<Float32Array> {
  const tf = await import('#tf');
  await using reader = await openAny(path, { merged: 'F32' });
  const ref = await modelRef(path, reader);
  const model = await causalModel(requireCausalConfig(ref.config, ref.configFile), { file: path, infos: reader.infos });
  const all = new Sequences(sequences);
  using hidden = hiddenStates(all.tokens, model.config.hiddenSize, Infinity, '');
  const run: ForwardRun = { model, reader, sequences: all, batchTokens, hidden, checkpointCancel: () => undefined, report: () => undefined };
  using batches = new Batches();
  await embedAll(run, batches);
  for (let i = 0; i < model.blocks.length; i++) await runBlock(run, i, batches);
  await finishAll(run, batches);
  const head = await readMatrix(reader, model.head.weight, model.head.vocabulary, model.head.columns);
  const z = tf.tidy(() => headLogits(tf.tensor2d(hidden.read(0, all.tokens), [all.tokens, model.head.columns]), head, model.head.softcap));
  const values = (await z.data()) as Float32Array;
  z.dispose();
  return values;
}
