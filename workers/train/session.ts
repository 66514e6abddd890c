/**
 * A model while it is trained: block by block forwards with only the inputs of the blocks kept, the output layer's loss and gradient at once,
 * block by block backwards, each block computed again (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, arXiv 1604.06174).
 */
import * as tf from '#tf';
import { PithError } from '../../core/errors.js';
import { Rng } from '../../core/rng.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import { embeddingRows } from '../../kernels/nn/embedding.js';
import type { FrozenMatrix } from '../../kernels/nn/frozen-matrix.js';
import { headGradient, headLoss } from '../../kernels/nn/head-loss.js';
import { makeOptimizer } from '../../kernels/optim/optimizers.js';
import { PLAIN_PASS } from '../../methods/adapter-forward.js';
import type { ParamTree, Pass, WeightAdapter } from '../../methods/adapter-kind.js';
import type { Recipe } from '../../methods/recipe-kind.js';
import { Batch, type KeyMemory } from '../../models/batch.js';
import type { CausalModel } from '../../models/causal.js';
import type { Scope } from '../../models/graph.js';
import type { RunSettings } from '../messages/refs.js';
import type { TrainBatch, TrainOpenTask, TrainStepResult } from '../messages/train.js';
import { PartWeights, readMatrix } from '../model/weights.js';
import { Trainables, type TrainedLayer } from './trainables.js';
import { adaptedScope, seededPass, Tables } from './weights.js';

interface Source {
  readonly model: CausalModel;
  readonly reader: CheckpointReader;
  readonly adapter: WeightAdapter;
  readonly recipe: Recipe;
}

/** What a pass checks on its way. */
export interface Control {
  checkpointCancel(): void;
}

export class TrainSession {
  readonly #byModule: ReadonlyMap<string, TrainedLayer>;
  readonly #rng: Rng;
  #disposed = false;

  private constructor(
    readonly source: Source,
    private readonly head: FrozenMatrix,
    private readonly input: Tables,
    private readonly blocks: readonly PartWeights[],
    private readonly output: PartWeights,
    readonly trainables: Trainables,
    seed: number,
  ) {
    this.#byModule = new Map(trainables.layers.map((l) => [l.layer.module, l]));
    this.#rng = new Rng(seed).fork('dropout');
  }

  static async open(source: Source, task: TrainOpenTask): Promise<TrainSession> {
    const { model, reader, adapter } = source;
    const { weight, vocabulary, columns } = model.head;
    const head = await readMatrix(reader, weight, vocabulary, columns);
    const input = await Tables.load(reader, model.input, new Map([[weight, head]]));
    const blocks: PartWeights[] = [];
    for (const p of model.blocks) blocks.push(await PartWeights.load(reader, p));
    const output = await PartWeights.load(reader, model.output);
    const layers = await initLayers(source, blocks, task);
    const rule = adapter.rule?.(layers, task.steps);
    const trainables = new Trainables(layers, makeOptimizer(task.optimizer), rule);
    if (task.start !== undefined) trainables.load(task.start);
    return new TrainSession(source, head, input, blocks, output, trainables, task.settings.seed);
  }

  /** Adds up the gradients of all micro-batches, then steps. Loss and norm that are not finite leave everything as it was. */
  async step(batches: readonly TrainBatch[], o: { step: number; rate: number; clip: number }, control: Control): Promise<TrainStepResult> {
    const { trainables } = this;
    trainables.zeroGradients();
    const tokens = batches.reduce((sum, b) => sum + b.weights.reduce((a, w) => a + (w === 0 ? 0 : 1), 0), 0);
    let loss = 0;
    for (const [i, b] of batches.entries()) {
      const sum = await this.#gradients(b, Math.max(1, tokens), `${o.step}.${i}`, control);
      if (!Number.isFinite(sum)) return { loss: sum, gradNorm: NaN, tokens, badBatch: i };
      loss += sum;
    }
    const extra = await this.#extraLoss();
    const gradNorm = trainables.step(o.step, o.rate, o.clip);
    return { loss: loss + extra, gradNorm, tokens, ...(Number.isFinite(gradNorm) ? {} : { badBatch: -1 }) };
  }

