/** What `pith calibrate` will do, from headers and the text alone: which layers, which statistics, how much memory, disk and time. */
import { createHash } from 'node:crypto';
import { PithError } from '../core/errors.js';
import { totalByteLength } from '../core/shape.js';
import type { TensorInfo } from '../core/tensor.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { INPUT_STATISTICS, statInfo, type FisherStatistic, type InputStatistic } from '../formats/stats/schema.js';
import { pairBytes } from '../kernels/linalg/kronecker-pair.js';
import type { InputGroup, LinearShape, ModelShapeResult } from '../workers/messages/passes.js';
import type { ModelRef, RunSettings } from '../workers/messages/refs.js';
import { GRADIENT_SHARE, hiddenBytes, pairOperations, passBytes, tokenCount, type MemoryRequest, type PassMemory } from './block-pass.js';
import type { CalibrationData } from './calibration-data.js';
import type { RunOptions } from './run-options.js';

export interface CalibrateOptions extends RunOptions {
  readonly checkpoint: string;
  readonly out: string;
  /** The sequences, once the checkpoint is open and its number of positions known. */
  readonly data: (reader: CheckpointReader, positions: number) => Promise<CalibrationData>;
  readonly statistics: readonly Exclude<InputStatistic, 'tokens'>[];
  readonly fisher: readonly FisherStatistic[];
  /** By the name of a weight. */
  readonly selects: (weight: string) => boolean;
  readonly force: boolean;
  readonly dryRun: boolean;
  readonly resume: boolean;
}

/** What is known before any data is passed through the model. */
export interface CalibratePlan {
  readonly model: ModelRef;
  readonly shape: ModelShapeResult;
  readonly data: CalibrationData;
  readonly longest: number;
  /** By block. */
  readonly groups: readonly (readonly InputGroup[])[];
  readonly modules: readonly (readonly LinearShape[])[];
  readonly statistics: readonly InputStatistic[];
  readonly alias: Readonly<Record<string, string>>;
  readonly tensors: readonly TensorInfo[];
}

/** What the pass needs of memory. */
export function memoryNeeds(o: CalibrateOptions, { longest, modules }: CalibratePlan): Omit<MemoryRequest, 'maxMemoryBytes' | 'groups' | 'source'> {
  const pairs = wantsPairs(o) ? modules.flat().map((l) => pairBytes(l.out, l.in)) : [];
  return { longest, gram: o.statistics.includes('inputGram'), backward: o.fisher.length > 0, pairBytes: Math.max(0, ...pairs) };
}

const wantsPairs = (o: CalibrateOptions): boolean => o.fisher.some((s) => s !== 'fisherRow');

/** DATASET_EMPTY (66); SEQLEN (64) for sequences that the model has no positions for; USAGE when nothing is selected. */
export function planCalibration(o: CalibrateOptions, model: ModelRef, shape: ModelShapeResult, data: CalibrationData): CalibratePlan {
  const longest = data.sequences.reduce((most, s) => Math.max(most, s.length), 0);
  if (longest === 0) throw new PithError('DATASET_EMPTY', { file: data.name, message: 'it gives no tokens' });
  if (longest > shape.maxPositions) throw new PithError('SEQLEN', { file: o.checkpoint, expected: shape.maxPositions, got: longest });
  const selected = (module: string): boolean => o.selects(`${module}.weight`);
  const modules = shape.blocks.map((b) => b.linears.filter((l) => selected(l.module)));
  if (modules.every((m) => m.length === 0)) {
    throw new PithError('USAGE', {
      message: `${o.checkpoint}: no linear layer of its blocks is selected; the names are as "${shape.blocks[0]?.linears[0]?.module ?? ''}.weight"`,
    });
  }
  const own = shape.blocks.map((b) => b.groups.map((g) => ({ ...g, modules: g.modules.filter(selected) })).filter((g) => g.modules.length > 0));
  const groups = o.statistics.length === 0 ? own.map(() => []) : own;
  const statistics = INPUT_STATISTICS.filter((s) => s === 'tokens' || o.statistics.includes(s));
  const alias = Object.fromEntries(groups.flat().flatMap(({ modules: [first, ...rest] }) => rest.map((m) => [m, first!])));
  const inputs = groups.flat().flatMap((g) => statistics.map((s) => statInfo(g.modules[0]!, s, { in: g.in, out: 0 })));
  const gradients = modules.flat().flatMap((m) => o.fisher.map((s) => statInfo(m.module, s, m)));
  return { model, shape, data, longest, groups, modules, statistics, alias, tensors: [...inputs, ...gradients] };
}

/** SHA-256 of the ids: int32, little-endian, one sequence after the other. */
export function hashTokens(sequences: readonly Int32Array[]): string {
  const hash = createHash('sha256');
  for (const s of sequences) hash.update(new Uint8Array(s.buffer, s.byteOffset, s.byteLength));
  return hash.digest('hex');
}

/** Measured on two cores (docs/calibrate.md). */
const TYPICAL = { flopsPerThreadMs: 25e6, mainBytes: 90 << 20, workerBytes: 150 << 20, startMs: 1500 };

/** Of a run: bytes written, disk and memory beside them, time. */
export interface CalibratePrediction {
  readonly bytes: number;
  readonly spoolBytes: number;
  readonly peakBytes: number;
  readonly ms: number;
}

export function predict(o: CalibrateOptions, plan: CalibratePlan, memory: PassMemory, settings: RunSettings): CalibratePrediction {
  const { shape, data } = plan;
  const lengths = data.sequences.map((s) => s.length);
  const tokens = tokenCount({ file: '', lengths });
  const [gram, backward] = [o.statistics.includes('inputGram'), o.fisher.length > 0];
  const states = hiddenBytes({ shape, tokens: { file: '', lengths } });
  const values = (linears: readonly LinearShape[]): number => linears.reduce((sum, l) => sum + l.in * l.out, 0);
  const forward = shape.blocks.reduce((sum, b, i) => sum + 2 * values(b.linears) * Math.max(1, memory.passes[i]!.length), 0);
  const grams = gram ? plan.groups.flat().reduce((sum, g) => sum + g.in ** 2, 0) : 0;
  const gradients = backward ? GRADIENT_SHARE * forward + 6 * shape.head.vocabulary * shape.head.columns : 0;
  const pairs = wantsPairs(o);
  const sweeps = pairs ? plan.modules.flat().reduce((sum, m) => sum + pairOperations(m, lengths.length), 0) : 0;
  const flops = tokens * (forward + grams + gradients) + sweeps;
  const largest = Math.max(0, ...plan.modules.map((m) => (pairs ? 4 * lengths.length * values(m) : 0)));
  return {
    bytes: totalByteLength(plan.tensors),
    spoolBytes: states * (backward ? shape.blocks.length + 3 : 2) + largest,
    peakBytes: TYPICAL.mainBytes + TYPICAL.workerBytes + passBytes(shape, memory, memoryNeeds(o, plan)),
    ms: Math.round(TYPICAL.startMs + flops / (TYPICAL.flopsPerThreadMs * settings.blasThreads)),
  };
}
