/** One vector a token sequence, from the last block of a text encoder. */
import { setupBackend } from '../../kernels/backend/setup.js';
import { embedTokens } from '../../models/sentence.js';
import type { SentencesResult, SentencesTask } from '../messages/model.js';
import { hiddenStates } from '../model/hidden.js';
import { openEncoder } from '../model/open-model.js';
import { planForward } from '../model/plan.js';
import { reportUnits, runBlocks } from '../model/run-blocks.js';
import { Sequences } from '../model/sequences.js';
import type { TaskControl, WorkerState } from '../state.js';

export async function sentences(state: WorkerState, task: SentencesTask, control: TaskControl): Promise<SentencesResult> {
  const { device, blasThreads, memoryBytes } = task.settings;
  const backend = await setupBackend(device, { blasThreads });
  const { model, reader } = await openEncoder(state, task.model);
  const all = new Sequences(task.sequences);
  const plan = planForward(model, reader, all, { memoryBytes, wholeScores: backend.blas === undefined, sides: 1 });
  const width = model.config.hiddenSize;
  using hidden = hiddenStates(all.tokens, width, plan.hiddenBytes, task.spool);
  const run = { model, reader, sequences: all, hidden, ...plan, batchTokens: task.batchTokens ?? plan.batchTokens };
  await runBlocks(run, reportUnits(model, reader, false), control);
  const channels = task.pooling.modes.length * width;
  const embeddings = new Float32Array(task.sequences.length * channels);
  for (const [i, ids] of task.sequences.entries()) {
    embeddings.set(embedTokens(hidden.read(all.starts[i]!, ids.length), width, task.pooling), i * channels);
  }
  return { width: channels, embeddings };
}
