/** How the scores of one layer are spread: what a threshold over all layers is found by. */
import { PithError } from '../../core/errors.js';
import { countKeys, scoreKeys } from '../../kernels/sparse/score-keys.js';
import { loadMethod } from '../../methods/index.js';
import type { PruneScoresResult, PruneScoresTask } from '../messages/layers.js';
import { readLayerStats, readTunedLayer } from '../read-layer.js';
import type { TaskControl, WorkerState } from '../state.js';

export async function pruneScores(state: WorkerState, task: PruneScoresTask, control: TaskControl): Promise<PruneScoresResult> {
  const pruner = (await loadMethod('prune', task.method.name)).create(task.method.params);
  const layer = await readTunedLayer(state, task.layer, control);
  const ctx = state.ctx(task.settings, task.layer.tensor.name, control);
  const scores = pruner.scores?.(ctx, layer, readLayerStats(task.layer, pruner.needs));
  if (scores === undefined) throw new PithError('INTERNAL', { message: `"${task.method.name}" gives no scores` });
  return { counts: countKeys(scoreKeys(scores), task.high) };
}
