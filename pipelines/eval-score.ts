/** Scores of many sequences: shared out to workers, each of which runs the whole model on its part. */
import { PithError } from '../core/errors.js';
import type { ProgressEvent } from '../core/events.js';
import type { Device } from '../core/device.js';
import type { ScoreResult, ScoreTask, TokenScores } from '../workers/messages/model.js';
import type { RunSettings } from '../workers/messages/refs.js';
import type { WorkerPool } from '../workers/pool.js';
import type { ScoredSequences } from './eval-data.js';
import type { EvalModel } from './eval-models.js';
import type { RunOptions } from './run-options.js';
import { runJobs, type Job } from './schedule.js';

export interface ScorePass extends ScoredSequences {
  readonly model: EvalModel;
  readonly reference?: EvalModel;
}

export interface ScoreRun extends RunOptions {
  readonly job: string;
  readonly pool: WorkerPool;
  readonly resolved: Device;
  /** Files of hidden states begin with it. */
  readonly spool: string;
  readonly batchTokens?: number;
  /** Of all passes, and of those before this one. */
  readonly totalBytes: number;
  readonly doneBytes: number;
}

interface Shared {
  readonly model: Pick<EvalModel, 'leastBytes'>;
  readonly reference?: Pick<EvalModel, 'leastBytes'>;
  readonly sequences: readonly Int32Array[];
}

/** Workers that side by side have memory for their part; a GPU takes one. */
export function shardCount({ model, reference, sequences }: Shared, o: RunOptions, device: Device): number {
  const longest = Math.max(0, ...sequences.map((s) => s.length));
  const least = Math.max(model.leastBytes(longest), reference?.leastBytes(longest) ?? 0);
  const most = Math.min(device === 'cpu' ? o.threads : 1, sequences.length);
  return Math.max(1, Math.min(most, Math.floor(o.maxMemoryBytes / Math.max(1, least))));
}

/** What a pass counts for in the progress: every worker passes all weights. */
export function passBytes(pass: ScorePass, o: RunOptions, device: Device): number {
  return shardCount(pass, o, device) * (pass.model.bytes + (pass.reference?.bytes ?? 0));
}

/** LOGITS_NOT_FINITE (65) names the first token whose probability is no number. */
export async function* scorePass(pass: ScorePass, run: ScoreRun): AsyncGenerator<ProgressEvent, ScoreResult, void> {
  const shards = share(pass.sequences, shardCount(pass, run, run.resolved));
  const settings = shardSettings(run, shards.length);
  const jobs = shards.map((members, i): Job<ScoreTask> & { readonly members: readonly number[] } => ({
    members,
    label: `${i}`,
    bytes: pass.model.bytes,
    memoryBytes: settings.memoryBytes,
    task: {
      type: 'score',
      settings,
      model: pass.model.ref,
      ...(pass.reference === undefined ? {} : { reference: pass.reference.ref }),
      sequences: members.map((m) => pass.sequences[m]!),
      from: members.map((m) => pass.from[m]!),
      spool: `${run.spool}.${i}`,
      ...(run.batchTokens === undefined ? {} : { batchTokens: run.batchTokens }),
    },
  }));
  const out = new Gathered(pass);
  const places = new Map(jobs.map((j) => [j.label, j.members]));
  yield* runJobs<ScoreTask>(jobs, { ...run, signal: run.signal }, (job, result) => {
    out.put(places.get(job.label)!, result);
    return undefined;
  });
  out.check();
  return out.result;
}

/** Of one of so many workers: its part of the cores and of the memory. */
export function shardSettings(run: RunOptions & { readonly resolved: Device }, shards: number): RunSettings {
  return {
    seed: run.seed,
    device: run.resolved,
    blasThreads: Math.max(1, Math.floor(run.threads / shards)),
    memoryBytes: Math.floor(run.maxMemoryBytes / shards),
  };
}

/** Longest first, each to the worker with the fewest tokens: indices, in order within a worker. */
export function share(sequences: readonly Int32Array[], workers: number): number[][] {
  const shards = Array.from({ length: workers }, () => ({ members: [] as number[], tokens: 0 }));
  const order = sequences.map((_, i) => i).sort((a, b) => sequences[b]!.length - sequences[a]!.length || a - b);
  for (const i of order) {
    const least = shards.reduce((a, b) => (b.tokens < a.tokens ? b : a));
    least.members.push(i);
    least.tokens += sequences[i]!.length;
  }
  return shards.map((s) => s.members.sort((a, b) => a - b));
}

/** Results of the workers in the order of the sequences. */
class Gathered {
  readonly #starts: readonly number[];
  readonly #own: TokenScores;
  readonly #other: (TokenScores & { kld: Float32Array }) | undefined;

  constructor(private readonly pass: ScorePass) {
    let at = 0;
    this.#starts = pass.sequences.map((s, i) => (at += s.length - pass.from[i]!) - (s.length - pass.from[i]!));
    const empty = (): TokenScores => ({ nll: new Float32Array(at), top: new Int32Array(at) });
    this.#own = empty();
    this.#other = pass.reference === undefined ? undefined : { ...empty(), kld: new Float32Array(at) };
  }

  put(members: readonly number[], r: ScoreResult): void {
    let from = 0;
    for (const m of members) {
      const to = from + this.pass.sequences[m]!.length - this.pass.from[m]!;
      const start = this.#starts[m]!;
      const copy = (a: TokenScores, b: TokenScores): void => {
        a.nll.set(b.nll.subarray(from, to), start);
        a.top.set(b.top.subarray(from, to), start);
      };
      copy(this.#own, r);
      if (this.#other !== undefined) {
        copy(this.#other, r.reference!);
        this.#other.kld.set(r.kld!.subarray(from, to), start);
      }
      from = to;
    }
  }

  check(): void {
    const { model, reference } = this.pass;
    this.#finite(this.#own.nll, model);
    if (this.#other !== undefined) this.#finite(this.#other.nll, reference!);
  }

  #finite(nll: Float32Array, model: EvalModel): void {
    const bad = nll.findIndex((v) => !Number.isFinite(v));
    if (bad < 0) return;
    const sequence = this.#starts.findLastIndex((s) => s <= bad);
    const token = this.pass.from[sequence]! + bad - this.#starts[sequence]!;
    throw new PithError('LOGITS_NOT_FINITE', { file: model.argument, message: `first for token ${token} of sequence ${sequence}` });
  }

  get result(): ScoreResult {
    if (this.#other === undefined) return this.#own;
    const { kld, ...reference } = this.#other;
    return { ...this.#own, reference, kld };
  }
}