  /** Sum of the losses of the tokens that are learnt, nats, and their number. */
  async evaluate(b: TrainBatch, control: Control): Promise<{ loss: number; tokens: number }> {
    const batch = batchOf(b);
    try {
      let x = tf.tidy(() => this.source.model.embed(this.input, b.inputs, batch));
      for (const i of this.source.model.blocks.keys()) x = await this.#through(i, x, batch, PASS_OFF, control);
      const { chosen, targets } = learnt(b);
      const losses = tf.tidy(() =>
        headLoss(tf.gather(this.source.model.finish(this.output, x), tf.tensor1d(chosen, 'int32')), this.head, tf.tensor1d(targets, 'int32'), {
          softcap: this.source.model.head.softcap,
          train: false,
        }),
      );
      const values = await take(losses);
      x.dispose();
      return { loss: values.reduce((a, v) => a + v, 0), tokens: targets.length };
    } finally {
      batch.dispose();
    }
  }

  async #gradients(b: TrainBatch, total: number, label: string, control: Control): Promise<number> {
    const { chosen, targets, weights } = learnt(b);
    if (chosen.length === 0) return 0;
    const { model } = this.source;
    const batch = batchOf(b);
    const pass = (module: string): Pass => seededPass(this.#rng, `${label} ${module}`);
    const states = [tf.tidy(() => model.embed(this.input, b.inputs, batch))];
    try {
      for (const i of model.blocks.keys()) {
        const next = await this.#through(i, states.at(-1)!, batch, pass, control, true);
        states.push(next);
      }
      const { dy: last, loss } = await this.#head(states.pop()!, chosen, targets, weights, total);
      let dy = last;
      for (let i = model.blocks.length - 1; i >= 0; i--) {
        control.checkpointCancel();
        dy = await this.#back(i, states.pop()!, dy, batch, pass);
      }
      dy.dispose();
      return loss;
    } finally {
      for (const s of states) s.dispose();
      batch.dispose();
    }
  }

  async #through(i: number, x: tf.Tensor2D, batch: Batch, pass: (module: string) => Pass, control: Control, keep = false): Promise<tf.Tensor2D> {
    control.checkpointCancel();
    const y = tf.tidy(() => this.source.model.block(i, this.scope(i, this.#lend(i), pass), x, batch));
    if (!keep) x.dispose();
    return y;
  }

  /** Tensors of the adapters of a block, to be used inside a tidy. */
  #lend(i: number): Map<string, ParamTree> {
    const all = new Map<string, ParamTree>();
    for (const { module } of this.source.model.blocks[i]!.linears) {
      const t = this.#byModule.get(module);
      if (t !== undefined) all.set(module, paramTensors(t));
    }
    return all;
  }

  scope(i: number, params: ReadonlyMap<string, ParamTree> = this.#lend(i), pass: (module: string) => Pass = PASS_OFF): Scope {
    return adaptedScope(this.blocks[i]!, this.source.adapter, this.#byModule, (module) => params.get(module)!, pass);
  }

  async #head(x: tf.Tensor2D, chosen: Int32Array, targets: Int32Array, weights: Float32Array, total: number): Promise<{ dy: tf.Tensor2D; loss: number }> {
    const { model, recipe } = this.source;
    const { softcap } = model.head;
    const finish = (h: tf.Tensor): tf.Tensor2D => embeddingRows(model.finish(this.output, h as tf.Tensor2D), tf.tensor1d(chosen, 'int32'));
    const shares = await this.#shares(recipe, () => headLoss(finish(x), this.head, tf.tensor1d(targets, 'int32'), { softcap, train: false }), weights, total);
    const [losses, dx] = tf.tidy(() => {
      const g = headGradient(finish(x), this.head, tf.tensor1d(targets, 'int32'), tf.tensor1d(shares), softcap);
      return [g.losses, g.dx] as [tf.Tensor1D, tf.Tensor2D];
    });
    const values = await take(losses);
    const dy = tf.tidy(() => tf.grad(finish)(x, dx) as tf.Tensor2D);
    x.dispose();
    dx.dispose();
    return { dy, loss: values.reduce((sum, v, i) => sum + v * shares[i]!, 0) };
  }

  /** Weight of every learnt token in the loss: what the data and the recipe say, over all tokens of the step. */
  async #shares(recipe: Recipe, losses: () => tf.Tensor1D, weights: Float32Array, total: number): Promise<Float32Array> {
    const own = recipe.tokenWeights?.({ losses: await take(tf.tidy(losses)), samples: new Int32Array(weights.length) });
    return weights.map((w, i) => (w * (own?.[i] ?? 1)) / total);
  }

