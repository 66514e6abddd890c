/** Log probabilities of the tokens of some sequences under a model, and how far its distributions are from a reference's. */
import { PithError } from '../../core/errors.js';
import type { Backend } from '../../kernels/backend/setup.js';
import type { CausalModel } from '../../models/causal.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import type { ScoreResult, ScoreTask } from '../messages/model.js';
import type { ModelRef } from '../messages/refs.js';
import { scoredRows, scoreRows, type ScoredSide } from '../model/head-scores.js';
import { hiddenStates } from '../model/hidden.js';
import { planForward, type ForwardPlan } from '../model/plan.js';
import { openModel } from '../model/open-model.js';
import { reportUnits, runBlocks } from '../model/run-blocks.js';
import { Sequences } from '../model/sequences.js';
import type { TaskControl, WorkerState } from '../state.js';

interface Opened {
  readonly ref: ModelRef;
  readonly model: CausalModel;
  readonly reader: CheckpointReader;
}

export async function score(state: WorkerState, task: ScoreTask, control: TaskControl): Promise<ScoreResult> {
  const { setupBackend } = await import('../../kernels/backend/setup.js');
  const backend = await setupBackend(task.settings.device, { blasThreads: task.settings.blasThreads });
  const opened: Opened[] = [];
  for (const ref of task.reference === undefined ? [task.model] : [task.model, task.reference]) opened.push({ ref, ...(await openModel(state, ref)) });
  checkVocabularies(opened);
  checkTokens(opened[0]!, task.sequences);
  // what the last token predicts is not asked for
  const inputs = new Sequences(task.sequences.map((s) => s.subarray(0, -1)));
  using sides = await runSides(opened, inputs, task, backend, control);
  const [side, reference] = sides.all;
  const scored = scoredRows(task.sequences, inputs.starts, (s) => task.from?.[s] ?? 1);
  const perRow = [side!, ...(reference === undefined ? [] : [reference])].reduce((sum, s) => sum + s.headUnit, 0);
  return await scoreRows(side!, reference, scored, {
    memoryBytes: Math.min(...sides.all.map((s) => s.plan.headBytes)),
    checkpointCancel: () => control.checkpointCancel(),
    report: (tokens, rows) => control.report((perRow * tokens * rows) / Math.max(1, scored.rows.length)),
  });
}

function checkVocabularies([model, reference]: readonly Opened[]): void {
  const [own, other] = [model!.model.head.vocabulary, reference?.model.head.vocabulary];
  if (other === undefined || other === own) return;
  throw new PithError('VOCABULARY_MISMATCH', { file: model!.ref.checkpoint.path, got: own, reference: reference!.ref.checkpoint.path, expected: other });
}

/** Also the tokens that are only predicted. */
function checkTokens({ ref, model: { head } }: Opened, sequences: readonly Int32Array[]): void {
  for (const ids of sequences) {
    const got = ids.find((id) => id < 0 || id >= head.vocabulary);
    if (got !== undefined) throw new PithError('TOKEN_RANGE', { file: ref.checkpoint.path, tensor: head.weight, expected: head.vocabulary, got });
  }
}

interface RunSide extends ScoredSide {
  readonly plan: ForwardPlan;
  /** Reported bytes of one row of the output layer for all tokens. */
  readonly headUnit: number;
}

async function runSides(
  opened: readonly Opened[],
  sequences: Sequences,
  task: ScoreTask,
  backend: Backend,
  control: TaskControl,
): Promise<{ all: RunSide[] } & Disposable> {
  const all: RunSide[] = [];
  const dispose = (): void => all.forEach((s) => s.hidden[Symbol.dispose]());
  const { memoryBytes } = task.settings;
  try {
    for (const { model, reader } of opened) {
      const plan = planForward(model, reader, sequences, { memoryBytes, wholeScores: backend.blas === undefined, sides: opened.length });
      const hidden = hiddenStates(sequences.tokens, model.config.hiddenSize, plan.hiddenBytes, `${task.spool}.${all.length}`);
      const units = reportUnits(model, reader, true);
      all.push({ model, reader, hidden, plan, headUnit: units.scale * units.headRow });
      await runBlocks({ model, reader, sequences, hidden, ...plan, batchTokens: task.batchTokens ?? plan.batchTokens }, units, control);
    }
  } catch (error) {
    dispose();
    throw error;
  }
  return { all, [Symbol.dispose]: dispose };
}
