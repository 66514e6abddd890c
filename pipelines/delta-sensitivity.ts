/**
 * What a squared error in each tensor does to the model's predictions, measured: one probe a group of tensors, in which they alone
 * are what the lossy delta restores and all others are the fine-tune's. The weight of a group is its KL divergence from the
 * fine-tune per squared error, so that a budget spends its bytes where they are felt.
 */
import type { ProgressEvent } from '../core/events.js';
import { placeOf } from '../models/place.js';
import type { ScoreTask } from '../workers/messages/model.js';
import type { CheckpointRef, ModelRef, RunSettings } from '../workers/messages/refs.js';
import { runJobs, type Job, type ScheduleOptions } from './schedule.js';

export interface Probes {
  /** The fine-tune. */
  readonly tuned: ModelRef;
  /** Base and lossy delta as they stand now. */
  readonly lossy: CheckpointRef;
  /** Tensors that share the budget. */
  readonly tensors: readonly string[];
  /** Blocks of the model. */
  readonly layers: number;
  /** ||What - W1||_F^2 */
  readonly errorSq: (tensor: string) => number;
  readonly sequences: readonly Int32Array[];
  readonly settings: RunSettings;
  readonly spool: (name: string) => string;
}

/** Weights beyond this share of the largest say more about noise than about the group. */
const LEAST_WEIGHT = 1e-3;
/** A layer is a part of its own in a model of few; deep models are looked at in parts, as every probe is a pass through the model. */
const FEW_LAYERS = 8;
const PARTS_OF_DEPTH = 4;

/** Same module in one part of the depth; a tensor outside of the blocks is a group of its own. */
export function groupsOf(tensors: readonly string[], layers: number): ReadonlyMap<string, readonly string[]> {
  const groups = new Map<string, string[]>();
  const parts = layers <= FEW_LAYERS ? layers : PARTS_OF_DEPTH;
  for (const name of tensors) {
    const { layer, module } = placeOf(name);
    const key = layer === undefined ? module : `${Math.min(parts - 1, Math.floor((layer * parts) / Math.max(1, layers)))}:${module}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [name]);
    else group.push(name);
  }
  return groups;
}

export interface GroupSensitivity {
  readonly group: string;
  readonly tensors: number;
  /** Mean KL divergence from the fine-tune with this group alone lossy, nats a token. */
  readonly kld: number;
  /** What a squared error in it counts for; the mean over all errors is 1. */
  readonly weight: number;
}

export interface Sensitivity {
  readonly weights: ReadonlyMap<string, number>;
  readonly groups: readonly GroupSensitivity[];
}

interface Measured {
  readonly group: string;
  readonly names: readonly string[];
  readonly kld: number;
  readonly error: number;
}

/** Mean KL divergence of the whole lossy model from the fine-tune, nats a token. */
export async function* divergence(p: Probes, schedule: ScheduleOptions): AsyncGenerator<ProgressEvent, number, void> {
  let kld = 0;
  yield* runJobs([probeOf(p, 'whole', p.tensors)], schedule, (_, result) => {
    kld = mean(result.kld!);
    return undefined;
  });
  return kld;
}

function probeOf({ tuned: reference, lossy: by, sequences, settings, spool }: Probes, label: string, names: readonly string[]): Job<ScoreTask> {
  const checkpoint = { ...reference.checkpoint, replaced: { by, names } };
  const task: ScoreTask = { type: 'score', settings, model: { ...reference, checkpoint }, reference, sequences, spool: spool('probe') };
  return { label, bytes: 1, memoryBytes: settings.memoryBytes, task };
}

/** One probe a group that has errors. */
export async function* sensitivities(p: Probes, schedule: ScheduleOptions): AsyncGenerator<ProgressEvent, Sensitivity, void> {
  const groups = [...groupsOf(p.tensors, p.layers)]
    .map(([group, names]) => ({ group, names, error: names.reduce((sum, name) => sum + p.errorSq(name), 0) }))
    .filter(({ error }) => error > 0);
  const measured: Measured[] = [];
  const jobs = groups.map(({ group, names }, i) => probeOf({ ...p, spool: (name) => p.spool(`${name}-${i}`) }, group, names));
  yield* runJobs(jobs, schedule, (job, result) => {
    measured.push({ ...groups.find(({ group }) => group === job.label)!, kld: Math.max(0, mean(result.kld!)) });
    return undefined;
  });
  return weigh(measured);
}

/** KLD per squared error, bounded, scaled so that the whole error counts as much as before. */
export function weigh(measured: readonly Measured[]): Sensitivity {
  const most = Math.max(0, ...measured.map((g) => g.kld / g.error));
  if (most === 0) return { weights: new Map(), groups: [] };
  const raw = measured.map((g) => ({ ...g, weight: Math.max(g.kld / g.error, LEAST_WEIGHT * most) }));
  const total = (of: (g: (typeof raw)[number]) => number): number => raw.reduce((sum, g) => sum + of(g), 0);
  const scale = total((g) => g.error) / total((g) => g.weight * g.error);
  const groups = raw.map((g) => ({ ...g, weight: g.weight * scale })).sort((a, b) => b.kld - a.kld || (a.group < b.group ? -1 : 1));
  return {
    weights: new Map(groups.flatMap((g) => g.names.map((name) => [name, g.weight] as const))),
    groups: groups.map(({ group, names, kld, weight }) => ({ group, tensors: names.length, kld, weight })),
  };
}

const mean = (values: Float32Array): number => values.reduce((total, v) => total + v, 0) / Math.max(1, values.length);
