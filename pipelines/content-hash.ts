/** The content hash of a checkpoint of any form: every tensor read once, on the pool. */
import type { ProgressEvent } from '../core/events.js';
import { byteLength } from '../core/shape.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { contentHash } from '../formats/hash.js';
import type { HashTask } from '../workers/messages/delta.js';
import type { CheckpointRef } from '../workers/messages/refs.js';
import type { WorkerPool } from '../workers/pool.js';
import { runJobs, type Job } from './schedule.js';

export interface HashOptions {
  readonly job: string;
  readonly pool: WorkerPool;
  readonly maxMemoryBytes: number;
  readonly signal: AbortSignal;
}

/** What a hash task holds. */
const TASK_BYTES = 16 << 20;

export async function* hashCheckpoint(reader: CheckpointReader, checkpoint: CheckpointRef, o: HashOptions): AsyncGenerator<ProgressEvent, string, void> {
  const jobs = [...reader.infos.values()].map(({ name, dtype, shape }): Job<HashTask> => {
    return { task: { type: 'hash', tensor: { checkpoint, name } }, bytes: byteLength(dtype, shape), memoryBytes: TASK_BYTES, label: name };
  });
  const sha256 = new Map<string, string>();
  const totalBytes = jobs.reduce((sum, j) => sum + j.bytes, 0);
  yield { type: 'phase', job: o.job, phase: 'content hash' };
  yield* runJobs(jobs, { ...o, totalBytes, doneBytes: o.pool.doneBytes }, (job, result) => {
    sha256.set(job.label, result.sha256);
    return undefined;
  });
  return contentHash([...reader.infos.values()].map((info) => ({ ...info, sha256: sha256.get(info.name)! })));
}
