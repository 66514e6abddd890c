/** Forward passes of every decoder against transformers, and gradients through whole models against torch. */
import { expect } from 'chai';
import type * as tfjs from '#tf';
import type { CausalModel } from '../../models/causal.js';
import { requireModelConfig } from '../../models/config/parse.js';
import type { CausalConfig } from '../../models/config/types.js';
import type { Part, Scope } from '../../models/graph.js';
import { causalModel } from '../../models/index.js';
import { embeddingRows } from '../../kernels/nn/embedding.js';
import { decodeF32 } from '../../core/float.js';
import { forEachBackend } from '../support/backends.js';
import { maxDifference, modelConfigOf, modelGolden, modelNames, type ModelDocument } from '../support/goldens.js';
import { batchOf, logitsOf, openGolden, runStack, valuesOf, visible, type OpenModel } from '../support/run-model.js';

const CAUSAL = modelNames().filter((name) => /^(llama|mistral|qwen|gemma|phi3|gpt2|opt)/.test(name));

async function open(name: string): Promise<OpenModel & { model: CausalModel }> {
  const opened = await openGolden(name);
  return { ...opened, model: await causalModel(requireModelConfig(modelConfigOf(name), name) as CausalConfig, opened.table) };
}

/** The golden's inputs; OPT counts what is not masked. */
const inputsOf = (d: ModelDocument): ReturnType<typeof batchOf> =>
  batchOf({ ...d, position_ids: d.position_ids ?? d.attention_mask!.map((row) => row.map((m, i) => (m === 0 ? -1 : sum(row.slice(0, i))))) });
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

async function hiddenOf({ model, ...opened }: Awaited<ReturnType<typeof open>>, d: ModelDocument, tf: typeof tfjs): Promise<Float32Array[]> {
  const { ids, batch, seen } = inputsOf(d);
  const states: Float32Array[] = [];
  const keep = async (t: tfjs.Tensor): Promise<void> => void states.push(visible((await t.data()) as Float32Array, seen));
  const run = { ...opened, tf, model, batch, keep, embed: (scope: Scope) => model.embed(scope, ids, batch) };
  const [x] = (await runStack(run, (scope, y) => [model.finish(scope, y)])) as [tfjs.Tensor2D];
  states.push(visible(await valuesOf(await logitsOf(run, x)), seen));
  x.dispose();
  batch.dispose();
  return states;
}

forEachBackend('decoders', (backend) => {
  for (const name of CAUSAL) {
    it(`${name}: logits of transformers`, async () => {
      const { tf } = backend();
      const opened = await open(name);
      const { model, reader } = opened;
      const golden = modelGolden(name);
      const { seen, batch } = inputsOf(golden.document);
      batch.dispose();
      const tensors = tf.memory().numTensors;
      const states = await hiddenOf(opened, golden.document, tf);
      expect(tf.memory().numTensors, 'tensors left').to.equal(tensors);
      const logits = visible(golden.tensor('logits').values, seen);
      expect(maxDifference(states.at(-1)!, logits)).to.be.lessThan(golden.document.tolerance);
      for (let i = 0; golden.tensors.has(`hidden.${i}`); i++) {
        // the last one that transformers shows is behind the final norm
        if (i === model.blocks.length) continue;
        expect(maxDifference(states[i]!, visible(golden.tensor(`hidden.${i}`).values, seen)), `hidden ${i}`).to.be.lessThan(golden.document.tolerance);
      }
      await reader[Symbol.asyncDispose]();
    });
  }
});

/** All weights as tensors that can be differentiated by. */
class TensorScope implements Scope {
  constructor(
    private readonly tf: typeof tfjs,
    readonly tensors: ReadonlyMap<string, tfjs.Tensor>,
    private readonly parts: readonly Part[],
  ) {}

