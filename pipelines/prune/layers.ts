/** All layers side by side, each by statistics that are there, by its weight alone or by a mask; what is done already is not done again. */
import type { ProgressEvent } from '../../core/events.js';
import { cutBin } from '../../kernels/sparse/score-keys.js';
import type { PruneResult, PruneScoresTask, ScoreCut } from '../../workers/messages/layers.js';
import type { LinearLayer } from '../linear-layers.js';
import { runSettings } from '../run-options.js';
import { runJobs, type Job } from '../schedule.js';
import { isThere } from '../steps.js';
import { isGlobal } from './plan.js';
import { JOB, layerDone, layerJob, layerRef, partsOf, type Output, type Run } from './run.js';

type Results = Map<string, PruneResult>;

export async function* pruneLayers(r: Run, out: Output, stats: string | undefined): AsyncGenerator<ProgressEvent, Results, void> {
  const { o, layers, journal, pool } = r;
  const results: Results = new Map();
  for (const l of layers) {
    const before = journal.done.get(`layer ${l.module}`);
    if (before?.parts.every((p) => isThere(journal, p)) === true) results.set(l.module, before.result as PruneResult);
  }
  const left = layers.filter((l) => !results.has(l.module));
  const source = stats === undefined ? {} : { stats };
  const cuts = isGlobal(o) ? yield* cutAll(r, stats) : undefined;
  const byModule = new Map(layers.map((l) => [l.module, l]));
  const jobs = left.map((l) => layerJob(r, out, l, cuts === undefined ? source : { ...source, cut: cuts.get(l.module)! }));
  const resumedBytes = [...results.keys()].reduce((sum, m) => sum + layerJob(r, out, byModule.get(m)!, {}).bytes, 0);
  const totalBytes = resumedBytes + jobs.reduce((sum, j) => sum + j.bytes, 0);
  yield { type: 'job.start', job: JOB, totalBytes, tasks: jobs.length, resumedBytes };
  const doneBytes = pool.doneBytes + resumedBytes;
  yield* runJobs(jobs, { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes, doneBytes }, (job, result) => {
    const l = byModule.get(job.label)!;
    results.set(job.label, result);
    journal.append(`layer ${job.label}`, { parts: partsOf(r, out, l, result), result });
    return layerDone(r, l);
  });
  return results;
}

const CUT = 'cut';

/** Where the scores of all layers together are cut, in two looks at them: the upper halves of their keys, then the lower ones of the bin that is hit. */
async function* cutAll(r: Run, stats: string | undefined): AsyncGenerator<ProgressEvent, ReadonlyMap<string, ScoreCut>, void> {
  const { o, layers, journal } = r;
  const before = journal.done.get(CUT)?.result as [string, ScoreCut][] | undefined;
  if (before !== undefined) return new Map(before);
  const total = layers.reduce((sum, l) => sum + l.m * l.n, 0);
  const remove = Math.floor((o.choose as { target: { ratio: number } }).target.ratio * total);
  yield { type: 'phase', job: JOB, phase: 'scores' };
  const upper = cutBin(sumOf([...(yield* countAll(r, stats)).values()]), remove);
  const cuts = new Map<string, ScoreCut>();
  if (upper.bin > 0xffff) {
    // everything goes
    for (const l of layers) cuts.set(l.module, { group: 'cut', key: 0xffffffff, ties: l.m * l.n });
  } else {
    const counts = yield* countAll(r, stats, upper.bin);
    const lower = cutBin(sumOf([...counts.values()]), remove - upper.below);
    let ties = remove - upper.below - lower.below;
    // earlier layers give theirs first
    for (const l of layers) {
      const own = Math.min(ties, counts.get(l.module)![lower.bin]!);
      cuts.set(l.module, { group: 'cut', key: upper.bin * 0x10000 + lower.bin, ties: own });
      ties -= own;
    }
  }
  journal.append(CUT, { parts: [], result: [...cuts] });
  return cuts;
}

async function* countAll(r: Run, stats: string | undefined, high?: number): AsyncGenerator<ProgressEvent, Map<string, Uint32Array>, void> {
  const { o, layers, pool } = r;
  const counts = new Map<string, Uint32Array>();
  const jobs = layers.map((l): Job<PruneScoresTask> => scoresJob(r, l, stats, high));
  const totalBytes = jobs.reduce((sum, j) => sum + j.bytes, 0);
  yield* runJobs(jobs, { job: JOB, pool, maxMemoryBytes: o.maxMemoryBytes, signal: o.signal, totalBytes, doneBytes: pool.doneBytes }, (job, result) => {
    counts.set(job.label, result.counts);
    return undefined;
  });
  return counts;
}

function scoresJob(r: Run, l: LinearLayer, stats: string | undefined, high: number | undefined): Job<PruneScoresTask> {
  const { o } = r;
  const layer = layerRef(r, l, stats);
  const { method } = o.choose as Extract<typeof o.choose, { method: unknown }>;
  const task: PruneScoresTask = { type: 'prune-scores', settings: runSettings(o, 'cpu'), layer, method, ...(high === undefined ? {} : { high }) };
  return { task, label: l.module, bytes: 2 * l.m * l.n, memoryBytes: 16 * l.m * l.n };
}

function sumOf(all: readonly Uint32Array[]): Float64Array {
  const sum = new Float64Array(1 << 16);
  for (const counts of all) for (let i = 0; i < counts.length; i++) sum[i]! += counts[i]!;
  return sum;
}
