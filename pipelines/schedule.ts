/** Hands tasks to the pool within the byte budget and turns what happens into one ordered stream of events. */
import { PithError } from '../core/errors.js';
import type { ProgressEvent } from '../core/events.js';
import type { ResultOf, Task } from '../workers/messages.js';
import type { WorkerPool } from '../workers/pool.js';

export interface Job<T extends Task> {
  readonly task: T;
  /** What it counts for in the progress, in bytes of tuned data. */
  readonly bytes: number;
  /** Host memory it may hold at most. */
  readonly memoryBytes: number;
  readonly label: string;
}

export interface ScheduleOptions {
  readonly job: string;
  readonly pool: WorkerPool;
  readonly maxMemoryBytes: number;
  readonly signal: AbortSignal;
  readonly totalBytes: number;
  /** Bytes that were done before (a resumed run). */
  readonly doneBytes?: number;
}

/** Interval of progress events while tasks run, in ms. */
const TICK_MS = 100;

/**
 * Runs all jobs, largest first, so many at once that their memory fits; one that alone exceeds the budget runs alone.
 * `onResult` is called in completion order on the main thread; the first error stops the rest.
 */
export async function* runJobs<T extends Task>(
  jobs: readonly Job<T>[],
  options: ScheduleOptions,
  onResult: (job: Job<T>, result: ResultOf<T>) => ProgressEvent | undefined,
): AsyncGenerator<ProgressEvent, void, void> {
  const { pool, signal, totalBytes } = options;
  const queue = [...jobs].sort((a, b) => b.bytes - a.bytes);
  const events: ProgressEvent[] = [];
  let inFlight = 0;
  let memory = 0;
  let failure: PithError | undefined;
  let wake: () => void = () => undefined;
  const start0 = pool.doneBytes - (options.doneBytes ?? 0);
  const onAbort = (): void => {
    pool.cancel();
    wake();
  };
  if (signal.aborted) onAbort();
  signal.addEventListener('abort', onAbort, { once: true });

  const launch = (job: Job<T>): void => {
    inFlight++;
    memory += job.memoryBytes;
    pool
      .run(job.task)
      .then((result) => {
        const event = onResult(job, result);
        if (event !== undefined) events.push(event);
      })
      .catch((error: unknown) => {
        failure ??= PithError.from(error);
        queue.length = 0;
        pool.cancel();
      })
      .finally(() => {
        inFlight--;
        memory -= job.memoryBytes;
        wake();
      });
  };
  const fits = (job: Job<T>): boolean => inFlight === 0 || (inFlight < pool.threads + 1 && memory + job.memoryBytes <= options.maxMemoryBytes);
  const progress = (): ProgressEvent => {
    const doneBytes = Math.min(totalBytes, pool.doneBytes - start0);
    return { type: 'progress', job: options.job, doneBytes, totalBytes };
  };

  try {
    while (inFlight > 0 || queue.length > 0) {
      if (signal.aborted) queue.length = 0;
      for (let next = queue.findIndex(fits); next >= 0; next = queue.findIndex(fits)) launch(queue.splice(next, 1)[0]!);
      if (inFlight === 0) continue;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, TICK_MS);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      yield* events.splice(0);
      yield progress();
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
  if (signal.aborted) throw new PithError('CANCELLED');
  if (failure !== undefined) throw failure;
  yield* events.splice(0);
}
