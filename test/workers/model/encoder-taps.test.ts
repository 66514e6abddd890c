/** The linear layers of encoders as calibration sees them: which share an input, and sums over padded batches against those of single texts. */
import { expect } from 'chai';
import type * as tfjs from '#tf';
import { Rng } from '../../../core/rng.js';
import { requireEncoderConfig, requireModelConfig } from '../../../models/config/parse.js';
import { bertModel, stacksOf } from '../../../models/index.js';
import { Batches, embedAll, runTapped, type ForwardRun } from '../../../workers/model/forward.js';
import { hiddenStates } from '../../../workers/model/hidden.js';
import { InputTap } from '../../../workers/model/input-tap.js';
import { inputGroups } from '../../../workers/model/probe.js';
import { Sequences } from '../../../workers/model/sequences.js';
import { forEachBackend } from '../../support/backends.js';
import { relativeError } from '../../support/calibration.js';
import { modelConfigOf } from '../../support/goldens.js';
import { openGolden } from '../../support/run-model.js';

const rng = new Rng(515);
const SEQUENCES = [9, 30, 4, 17, 30].map((n) => Int32Array.from({ length: n }, () => rng.integer(48)));

/** Squares of the inputs of every group of every block, by the group's first module. */
async function squares(batchTokens: number): Promise<Map<string, Float64Array>> {
  const name = 'bert-mlm';
  const opened = await openGolden(name);
  await using reader = opened.reader;
  const model = await bertModel(requireEncoderConfig(modelConfigOf(name), name), opened.table);
  const sequences = new Sequences(SEQUENCES);
  using hidden = hiddenStates(sequences.tokens, model.config.hiddenSize, Infinity, '');
  const run: ForwardRun = { model, reader, sequences, batchTokens, hidden, checkpointCancel: () => undefined, report: () => undefined };
  using batches = new Batches();
  await embedAll(run, batches);
  const out = new Map<string, Float64Array>();
  for (const [index, groups] of inputGroups(model).entries()) {
    const tap = new InputTap({ source: name, sequences, groups, gram: false, stop: false });
    await runTapped(run, index, batches, tap);
    expect(tap.tokens).to.equal(sequences.tokens);
    for (const [module, sums] of tap.sums) out.set(module, Float64Array.from(sums.squares));
  }
  return out;
}

forEachBackend('encoders under a tap', () => {
  it('padding counts for nothing', async () => {
    const tf: typeof tfjs = await import('#tf');
    const tensors = tf.memory().numTensors;
    const [alone, together] = [await squares(1), await squares(64)];
    expect(tf.memory().numTensors).to.equal(tensors);
    expect(alone.size).to.equal(8);
    for (const [module, values] of alone) expect(relativeError(together.get(module)!, values), module).to.be.below(1e-5);
  });
});

describe('groups of layers with one input', () => {
  /** Names without what all of a block's begin with. */
  async function groupsOf(name: string, stack: number): Promise<string[][]> {
    const { table, reader } = await openGolden(name);
    const model = (await stacksOf(requireModelConfig(modelConfigOf(name), name), table))[stack]!;
    const [first] = inputGroups(model);
    await reader[Symbol.asyncDispose]();
    return first!.map((g) => g.modules.map((m) => m.replace(/^.*?layers?\.0\./, '')));
  }

  it('bert', async () => {
    expect(await groupsOf('bert-mlm', 0)).to.deep.equal([
      ['attention.self.query', 'attention.self.key', 'attention.self.value'],
      ['attention.output.dense'],
      ['intermediate.dense'],
      ['output.dense'],
    ]);
  });

  it('vit', async () => {
    expect(await groupsOf('vit', 0)).to.deep.equal([
      ['attention.attention.query', 'attention.attention.key', 'attention.attention.value'],
      ['attention.output.dense'],
      ['intermediate.dense'],
      ['output.dense'],
    ]);
  });

  it('whisper: keys and values of the cross-attention see the encoder', async () => {
    expect(await groupsOf('whisper', 0)).to.deep.equal([
      ['self_attn.k_proj', 'self_attn.v_proj', 'self_attn.q_proj'],
      ['self_attn.out_proj'],
      ['fc1'],
      ['fc2'],
    ]);
    expect(await groupsOf('whisper', 1)).to.deep.equal([
      ['self_attn.k_proj', 'self_attn.v_proj', 'self_attn.q_proj'],
      ['self_attn.out_proj'],
      ['encoder_attn.k_proj', 'encoder_attn.v_proj'],
      ['encoder_attn.q_proj'],
      ['encoder_attn.out_proj'],
      ['fc1'],
      ['fc2'],
    ]);
  });
});
