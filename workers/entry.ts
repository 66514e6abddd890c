/** Runs one task in a thread. Task files load on first use: a lossless job never loads tfjs. */
import { PithError } from '../core/errors.js';
import type { Envelope, Reply, Task } from './messages.js';
import { WorkerState, type TaskControl } from './state.js';

/** The one piece of state a thread keeps: open readers, method instances, the backend. */
const state = new WorkerState();

export default async function entry(envelope: Envelope): Promise<Reply> {
  const control: TaskControl = {
    report: (bytes) => void Atomics.add(envelope.progress, 0, BigInt(Math.round(bytes))),
    checkpointCancel: () => {
      if (Atomics.load(envelope.cancel, 0) !== 0) throw new PithError('CANCELLED');
    },
  };
  try {
    control.checkpointCancel();
    return { ok: await dispatch(envelope.task, control) };
  } catch (error) {
    return { error: PithError.from(error).toWire() };
  }
}

async function dispatch(task: Task, control: TaskControl): Promise<unknown> {
  switch (task.type) {
    case 'encode':
      return (await import('./tasks/encode.js')).encode(state, task, control);
    case 'rates':
      return (await import('./tasks/rates.js')).rates(state, task, control);
    case 'remainder':
      return (await import('./tasks/remainder.js')).remainder(state, task, control);
    case 'decode':
      return (await import('./tasks/decode.js')).decode(state, task, control);
    case 'hash':
      return (await import('./tasks/hash.js')).hash(state, task, control);
    case 'probe':
      return (await import('./tasks/probe.js')).probe(task);
    case 'spectrum':
      return (await import('./tasks/spectrum.js')).spectrum(state, task, control);
    case 'intruders':
      return (await import('./tasks/intruders.js')).intruders(state, task, control);
    case 'extract':
      return (await import('./tasks/extract.js')).extract(state, task, control);
    case 'fuse':
      return (await import('./tasks/fuse.js')).fuse(state, task, control);
    case 'resize':
      return (await import('./tasks/resize.js')).resize(state, task, control);
    case 'factorize':
      return (await import('./tasks/factorize.js')).factorize(state, task, control);
    case 'prune':
      return (await import('./tasks/prune.js')).prune(state, task, control);
    case 'prune-scores':
      return (await import('./tasks/prune-scores.js')).pruneScores(state, task, control);
    case 'score':
      return (await import('./tasks/score.js')).score(state, task, control);
    case 'sentences':
      return (await import('./tasks/sentences.js')).sentences(state, task, control);
    case 'generate':
      return (await import('./tasks/generate.js')).generate(state, task, control);
    case 'model-shape':
      return (await import('./tasks/block.js')).modelShape(state, task);
    case 'embed':
      return (await import('./tasks/block.js')).embed(state, task, control);
    case 'block':
      return (await import('./tasks/block.js')).block(state, task, control);
    case 'head-gradient':
      return (await import('./tasks/gradient.js')).headGradient(state, task, control);
    case 'block-gradient':
      return (await import('./tasks/gradient.js')).blockGradient(state, task, control);
    case 'train-open':
    case 'train-step':
    case 'train-eval':
    case 'train-state':
    case 'train-sample':
    case 'train-adapter':
    case 'train-merge':
      return (await import('./tasks/finetune.js')).train(state, task, control);
    case 'store-scan':
      return (await import('./tasks/store-scan.js')).storeScan(state, task, control);
    case 'store-put':
      return (await import('./tasks/store-put.js')).storePut(state, task, control);
    case 'store-get':
      return (await import('./tasks/store-get.js')).storeGet(state, task, control);
    case 'diff':
      return (await import('./tasks/diff.js')).diff(state, task, control);
  }
}