  /** Gradients of the block's adapters are added up; gives the gradient to its input. */
  async #back(i: number, x: tf.Tensor2D, dy: tf.Tensor2D, batch: Batch, pass: (module: string) => Pass): Promise<tf.Tensor2D> {
    const { model } = this.source;
    const modules = model.blocks[i]!.linears.flatMap(({ module }) => this.#byModule.get(module) ?? []);
    const names = modules.flatMap((t) => Object.keys(t.plan.trainable).map((param) => ({ t, param })));
    const grads = tf.tidy(() => {
      const lent = this.#lend(i);
      const inputs = names.map(({ t, param }) => lent.get(t.layer.module)![param]!);
      const f = (...given: tf.Tensor[]): tf.Tensor => {
        // inside the tape tensors are others
        const trees = new Map([...lent].map(([module, tree]) => [module, { ...tree }]));
        names.forEach(({ t, param }, k) => (trees.get(t.layer.module)![param] = given[k + 1]!));
        return model.block(i, this.scope(i, trees, pass), given[0] as tf.Tensor2D, batch);
      };
      return tf.grads(f)([x, ...inputs], dy);
    });
    x.dispose();
    dy.dispose();
    const [dx, ...own] = grads;
    for (const [k, g] of own.entries()) {
      const { t, param } = names[k]!;
      add(t.grads[param]!, await take(g));
    }
    return dx as tf.Tensor2D;
  }

  async #extraLoss(): Promise<number> {
    const { adapter } = this.source;
    let sum = 0;
    for (const t of adapter.extraLoss === undefined ? [] : this.trainables.layers) {
      const names = Object.keys(t.plan.trainable);
      const { value, grads } = tf.tidy(() => {
        const tree = paramTensors(t);
        const f = (...given: tf.Tensor[]): tf.Scalar => adapter.extraLoss!({ ...tree, ...Object.fromEntries(names.map((n, k) => [n, given[k]!])) }, t.layer);
        return tf.valueAndGrads(f)(names.map((n) => tree[n]!));
      });
      for (const [k, g] of grads.entries()) add(t.grads[names[k]!]!, await take(g));
      sum += (await take(value))[0]!;
    }
    return sum;
  }

  /** Logits need the last token only: hidden state of it, (1, hidden). `memory` keeps the keys and values of earlier tokens. */
  async last(ids: Int32Array, memory: KeyMemory): Promise<Float32Array> {
    const { model } = this.source;
    const before = memory.length(0);
    const batch = new Batch({ batch: 1, length: ids.length, positions: ids.map((_, i) => before + i), memory });
    try {
      let x = tf.tidy(() => model.embed(this.input, ids, batch));
      for (const i of model.blocks.keys()) x = await this.#through(i, x, batch, PASS_OFF, { checkpointCancel: () => undefined });
      const { headLogits } = await import('../../kernels/nn/head-loss.js');
      const z = tf.tidy(() => headLogits(model.finish(this.output, tf.slice(x, [ids.length - 1, 0], [1, x.shape[1]])), this.head, model.head.softcap));
      x.dispose();
      return await take(z);
    } finally {
      batch.dispose();
    }
  }

  /** W' (out, in) and b' of a layer, f32. */
  async merged(module: string): Promise<{ weight: Float32Array; bias: Float32Array | undefined }> {
    const t = this.#byModule.get(module);
    if (t === undefined) throw new PithError('INTERNAL', { message: `layer "${module}" is not trained` });
    const { matrix, bias } = this.blocks.find((b) => b.has(module))!.layer(module);
    const { adapter } = this.source;
    const { denseWeight } = await import('../../methods/adapter-forward.js');
    const [w, b] = tf.tidy(() => {
      const p = paramTensors(t);
      const merged = adapter.weight(denseWeight({ matrix, transposed: t.transposed }), p, t.layer);
      const changed = bias === undefined ? undefined : adapter.bias === undefined ? tf.clone(bias) : adapter.bias(bias, p, t.layer);
      return [t.transposed ? tf.transpose(merged) : merged, changed];
    });
    return { weight: await take(w), bias: b === undefined ? undefined : await take(b) };
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.input.dispose();
    for (const p of [...this.blocks, this.output]) p[Symbol.dispose]();
  }
}

