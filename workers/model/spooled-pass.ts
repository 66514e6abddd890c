/** A pass over a model whose sequences and hidden states lie in files: what its tasks open. */
import type { Backend } from '../../kernels/backend/setup.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import * as io from '../../formats/io.js';
import type { CausalModel } from '../../models/causal.js';
import { openCheckpoint } from '../../formats/open-checkpoint.js';
import type { OverlayRef, SpooledPass } from '../messages/passes.js';
import type { TokenFile } from '../messages/refs.js';
import { OverlayReader } from '../overlay-reader.js';
import type { TaskControl, WorkerState } from '../state.js';
import { Batches, type ForwardRun } from './forward.js';
import { spooledStates } from './hidden.js';
import { openModel } from './open-model.js';
import { Sequences } from './sequences.js';

export interface SpooledFiles {
  readonly input?: string;
  readonly output?: string;
  readonly overlay?: readonly OverlayRef[];
}

export interface OpenPass extends AsyncDisposable {
  readonly model: CausalModel;
  readonly run: ForwardRun;
  readonly batches: Batches;
  readonly backend: Backend;
}

/** `weight`: what a token counts for in the progress, in bytes of its hidden state. */
export async function openPass(state: WorkerState, task: SpooledPass, files: SpooledFiles, control: TaskControl, weight = 1): Promise<OpenPass> {
  const { setupBackend } = await import('../../kernels/backend/setup.js');
  const backend = await setupBackend(task.settings.device, { blasThreads: task.settings.blasThreads });
  const { model, reader } = await openModel(state, task.model);
  const width = model.config.hiddenSize;
  const sequences = readTokens(task.tokens);
  const over = await withOverlay(reader, files.overlay ?? []);
  const hidden = spooledStates(width, files.input, files.output);
  const batches = new Batches();
  const run: ForwardRun = {
    model,
    reader: over.reader,
    sequences,
    batchTokens: task.batchTokens,
    hidden,
    tableBytes: task.settings.memoryBytes / 4,
    checkpointCancel: () => control.checkpointCancel(),
    report: (tokens) => control.report(tokens * 4 * width * weight),
  };
  return {
    model,
    run,
    batches,
    backend,
    async [Symbol.asyncDispose]() {
      batches[Symbol.dispose]();
      hidden[Symbol.dispose]();
      for (const r of over.opened) await r[Symbol.asyncDispose]();
    },
  };
}

async function withOverlay(under: CheckpointReader, overlay: readonly OverlayRef[]): Promise<{ reader: CheckpointReader; opened: CheckpointReader[] }> {
  const opened: CheckpointReader[] = [];
  try {
    let reader = under;
    for (const { file } of overlay) {
      const over = await openCheckpoint(file);
      opened.push(over);
      const names = [...over.infos.keys()].filter((name) => under.infos.has(name));
      reader = new OverlayReader(reader, over, names);
    }
    return { reader, opened };
  } catch (error) {
    for (const r of opened) await r[Symbol.asyncDispose]();
    throw error;
  }
}

function readTokens({ file, lengths }: TokenFile): Sequences {
  const total = lengths.reduce((sum, n) => sum + n, 0);
  const ids = new Int32Array(total);
  const fd = io.openRead(file);
  try {
    io.readFully(fd, new Uint8Array(ids.buffer), 0, file);
  } finally {
    io.close(fd);
  }
  let at = 0;
  return new Sequences(lengths.map((n) => ids.subarray(at, (at += n))));
}
