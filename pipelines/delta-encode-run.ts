/** What the steps of one encode share: options, report, state, and who codes which tensor. */
import { createHash } from 'node:crypto';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { checkpointStamp } from '../formats/stamp.js';
import type { EncodeResult, EncodeTask, HashResult, HashTask, RatesResult, RatesTask } from '../workers/messages/delta.js';
import type { CheckpointRef, LayerStatsRef, RunSettings } from '../workers/messages/refs.js';
import { resolveCheckpoint } from '../workers/open.js';
import type { WorkerPool } from '../workers/pool.js';
import type { Allocator } from './delta-budget.js';
import type { Choice } from './delta-budget.js';
import type { MethodOptions } from './delta-methods.js';
import type { CalibrationData } from './calibration-data.js';
import type { Weighed } from './delta-weigh.js';
import type { DoneRemainder } from './delta-remainders.js';
import type { DeltaPlan, PlannedTensor } from './delta-plan.js';
import type { Journal } from './journal.js';
import type { RunOptions } from './run-options.js';

export interface EncodeOptions extends RunOptions, MethodOptions {
  /** undefined: no base, every tensor is compressed alone. */
  readonly base: string | undefined;
  readonly tuned: string;
  readonly out: string;
  /** What the file calls the tuned checkpoint, where its path does not say. */
  readonly title?: string;
  /** The exact remainder behind the lossy layer. A target counts the lossy layer alone, the file as it is without the exact one. */
  readonly progressive?: boolean;
  /** Statistics of the base's or the fine-tune's layers (`pith calibrate`), for a method that uses them. */
  readonly stats?: string;
  readonly force: boolean;
  readonly dryRun: boolean;
  readonly resume: boolean;
}

export interface EncodedTensor {
  readonly name: string;
  readonly method: string;
  readonly bytes: number;
  readonly rawBytes: number;
  /** ||What - W1||_F / ||W1 - W0||_F */
  readonly error?: number;
  /** Of `bytes`, those of the exact layer. */
  readonly exactBytes?: number;
  readonly facts?: Readonly<Record<string, number | string>>;
}

export interface EncodeReport {
  readonly out: string;
  readonly bytes: number;
  readonly rawBytes: number;
  readonly ratio: number;
  /** Of a file of two layers: `lossy` is the size of the file without the exact one. */
  readonly layers?: { readonly lossy: number; readonly exact: number };
  /** Over all tensors that a lossy method coded, of what the lossy layer restores to. */
  readonly error?: number;
  readonly baseHash?: string;
  readonly tunedHash?: string;
  readonly device: string;
  readonly tensors: readonly EncodedTensor[];
  readonly sideFiles: readonly { readonly name: string; readonly coding: string }[];
  /** What was measured on the data of the encode. */
  readonly sensitivity?: Weighed;
  readonly plan?: { readonly bytes: number; readonly peakBytes: number; readonly ms: number };
}

export type Done =
  { readonly encode: EncodeResult; readonly choice?: Choice } | { readonly hash: HashResult } | { readonly rates: readonly RatesResult[] } | DoneRemainder;
export type AnyTask = EncodeTask | HashTask | RatesTask;

export const JOB = 'delta encode';
/** What a lossless delta of a short bf16 fine-tune takes and how fast it is coded, for `--dry-run` (bench/RESULTS.md). */
export const TYPICAL = {
  pairRatio: 0.08,
  aloneRatio: 0.67,
  prunedRatio: 0.36,
  lossyRatio: 0.07,
  remainderRatio: 0.08,
  bytesPerMs: 250_000,
  lossyBytesPerMs: 100_000,
  workerBytes: 90 << 20,
  mainBytes: 90 << 20,
};

/** One encode: what all its steps share. */
export interface Run {
  readonly o: EncodeOptions;
  readonly plan: DeltaPlan;
  readonly base: CheckpointReader | undefined;
  readonly tuned: CheckpointReader;
  readonly refs: { readonly tuned: CheckpointRef; readonly base?: CheckpointRef };
  readonly settings: RunSettings;
  readonly journal: Journal<Done>;
  readonly pool: WorkerPool;
  readonly done: Map<string, Done>;
  readonly allocator: Allocator;
  /** What errors are measured on. */
  readonly data: CalibrationData | undefined;
  /** By tensor. */
  readonly stats: ReadonlyMap<string, LayerStatsRef>;
  /** What was measured on the data, once it is known. */
  readonly weighed: Weighed[];
}

export function refOf(reader: CheckpointReader, path: string): CheckpointRef {
  return { path: resolveCheckpoint(path), stamp: checkpointStamp(reader) };
}

export const isLossy = (plan: DeltaPlan, t: PlannedTensor): boolean => !plan.methods[t.method]!.codec.lossless;

/** Tensors that a lossy method may code. */
export const mayNeedRemainder = (o: EncodeOptions, plan: DeltaPlan): readonly PlannedTensor[] =>
  o.progressive === true ? plan.tensors.filter((t) => isLossy(plan, t) || t.candidates !== undefined) : [];

export const memoryOf = (plan: DeltaPlan, t: PlannedTensor, stats = false): number =>
  Math.max(...candidatesOf(t).map((m) => (m === 0 ? TYPICAL.workerBytes : plan.methods[m]!.codec.memoryBytes(t, stats))));

export const candidatesOf = (t: PlannedTensor): readonly number[] => t.candidates ?? [t.method];
export const ratesLabel = (t: PlannedTensor): string => `rates:${t.name}`;

export const methodOf = (run: Run, t: PlannedTensor): number => {
  const value = run.done.get(t.name);
  return (value !== undefined && 'encode' in value ? value.choice?.method : undefined) ?? t.method;
};

export const usedMethod = (run: Run, t: PlannedTensor, r: EncodeResult): string =>
  r.info.identical ? 'identical' : run.plan.methods[r.byMethod ? methodOf(run, t) : 0]!.name;

/** Name of a tensor's spooled parts: names may hold anything, their hash may not. */
export const spoolName = (tensor: string): string => createHash('sha256').update(tensor).digest('hex').slice(0, 32);
