/** The tasks of a forward pass block by block: what the blocks are, embeddings, one block with statistics of its layers' inputs. */
import { statName, type InputStatistic } from '../../formats/stats/schema.js';
import type { InputSums } from '../../kernels/nn/input-sums.js';
import type { CausalModel } from '../../models/causal.js';
import { activationBytes } from '../../models/memory.js';
import type { BlockResult, BlockTask, EmbedResult, EmbedTask, ModelShapeResult, ModelShapeTask } from '../messages/passes.js';
import type { FilePlace, Written } from '../messages/refs.js';
import { embedAll, runBlock, runTapped } from '../model/forward.js';
import { InputTap } from '../model/input-tap.js';
import { openModel } from '../model/open-model.js';
import { partBytes } from '../model/plan.js';
import { inputGroups } from '../model/probe.js';
import { openPass } from '../model/spooled-pass.js';
import type { TaskControl, WorkerState } from '../state.js';
import { PlaceWriter, writtenFile } from '../written.js';

export async function modelShape(state: WorkerState, task: ModelShapeTask): Promise<ModelShapeResult> {
  const { setupBackend } = await import('../../kernels/backend/setup.js');
  const backend = await setupBackend(task.settings.device, { blasThreads: task.settings.blasThreads });
  const { model, reader } = await openModel(state, task.model);
  const groups = inputGroups(model);
  const { vocabulary, columns, weight } = model.head;
  return {
    width: model.config.hiddenSize,
    maxPositions: model.config.maxPositions,
    head: { vocabulary, columns, bytes: partBytes({ linears: [], tables: [], vectors: [{ name: weight, length: columns }] }, reader) },
    blocks: model.blocks.map((part, i) => ({
      linears: part.linears.map((l) => ({ module: l.module, in: l.in, out: l.out, transposed: l.transposed === true })),
      groups: groups[i]!,
      weightBytes: partBytes(part, reader),
    })),
    tokenBytes: tokenBytes(model, backend.blas === undefined),
  };
}

function tokenBytes({ config, blocks }: CausalModel, wholeScores: boolean): ModelShapeResult['tokenBytes'] {
  const outputs = Math.max(0, ...blocks.map((b) => b.linears.reduce((sum, l) => sum + l.out, 0)));
  const fixed = activationBytes({ hiddenSize: config.hiddenSize, outputs, scores: 0 });
  // scores, what is added to them, their softmax and its input
  return { fixed, perToken: wholeScores ? activationBytes({ hiddenSize: config.hiddenSize, outputs, scores: 4 * config.numHeads }) - fixed : 0 };
}

export async function embed(state: WorkerState, task: EmbedTask, control: TaskControl): Promise<EmbedResult> {
  await using pass = await openPass(state, task, { output: task.output }, control, 0);
  await embedAll(pass.run, pass.batches);
  return { output: writtenFile(task.output) };
}

/** INPUT_NOT_FINITE (65) names module and sequence. */
export async function block(state: WorkerState, task: BlockTask, control: TaskControl): Promise<BlockResult> {
  const { output, groups } = task;
  await using pass = await openPass(state, task, task, control);
  const { run, batches } = pass;
  const written: Record<string, Written> = {};
  if (groups.length === 0) await runBlock(run, task.block, batches);
  else {
    const gram = task.statistics.includes('inputGram');
    const tap = new InputTap({ source: run.reader.source, sequences: run.sequences, groups, gram, stop: output === undefined });
    await runTapped(run, task.block, batches, tap);
    for (const [module, sums] of tap.sums) {
      for (const statistic of task.statistics) {
        const name = statName(module, statistic);
        written[name] = write(task.places[name]!, statistic, sums, tap.tokens);
      }
    }
  }
  return { statistics: written, ...(output === undefined ? {} : { output: writtenFile(output) }) };
}

/** Values of a strip of a Gram matrix. */
const STRIP_VALUES = 1 << 20;

function write(place: FilePlace, statistic: InputStatistic, sums: InputSums, tokens: number): Written {
  using out = new PlaceWriter(place);
  switch (statistic) {
    case 'tokens':
      out.write(BigInt64Array.of(BigInt(tokens)));
      break;
    case 'inputSqNorm':
      out.write(new Float32Array(sums.squares));
      break;
    case 'inputAbsMean':
      out.write(Float32Array.from(sums.absolutes, (v) => v / tokens));
      break;
    case 'inputGram': {
      const { n } = sums;
      const step = Math.max(1, Math.floor(STRIP_VALUES / n));
      const strip = new Float32Array(Math.min(n, step) * n);
      for (let start = 0; start < n; start += step) {
        const end = Math.min(n, start + step);
        sums.gram!.rows(start, end, strip);
        out.write(strip.subarray(0, (end - start) * n));
      }
    }
  }
  return out.written;
}