  linear(module: string, x: tfjs.Tensor2D): tfjs.Tensor2D {
    const spec = this.parts.flatMap((p) => p.linears).find((l) => l.module === module)!;
    const y: tfjs.Tensor2D = this.tf.matMul(x, this.tensors.get(`${module}.weight`) as tfjs.Tensor2D, false, spec.transposed !== true);
    return spec.bias ? this.tf.add(y, this.tensors.get(`${module}.bias`)!) : y;
  }

  vector(name: string): tfjs.Tensor1D {
    return this.tensors.get(name) as tfjs.Tensor1D;
  }

  rows(name: string, ids: Int32Array): tfjs.Tensor2D {
    return embeddingRows(this.tensors.get(name) as tfjs.Tensor2D, this.tf.tensor1d(ids, 'int32'));
  }
}

forEachBackend('gradients through whole models', (backend) => {
  for (const name of ['llama', 'gemma2', 'gpt2']) {
    it(name, async () => {
      const { tf } = backend();
      const { model, reader } = await open(name);
      const golden = modelGolden(name);
      const { ids, seen, batch } = inputsOf(golden.document);
      const names = [...golden.tensors.keys()].flatMap((k) => (k.startsWith('grad.') && !k.startsWith('grad.hidden') ? [k.slice(5)] : []));
      const tensors = new Map<string, tfjs.Tensor>();
      for (const info of reader.infos.values()) {
        const { dtype, bytes, shape } = await reader.read(info.name);
        tensors.set(info.name, tf.tensor(decodeF32(dtype, bytes), [...shape]));
      }
      const parts = [model.input, ...model.blocks, model.output];
      const loss = (given: ReadonlyMap<string, tfjs.Tensor>): tfjs.Scalar => {
        const scope = new TensorScope(tf, given, parts);
        let x = model.embed(scope, ids, batch);
        for (const i of model.blocks.keys()) x = model.block(i, scope, x, batch);
        const { weight, softcap } = model.head;
        const raw: tfjs.Tensor2D = tf.matMul(model.finish(scope, x), given.get(weight) as tfjs.Tensor2D, false, true);
        const logits: tfjs.Tensor2D = softcap > 0 ? tf.mul(tf.tanh(tf.div(raw, softcap)), softcap) : raw;
        return meanNextTokenLoss(tf, logits, ids, seen, batch.length);
      };
      const own = names.map((n) => tensors.get(n)!);
      const { value, grads } = tf.valueAndGrads((...given: tfjs.Tensor[]) => loss(new Map([...tensors, ...names.map((n, i) => [n, given[i]!] as const)])))(own);
      expect((await value.data())[0]).to.be.closeTo(golden.document.loss!, 1e-5);
      for (const [i, n] of names.entries()) {
        const expected = golden.tensor(`grad.${n}`).values;
        const scale = Math.max(...expected.map(Math.abs));
        expect(maxDifference(await grads[i]!.data(), expected), n).to.be.lessThan(2e-5 * Math.max(1, scale));
      }
      for (const t of [value, ...grads, ...tensors.values()]) t.dispose();
      batch.dispose();
      await reader[Symbol.asyncDispose]();
    });
  }
});

/** Mean of -log p over the tokens whose successor is not masked. */
function meanNextTokenLoss(tf: typeof tfjs, logits: tfjs.Tensor2D, ids: Int32Array, seen: Uint8Array, length: number): tfjs.Scalar {
  const used = Float32Array.from(ids, (_, i) => ((i + 1) % length !== 0 && seen[i] === 1 && seen[i + 1] === 1 ? 1 : 0));
  const targets = Int32Array.from(ids, (_, i) => (used[i] === 1 ? ids[i + 1]! : 0));
  const logP = tf.logSoftmax(logits);
  const picked = tf.sum(tf.mul(logP, tf.oneHot(tf.tensor1d(targets, 'int32'), logits.shape[1])), 1);
  return tf.div(
    tf.neg(tf.sum(tf.mul(picked, tf.tensor1d(used)))),
    used.reduce((a, b) => a + b, 0),
  );
}
