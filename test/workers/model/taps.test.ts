/** Taps on inputs and gradients on every backend, against torch's statistics. */
import { expect } from 'chai';
import type * as tfjs from '#tf';
import { openCheckpoint } from '../../../formats/open-checkpoint.js';
import { headLoss } from '../../../kernels/nn/head-loss.js';
import { requireCausalConfig } from '../../../models/config/parse.js';
import { causalModel } from '../../../models/index.js';
import { Batches, embedAll, gather, runTapped, step, type ForwardRun } from '../../../workers/model/forward.js';
import { GradientWatch } from '../../../workers/model/gradient-watch.js';
import { hiddenStates } from '../../../workers/model/hidden.js';
import { InputTap } from '../../../workers/model/input-tap.js';
import { inputGroups } from '../../../workers/model/probe.js';
import { Sequences } from '../../../workers/model/sequences.js';
import { PartWeights, readMatrix } from '../../../workers/model/weights.js';
import { forEachBackend } from '../../support/backends.js';
import { probeError, relativeError } from '../../support/calibration.js';
import { calibrationGolden, modelConfigOf, modelFolder } from '../../support/goldens.js';

const MODELS = ['gpt2', 'gemma2'];

forEachBackend('taps', () => {
  for (const name of MODELS) {
    it(`${name}: sums of inputs and of squared gradients`, async function () {
      this.timeout(120_000);
      const tf: typeof tfjs = await import('#tf');
      const golden = calibrationGolden(name);
      const tensors = tf.memory().numTensors;
      await using reader = await openCheckpoint(modelFolder(name));
      const model = await causalModel(requireCausalConfig(modelConfigOf(name), name), { file: name, infos: reader.infos });
      const sequences = new Sequences(golden.document.sequences.map((s) => Int32Array.from(s)));
      const width = model.config.hiddenSize;
      using hidden = hiddenStates(sequences.tokens, width, Infinity, '');
      // two batches, the second one padded
      const run: ForwardRun = { model, reader, sequences, batchTokens: 48, hidden, checkpointCancel: () => undefined, report: () => undefined };
      {
        using batches = new Batches();
        await embedAll(run, batches);
        const groups = inputGroups(model);
        const before: Float32Array[] = [];
        for (const [index, own] of groups.entries()) {
          before.push(hidden.read(0, sequences.tokens));
          const tap = new InputTap({ source: name, sequences, groups: own, gram: true, stop: false });
          await runTapped(run, index, batches, tap);
          expect(tap.tokens).to.equal(sequences.tokens);
          for (const [module, sums] of tap.sums) {
            expect(relativeError(sums.squares, golden.tensor(`${module}.inputSqNorm`).values), module).to.be.below(1e-5);
            const gram = new Float32Array(sums.n ** 2);
            sums.gram!.rows(0, sums.n, gram);
            expect(probeError(gram, golden, `${module}.inputGram`), module).to.be.below(1e-5);
          }
        }
        await lastGradients(tf, run, batches, before.at(-1)!, golden);
      }
      expect(tf.memory().numTensors).to.equal(tensors);
    });
  }
});

/** Squared gradients of the last block's weights: back through the output layer, then through the block. */
async function lastGradients(tf: typeof tfjs, run: ForwardRun, batches: Batches, before: Float32Array, golden: ReturnType<typeof calibrationGolden>) {
  const { reader, sequences, hidden } = run;
  const model = run.model as Awaited<ReturnType<typeof causalModel>>;
  const index = model.blocks.length - 1;
  const { weight, vocabulary, columns, softcap } = model.head;
  const head = await readMatrix(reader, weight, vocabulary, columns);
  using output = await PartWeights.load(reader, model.output);
  for (const b of sequences.batches(run.batchTokens)) {
    await step(run, b, batches, (_, x) => {
      const all = b.members.map((m) => sequences.all[m]!);
      const targets = tf.tensor1d(all.flatMap((s) => Array.from({ length: b.length }, (_, i) => s[i + 1] ?? -1)), 'int32'); // prettier-ignore
      const shares = tf.tensor1d(all.flatMap((s) => Array.from({ length: b.length }, () => 1 / Math.max(1, s.length - 1)))); // prettier-ignore
      const loss = (h: tfjs.Tensor): tfjs.Scalar => tf.sum(tf.mul(headLoss(model.finish(output, h as tfjs.Tensor2D), head, targets, { softcap, train: true }), shares)); // prettier-ignore
      return tf.grad(loss)(x!) as tfjs.Tensor2D;
    });
  }
  const later = hidden.read(0, sequences.tokens);
  hidden.write(0, before);
  const modules = model.blocks[index]!.linears.map((l) => ({ module: l.module, in: l.in, out: l.out, transposed: l.transposed === true }));
  using watch = new GradientWatch({ source: '', sequences, modules });
  using weights = await PartWeights.load(reader, model.blocks[index]!);
  const scope = watch.wrap(weights);
  for (const b of sequences.batches(run.batchTokens)) {
    watch.begin(b);
    await step(run, b, batches, (batch, x) => {
      const states = { read: (start: number, count: number) => later.slice(start * x!.shape[1], (start + count) * x!.shape[1]) };
      const dy = tf.tensor2d(gather(states as never, sequences.runs(b), x!.shape[0], x!.shape[1]), x!.shape);
      return tf.grad((h: tfjs.Tensor): tfjs.Tensor => model.block(index, scope, h as tfjs.Tensor2D, batch))(x!, dy) as tfjs.Tensor2D;
    });
    await watch.settle();
  }
  for (const [module, watched] of watch.modules) {
    expect(relativeError(watched.rows, golden.tensor(`${module}.fisherRow`).values), module).to.be.below(golden.document.tolerance.gradients);
  }
}
