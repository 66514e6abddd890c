/** The backward pass block by block: gradient of the loss to the hidden states, and Fisher statistics of the weights it passes. */
import * as tf from '#tf';
import { statName, type FisherStatistic } from '../../formats/stats/schema.js';
import { kroneckerPair, type KroneckerPair } from '../../kernels/linalg/kronecker-pair.js';
import { matrixOps, type MatrixOps } from '../../kernels/linalg/matrix-ops.js';
import { headLoss } from '../../kernels/nn/head-loss.js';
import type { BlockGradientTask, BlockResult, HeadGradientResult, HeadGradientTask, LinearShape } from '../messages/passes.js';
import type { Written } from '../messages/refs.js';
import { gather, step } from '../model/forward.js';
import { GradientWatch, type WatchedModule } from '../model/gradient-watch.js';
import { spooledStates } from '../model/hidden.js';
import type { SequenceBatch, Sequences } from '../model/sequences.js';
import { openPass } from '../model/spooled-pass.js';
import { PartWeights, readMatrix } from '../model/weights.js';
import type { TaskControl, WorkerState } from '../state.js';
import { PlaceWriter, writtenFile } from '../written.js';

export async function headGradient(state: WorkerState, task: HeadGradientTask, control: TaskControl): Promise<HeadGradientResult> {
  await using pass = await openPass(state, task, task, control);
  const { model, run, batches } = pass;
  const { reader, sequences } = run;
  const { weight, vocabulary, columns, softcap } = model.head;
  const head = await readMatrix(reader, weight, vocabulary, columns);
  using weights = await PartWeights.load(reader, model.output);
  let loss = 0;
  for (const b of sequences.batches(run.batchTokens)) {
    let value: tf.Scalar | undefined;
    await step(run, b, batches, (_, x) => {
      const { targets, shares } = nextTokens(b, sequences);
      const f = (h: tf.Tensor): tf.Scalar => tf.sum(tf.mul(headLoss(model.finish(weights, h as tf.Tensor2D), head, targets, { softcap, train: true }), shares));
      const both = tf.valueAndGrad(f)(x!);
      value = tf.keep(both.value);
      return both.grad as tf.Tensor2D;
    });
    loss += (await value!.data())[0]!;
    value!.dispose();
  }
  const counted = sequences.all.filter((s) => s.length > 1).length;
  return { output: writtenFile(task.output), loss: loss / Math.max(1, counted) };
}

/** What each token of a batch predicts, and the share of its loss in its sequence's mean; none at the ends. */
function nextTokens({ members, length }: SequenceBatch, { all }: Sequences): { targets: tf.Tensor1D; shares: tf.Tensor1D } {
  const targets = new Int32Array(members.length * length).fill(-1);
  const shares = new Float32Array(targets.length);
  members.forEach((m, i) => {
    const next = all[m]!.subarray(1);
    targets.set(next, i * length);
    shares.fill(1 / Math.max(1, next.length), i * length, i * length + next.length);
  });
  return { targets: tf.tensor1d(targets, 'int32'), shares: tf.tensor1d(shares) };
}

/** What a token of a block's backward pass counts for: its forward pass again, and twice that for both gradients. */
const BACKWARD = 3;

/** GRADIENT_NOT_FINITE (65) names module and sequence. */
export async function blockGradient(state: WorkerState, task: BlockGradientTask, control: TaskControl): Promise<BlockResult> {
  await using pass = await openPass(state, task, task, control, BACKWARD);
  const { model, run, batches } = pass;
  const { sequences } = run;
  using later = spooledStates(model.config.hiddenSize, task.gradients, undefined);
  const pairs = task.statistics.some((s) => s !== 'fisherRow');
  const { modules, spool } = task;
  using watch = new GradientWatch({ source: run.reader.source, sequences, modules, ...(pairs ? { spool } : {}) });
  {
    using weights = await PartWeights.load(run.reader, model.blocks[task.block]!);
    const scope = watch.wrap(weights);
    for (const b of sequences.batches(run.batchTokens)) {
      const dy = gather(later, sequences.runs(b), b.members.length * b.length, model.config.hiddenSize);
      watch.begin(b);
      await step(run, b, batches, (batch, x) => {
        const forward = (h: tf.Tensor): tf.Tensor => model.block(task.block, scope, h as tf.Tensor2D, batch);
        return tf.grad(forward)(x!, tf.tensor2d(dy, x!.shape)) as tf.Tensor2D;
      });
      await watch.settle();
    }
  }
  const ops = await matrixOps({ blasThreads: task.settings.blasThreads });
  const written: Record<string, Written> = {};
  for (const [module, watched] of watch.modules) {
    const pair = pairs ? pairOf(watched, task, ops, control) : undefined;
    for (const statistic of task.statistics) {
      const name = statName(module, statistic);
      using out = new PlaceWriter(task.places[name]!);
      out.write(valuesOf(statistic, watched, pair));
      written[name] = out.written;
    }
  }
  return { statistics: written, ...(task.output === undefined ? {} : { output: writtenFile(task.output) }) };
}

function pairOf(watched: WatchedModule, task: BlockGradientTask, ops: MatrixOps, control: TaskControl): KroneckerPair {
  const work = (l: LinearShape): number => l.in * l.out * (l.in + l.out);
  const share = (task.pairBytes * work(watched.shape)) / task.modules.reduce((sum, l) => sum + work(l), 0);
  // a sweep meets every gradient twice; how many there will be is not known
  const each = share / (2 * task.pairSweeps * watched.count);
  let reported = 0;
  const report = (bytes: number): void => {
    const more = Math.min(bytes, share - reported);
    reported += more;
    control.report(more);
  };
  const checkpointCancel = (): void => {
    control.checkpointCancel();
    report(each);
  };
  const pair = kroneckerPair(watched, { ops, checkpointCancel });
  report(share);
  return pair;
}

function valuesOf(statistic: FisherStatistic, watched: WatchedModule, pair: KroneckerPair | undefined): Float32Array {
  switch (statistic) {
    case 'fisherRow':
      return new Float32Array(watched.rows);
    case 'fisherA':
      return pair!.a;
    case 'fisherB':
      return pair!.b;
  }
}
