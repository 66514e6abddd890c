/** Continues a sequence: keys and values of its tokens are kept, and the weights too where memory has room for them. */
import * as tf from '#tf';
import { Rng } from '../../core/rng.js';
import { elementCount } from '../../core/shape.js';
import { PithError } from '../../core/errors.js';
import type { CheckpointReader } from '../../formats/checkpoint.js';
import type { FrozenMatrix } from '../../kernels/nn/frozen-matrix.js';
import { headLogits } from '../../kernels/nn/head-loss.js';
import { Batch, KeyMemory } from '../../models/batch.js';
import type { CausalModel } from '../../models/causal.js';
import { tensorsOf } from '../../models/tensors.js';
import type { Part } from '../../models/graph.js';
import type { GenerateResult, GenerateTask } from '../messages/model.js';
import { openModel } from '../model/open-model.js';
import { partBytes } from '../model/plan.js';
import { PartWeights, readDecoded, readMatrix, upTo } from '../model/weights.js';
import type { TaskControl, WorkerState } from '../state.js';

type Kept = GenerateResult['kept'];

export async function generate(state: WorkerState, task: GenerateTask, control: TaskControl): Promise<GenerateResult> {
  const { setupBackend } = await import('../../kernels/backend/setup.js');
  await setupBackend(task.settings.device, { blasThreads: task.settings.blasThreads });
  const { model, reader } = await openModel(state, task.model);
  using weights = new Weights(model, reader, task.settings.memoryBytes);
  const memory = new KeyMemory(task.ids.length + task.tokens);
  const rng = new Rng(task.settings.seed).fork('generate');
  const added: number[] = [];
  try {
    for (let ids = task.ids; added.length < task.tokens;) {
      const logits = await next(model, weights, memory, ids, control);
      const token = task.temperature === 0 ? likeliest(logits, reader.source) : drawn(logits, task.temperature, rng, reader.source);
      control.report(1);
      if (task.stop.includes(token)) break;
      added.push(token);
      ids = Int32Array.of(token);
    }
  } finally {
    memory.dispose();
  }
  return { ids: Int32Array.from(added), kept: weights.kept };
}

/** Logits of what follows `ids`, which follow what is in `memory`. */
async function next(model: CausalModel, weights: Weights, memory: KeyMemory, ids: Int32Array, control: TaskControl): Promise<Float32Array> {
  const before = memory.length(0);
  const positions = ids.map((_, i) => before + i);
  const batch = new Batch({ batch: 1, length: ids.length, positions, memory });
  try {
    using input = await weights.input(ids, positions);
    let x = tf.tidy(() => model.embed(input, ids, batch));
    for (const i of model.blocks.keys()) {
      control.checkpointCancel();
      const y = await weights.with(model.blocks[i]!, (scope) => tf.tidy(() => model.block(i, scope, x, batch)));
      x.dispose();
      x = y;
    }
    const last = await weights.with(model.output, (scope) => tf.tidy(() => model.finish(scope, tf.slice(x, [ids.length - 1, 0], [1, x.shape[1]]))));
    x.dispose();
    const logits = await weights.logits(last);
    last.dispose();
    return logits;
  } finally {
    batch.dispose();
  }
}

/** The weights of a model between tokens: decoded, as they are stored, or read again for each. */
class Weights implements Disposable {
  readonly kept: Kept;
  readonly #parts = new Map<Part, PartWeights>();
  #head: FrozenMatrix | undefined;

  constructor(
    private readonly model: CausalModel,
    private readonly reader: CheckpointReader,
    private readonly memoryBytes: number,
  ) {
    const { blocks, head } = model;
    const values = head.vocabulary * head.columns + blocks.flatMap(tensorsOf).reduce((sum, { shape }) => sum + elementCount(shape), 0);
    const stored = [{ linears: [], vectors: [{ name: head.weight, length: 0 }], tables: [] }, ...blocks].reduce((sum, p) => sum + partBytes(p, reader), 0);
    // the rest is for activations and what is read
    this.kept = 4 * values <= 0.7 * memoryBytes ? 'decoded' : stored <= 0.8 * memoryBytes ? 'stored' : 'nothing';
  }

  get #read(): typeof readMatrix {
    return this.kept === 'decoded' ? readDecoded : readMatrix;
  }

  input(ids: Int32Array, positions: Int32Array): Promise<PartWeights> {
    const [words, ...others] = this.model.input.tables;
    const last = (positions.at(-1) ?? 0) + 1;
    const wanted = new Map([[words!.name, ids], ...others.map((t) => [t.name, upTo(Math.min(t.rows, last + POSITION_SLACK))] as const)]);
    return PartWeights.load(this.reader, this.model.input, wanted);
  }

  async with<T>(part: Part, use: (scope: PartWeights) => T): Promise<T> {
    const loaded = this.#parts.get(part) ?? (await PartWeights.load(this.reader, part, undefined, this.#read));
    if (this.kept !== 'nothing') this.#parts.set(part, loaded);
    try {
      return use(loaded);
    } finally {
      if (this.kept === 'nothing') loaded[Symbol.dispose]();
    }
  }

  /** x: (1, columns) */
  async logits(x: tf.Tensor2D): Promise<Float32Array> {
    const { weight, vocabulary, columns, softcap } = this.model.head;
    if (this.kept !== 'nothing') {
      this.#head ??= await this.#read(this.reader, weight, vocabulary, columns);
      return valuesOf(tf.tidy(() => headLogits(x, this.#head!, softcap)));
    }
    const out = new Float32Array(vocabulary);
    const step = Math.max(1, Math.floor(this.memoryBytes / 4 / (4 * columns)));
    for (let start = 0; start < vocabulary; start += step) {
      const rows = Math.min(step, vocabulary - start);
      const panel = await readMatrix(this.reader, weight, rows, columns, [start, start + rows]);
      out.set(await valuesOf(tf.tidy(() => headLogits(x, panel, softcap))), start);
    }
    return out;
  }

  [Symbol.dispose](): void {
    for (const p of this.#parts.values()) p[Symbol.dispose]();
  }
}

/** Rows before the first position: OPT has two. */
const POSITION_SLACK = 2;

async function valuesOf(t: tf.Tensor): Promise<Float32Array> {
  const values = (await t.data()) as Float32Array;
  t.dispose();
  return values;
}

function likeliest(logits: Float32Array, file: string): number {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const token = logits.indexOf(most);
  if (token < 0) throw new PithError('LOGITS_NOT_FINITE', { file, message: 'for the next token of a text' });
  return token;
}

/** From p_i = e^(z_i / T) / sum. */
function drawn(logits: Float32Array, temperature: number, rng: Rng, file: string): number {
  const most = logits[likeliest(logits, file)]!;
  const weights = Float64Array.from(logits, (z) => Math.exp((z - most) / temperature));
  let left = rng.uniform() * weights.reduce((a, b) => a + b, 0);
  const token = weights.findIndex((w) => (left -= w) < 0);
  return token < 0 ? weights.length - 1 : token;
}
