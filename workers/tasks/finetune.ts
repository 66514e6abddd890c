/** Tasks of a fine-tuning run: the model stays open in the thread from one to the next. */
import { PithError } from '../../core/errors.js';
import { encodeAs } from '../../core/float.js';
import * as io from '../../formats/io.js';
import { loadMethod } from '../../methods/index.js';
import { KeyMemory } from '../../models/batch.js';
import type { ResultOf } from '../messages.js';
import type { TrainMergeTask, TrainOpenResult, TrainOpenTask, TrainSampleTask, TrainTask } from '../messages/train.js';
import { openModel } from '../model/open-model.js';
import type { TaskControl, WorkerState } from '../state.js';
import { writeAdapter } from '../train/write-adapter.js';
import { TrainSession } from '../train/session.js';

export async function train(state: WorkerState, task: TrainTask, control: TaskControl): Promise<ResultOf<TrainTask>> {
  if (task.type === 'train-open') return open(state, task);
  const { training: session } = state;
  if (session === undefined) throw new PithError('INTERNAL', { message: 'no model is open to be trained' });
  switch (task.type) {
    case 'train-step':
      return session.step(task.batches, task, control);
    case 'train-eval': {
      let [loss, tokens] = [0, 0];
      for (const b of task.batches) {
        const part = await session.evaluate(b, control);
        loss += part.loss;
        tokens += part.tokens;
      }
      return { loss: loss / Math.max(1, tokens), tokens };
    }
    case 'train-state':
      if (task.load === true) session.trainables.load(task.file);
      return task.load === true ? { bytes: 0, crc32: 0 } : session.trainables.save(task.file);
    case 'train-sample':
      return sample(session, task);
    case 'train-adapter':
      return writeAdapter(session, task);
    case 'train-merge':
      await merge(session, task, control);
      return null;
  }
}

async function open(state: WorkerState, task: TrainOpenTask): Promise<TrainOpenResult> {
  const { setupBackend } = await import('../../kernels/backend/setup.js');
  await setupBackend(task.settings.device, { blasThreads: task.settings.blasThreads });
  const { model, reader } = await openModel(state, task.model);
  const adapter = (await loadMethod('adapter', task.method.name)).create(task.method.params);
  const recipe = (await loadMethod('recipe', task.recipe.name)).create(task.recipe.params);
  state.training?.dispose();
  state.training = await TrainSession.open({ model, reader, adapter, recipe }, task);
  const { trainables } = state.training;
  return { trainable: trainables.count, modules: trainables.layers.map((l) => l.layer.module) };
}

/** The likeliest continuation. */
async function sample(session: TrainSession, { ids: prompt, tokens, stop }: TrainSampleTask): Promise<Int32Array> {
  const memory = new KeyMemory(prompt.length + tokens);
  const added: number[] = [];
  try {
    for (let ids = prompt; added.length < tokens; ids = Int32Array.of(added.at(-1)!)) {
      const logits = await session.last(ids, memory);
      const best = logits.indexOf(logits.reduce((a, b) => Math.max(a, b), -Infinity));
      if (best < 0 || stop.includes(best)) break;
      added.push(best);
    }
  } finally {
    memory.dispose();
  }
  return Int32Array.from(added);
}

async function merge(session: TrainSession, { tensors }: TrainMergeTask, control: TaskControl): Promise<void> {
  for (const { module, part, dtype, place } of tensors) {
    control.checkpointCancel();
    const values = (await session.merged(module))[part]!;
    const fd = io.openWrite(place.file, 'r+');
    try {
      io.writeFully(fd, encodeAs(dtype, values), place.position, place.file);
    } finally {
      io.close(fd);
    }
  }
}
