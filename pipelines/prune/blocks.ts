/** Block by block: a block's statistics are taken on what the pruned blocks before it give, then its layers are pruned. */
import type { ProgressEvent } from '../../core/events.js';
import { byteLength, totalByteLength } from '../../core/shape.js';
import { prepareFiles } from '../../formats/safetensors/prepared.js';
import { INPUT_STATISTICS, statInfo } from '../../formats/stats/schema.js';
import type { PruneResult, PruneTask } from '../../workers/messages/layers.js';
import type { LinearShape, ModelShapeResult } from '../../workers/messages/passes.js';
import type { ModelRef, RunSettings } from '../../workers/messages/refs.js';
import { hiddenBytes, passBytes, passContext, runPass, shareMemory, type MemoryRequest, type PassMemory } from '../block-pass.js';
import { manifestOf } from '../calibrate.js';
import type { CalibrationData } from '../calibration-data.js';
import type { LinearLayer } from '../linear-layers.js';
import { sequentialSteps, type SequentialOptions } from '../sequential.js';
import type { PruneOptions, Pruners } from './plan.js';
import { JOB, layerJob, outputNames, partsOf, type Output, type Run } from './run.js';

/** The model, the text and how memory is shared, before any data is passed through. */
export interface BlockPlan {
  readonly model: ModelRef;
  readonly shape: ModelShapeResult;
  readonly data: CalibrationData;
  readonly longest: number;
  /** Layers that are pruned, by block. */
  readonly modules: readonly (readonly LinearShape[])[];
  readonly memory: PassMemory;
  readonly settings: RunSettings;
  readonly peakBytes: number;
  /** Disk that hidden states, one block's statistics and its pruned layers take. */
  readonly spoolBytes: number;
}

export function planBlocks(
  o: PruneOptions,
  { needs }: Pruners,
  layers: readonly LinearLayer[],
  from: Pick<BlockPlan, 'model' | 'shape' | 'data' | 'longest' | 'settings'>,
): BlockPlan {
  const { shape, data, longest } = from;
  const own = new Map(layers.map((l) => [l.module, l]));
  const modules = shape.blocks.map((b) => b.linears.filter((l) => own.has(l.module)));
  const groups = shape.blocks.map((b) => b.groups.map((g) => ({ ...g, modules: g.modules.filter((m) => own.has(m)) })).filter((g) => g.modules.length > 0));
  const request: Omit<MemoryRequest, 'maxMemoryBytes' | 'groups' | 'source'> = { longest, gram: needs.includes('inputGram'), backward: false };
  const memory = shareMemory(shape, { ...request, maxMemoryBytes: o.maxMemoryBytes, groups, source: o.checkpoint });
  const statistics = groups.map((b) => totalByteLength(b.flatMap((g) => needs.map((s) => statInfo(g.modules[0]!, s, { in: g.in, out: 0 })))));
  const overlays = modules.map((b) => totalByteLength(b.map((m) => own.get(m.module)!.weight)));
  const states = hiddenBytes({ shape, tokens: { file: '', lengths: data.sequences.map((s) => s.length) } });
  const spoolBytes = 2 * states + Math.max(0, ...statistics) + Math.max(0, ...overlays);
  return { ...from, modules, memory, peakBytes: passBytes(shape, memory, request), spoolBytes };
}

export async function* pruneBlocks(r: Run, out: Output, plan: BlockPlan, source: string): AsyncGenerator<ProgressEvent, Map<string, PruneResult>, void> {
  const { o, pool, journal } = r;
  const { model, shape, memory, settings, data } = plan;
  const results = new Map<string, PruneResult>();
  const c = passContext({ job: JOB, pool, journal, signal: o.signal, settings, model, shape, memory }, data.sequences);
  const steps = sequentialSteps<PruneTask>(
    c,
    sequentialOptions(r, out, plan, source, (done) => done.forEach(([m, p]) => results.set(m, p))),
  );
  yield* runPass(c, steps, outputNames(r, out));
  return results;
}

type Done = readonly (readonly [module: string, result: PruneResult])[];

function sequentialOptions(r: Run, out: Output, plan: BlockPlan, source: string, finished: (done: Done) => void): SequentialOptions<PruneTask> {
  const { o, layers, pruners } = r;
  const { data, longest } = plan;
  const own = new Map(layers.map((l) => [l.module, l]));
  return {
    modules: plan.modules,
    statistics: INPUT_STATISTICS.filter((s) => s === 'tokens' || pruners.needs.includes(s)),
    trueSequential: o.trueSequential,
    manifest: () => manifestOf(o, { data, longest, alias: {} }, source),
    compress: (step) =>
      step.modules.map(({ module }) => {
        const l = own.get(module)!;
        const overlay = prepareFiles(step.overlayOf(module), [l.weight], { single: true, resume: true });
        return layerJob(r, out, l, { stats: step.stats, beside: overlay.places.get(l.weight.name)! });
      }),
    compressed: (step, all) => ({
      parts: step.modules.flatMap(({ module }) => partsOf(r, out, own.get(module)!, all.get(module)!)),
      result: step.modules.map(({ module }) => [module, all.get(module)!] as const),
    }),
    finished: (result) => finished(result as Done),
    bytes: (modules) => modules.reduce((sum, { module }) => sum + byteLength(own.get(module)!.weight.dtype, own.get(module)!.weight.shape), 0),
  };
}
