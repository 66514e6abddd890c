/** Forward passes of bert, vit and whisper against transformers. */
import { expect } from 'chai';
import type * as tfjs from '#tf';
import { Batch } from '../../models/batch.js';
import { requireModelConfig } from '../../models/config/parse.js';
import type { BertConfig, VitConfig, WhisperConfig } from '../../models/config/types.js';
import { bertModel, vitModel, whisperModel } from '../../models/index.js';
import { embedTokens } from '../../models/sentence.js';
import { forEachBackend } from '../support/backends.js';
import { maxDifference, modelConfigOf, modelGolden, modelNames, type Golden, type ModelDocument } from '../support/goldens.js';
import { batchOf, logitsOf, openGolden, runStack, valuesOf, visible, type OpenModel } from '../support/run-model.js';

type Tf = typeof tfjs;
type Outputs = Record<string, Float32Array>;

async function runBert(tf: Tf, name: string, opened: OpenModel, { document }: Golden<ModelDocument>): Promise<Outputs> {
  const model = await bertModel(requireModelConfig(modelConfigOf(name), name) as BertConfig, opened.table);
  const { ids, seen, batch } = batchOf(document);
  const run = { ...opened, tf, model, batch, embed: (scope: Parameters<typeof model.embed>[0]) => model.embed(scope, ids, batch) };
  const [states, ...pooled] = await runStack(run, (scope, x) => [model.finish(scope, x), ...(model.hasPooler ? [model.pooled(scope, x, batch)] : [])]);
  const out: Outputs = {};
  if (model.head === undefined) {
    const values = (out['last_hidden_state'] = visible(await valuesOf(states!), seen));
    out['sentence_embedding'] = sentences(values, seen, batch, model.config.hiddenSize);
  } else {
    out['logits'] = visible(await valuesOf(await logitsOf(run, states as tfjs.Tensor2D)), seen);
    states!.dispose();
  }
  if (model.hasPooler) out['pooler_output'] = await valuesOf(pooled[0]!);
  batch.dispose();
  return out;
}

/** Mean of what is not padding, which is at the end, to length 1. */
function sentences(values: Float32Array, seen: Uint8Array, { batch, length }: Batch, width: number): Float32Array {
  return Float32Array.from(
    Array.from({ length: batch }, (_, s) => {
      const tokens = seen.subarray(s * length, (s + 1) * length).reduce((n, v) => n + v, 0);
      const own = values.subarray(s * length * width, (s * length + tokens) * width);
      return [...embedTokens(own, width, { modes: ['mean'], normalize: true })];
    }).flat(),
  );
}

async function runVit(tf: Tf, name: string, opened: OpenModel, golden: Golden<ModelDocument>): Promise<Outputs> {
  const model = await vitModel(requireModelConfig(modelConfigOf(name), name) as VitConfig, opened.table);
  const { shape, values } = golden.tensor('input.pixel_values');
  const batch = new Batch({ batch: shape[0]!, length: model.config.numTokens });
  const run = { ...opened, tf, model, batch, embed: (scope: Parameters<typeof model.embed>[0]) => model.embed(scope, values, batch) };
  const [states, ...pooled] = await runStack(run, (scope, x) => {
    const y = model.finish(scope, x);
    return [y, ...(model.hasPooler ? [model.pooled(scope, y, batch)] : [])];
  });
  const out: Outputs = {};
  if (model.head === undefined) out['last_hidden_state'] = await valuesOf(states!);
  else {
    const first = tf.tidy(() => batch.firstRows(states as tfjs.Tensor2D));
    out['logits'] = await valuesOf(await logitsOf(run, first));
    tf.dispose([states!, first]);
  }
  if (model.hasPooler) out['pooler_output'] = await valuesOf(pooled[0]!);
  batch.dispose();
  return out;
}

/** `hidden`: so many last tokens of every sequence are masked. */
async function runWhisper(tf: Tf, name: string, opened: OpenModel, golden: Golden<ModelDocument>, hidden = 0): Promise<Outputs> {
  const config = requireModelConfig(modelConfigOf(name), name) as WhisperConfig;
  const { encoder, decoder } = await whisperModel(config, opened.table);
  const { shape, values } = golden.tensor('input.input_features');
  const frames = new Batch({ batch: shape[0]!, length: config.encoder.maxPositions });
  const heard = { ...opened, tf, model: encoder, batch: frames, embed: (scope: Parameters<typeof encoder.embed>[0]) => encoder.embed(scope, values, frames) };
  const [states] = (await runStack(heard, (scope, x) => [encoder.finish(scope, x)])) as [tfjs.Tensor2D];
  const rows = golden.document.decoder_input_ids!;
  const ids = Int32Array.from(rows.flat());
  const length = rows[0]!.length;
  const mask = hidden === 0 ? {} : { mask: Uint8Array.from(ids, (_, i) => (i % length < length - hidden ? 1 : 0)) };
  const batch = new Batch({ batch: rows.length, length, context: { states, length: frames.length }, ...mask });
  const run = { ...opened, tf, model: decoder, batch, embed: (scope: Parameters<typeof decoder.embed>[0]) => decoder.embed(scope, ids, batch) };
  const [y] = (await runStack(run, (scope, x) => [decoder.finish(scope, x)])) as [tfjs.Tensor2D];
  const out = { encoder_last_hidden_state: await valuesOf(states), logits: await valuesOf(await logitsOf(run, y)) };
  y.dispose();
  for (const b of [frames, batch]) b.dispose();
  return out;
}

const RUNS = { bert: runBert, vit: runVit, whisper: runWhisper } as const;

forEachBackend('encoders', (backend) => {
  for (const name of modelNames()) {
    const family = /^(bert|vit|whisper)/.exec(name)?.[1] as keyof typeof RUNS | undefined;
    if (family === undefined) continue;
    it(`${name}: outputs of transformers`, async () => {
      const { tf } = backend();
      const opened = await openGolden(name);
      const golden = modelGolden(name);
      const tensors = tf.memory().numTensors;
      const out = await RUNS[family](tf, name, opened, golden);
      expect(tf.memory().numTensors, 'tensors left').to.equal(tensors);
      const expected = [...golden.tensors.keys()].filter((k) => !k.startsWith('input.'));
      expect(Object.keys(out).sort()).to.deep.equal(expected.sort());
      for (const k of expected) expect(maxDifference(out[k]!, golden.tensor(k).values), k).to.be.lessThan(golden.document.tolerance);
      await opened.reader[Symbol.asyncDispose]();
    });
  }

  it('whisper: padding of the text hides nothing of the sound', async () => {
    const { tf } = backend();
    const opened = await openGolden('whisper');
    const golden = modelGolden('whisper');
    const { logits } = await runWhisper(tf, 'whisper', opened, golden, 4);
    const { shape, values } = golden.tensor('logits');
    const length = shape[1]!;
    const seen = Uint8Array.from({ length: shape[0]! * length }, (_, i) => (i % length < length - 4 ? 1 : 0));
    expect(maxDifference(visible(logits!, seen), visible(values, seen))).to.be.lessThan(golden.document.tolerance);
    await opened.reader[Symbol.asyncDispose]();
  });
});