const PASS_OFF = (): Pass => PLAIN_PASS;

function batchOf({ rows, columns, positions, segments }: TrainBatch): Batch {
  return new Batch({ batch: rows, length: columns, positions, texts: segments });
}

/** Places of a batch that have a target with a weight. */
function learnt({ targets, weights }: TrainBatch): { chosen: Int32Array; targets: Int32Array; weights: Float32Array } {
  const chosen = Int32Array.from([...targets.keys()].filter((i) => targets[i]! >= 0 && weights[i] !== 0));
  return { chosen, targets: chosen.map((i) => targets[i]!), weights: Float32Array.from(chosen, (i) => weights[i]!) };
}

function paramTensors({ plan, values, frozen }: TrainedLayer): ParamTree {
  const specs = Object.entries({ ...plan.frozen, ...plan.trainable });
  return Object.fromEntries(specs.map(([name, { shape }]) => [name, tf.tensor(values[name] ?? frozen[name]!, [...shape])]));
}

function add(to: Float32Array, more: Float32Array): void {
  for (let i = 0; i < to.length; i++) to[i] = to[i]! + more[i]!;
}

async function take(t: tf.Tensor): Promise<Float32Array> {
  const values = (await t.data()) as Float32Array;
  t.dispose();
  return values;
}

async function initLayers({ model, adapter }: Source, blocks: readonly PartWeights[], { targets, settings }: TrainOpenTask): Promise<TrainedLayer[]> {
  const wanted = new Set(targets);
  const layers: TrainedLayer[] = [];
  for (const [i, part] of model.blocks.entries()) {
    for (const spec of part.linears.filter((l) => wanted.has(l.module))) {
      const { module, out, in: inner, bias } = spec;
      const layer = { module, out, in: inner, bias };
      const plan = adapter.plan(layer);
      if (typeof plan === 'string') continue;
      const { matrix, bias: b } = blocks[i]!.layer(module);
      const transposed = spec.transposed === true;
      const { trainable, frozen } = await adapter.init(contextOf(settings, module), layer, { matrix, bias: b, transposed });
      const grads = Object.fromEntries(Object.entries(trainable).map(([name, v]) => [name, new Float32Array(v.length)]));
      layers.push({ layer, plan, transposed, values: trainable, grads, frozen });
    }
  }
  return layers;
}

function contextOf(settings: RunSettings, module: string) {
  const { device, seed, blasThreads, memoryBytes } = settings;
  return { device, rng: new Rng(seed).fork(module), blasThreads, memoryBytes, report: () => undefined, checkpointCancel: () => undefined };
}
