/** The thread pool. Tasks carry references; a cancel flag and a byte counter are shared memory. */
import { fileURLToPath } from 'node:url';
import type { Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { PithError } from '../core/errors.js';
import type { Envelope, Reply, ResultOf, Task } from './messages.js';

export interface PoolOptions {
  readonly threads: number;
}

/** Tensors live in buffers that are kept: what a task drops is small, and a large nursery only delays giving it back. */
const YOUNG_MB = 6;

/** A thread that takes longer to start is not waited for. */
const START_MS = 60_000;

export class WorkerPool implements AsyncDisposable {
  readonly threads: number;
  readonly #piscina: Piscina;
  readonly #cancel = new Int32Array(new SharedArrayBuffer(4));
  readonly #progress = new BigInt64Array(new SharedArrayBuffer(8));
  /** Every thread has loaded its entry, or has ended. */
  readonly #started: Promise<unknown>;

  constructor(options: PoolOptions) {
    this.threads = Math.max(1, options.threads);
    this.#piscina = new Piscina({
      filename: fileURLToPath(new URL('./entry.js', import.meta.url)),
      minThreads: this.threads,
      maxThreads: this.threads,
      concurrentTasksPerWorker: 1,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
    });
    const started = (t: Worker): Promise<void> => new Promise((go) => t.once('message', go).once('exit', go));
    this.#started = Promise.all(this.#piscina.threads.map(started));
  }

  /** Bytes that running tasks have reported, over all threads. */
  get doneBytes(): number {
    return Number(Atomics.load(this.#progress, 0));
  }

  /** Runs one task; a worker's error comes back with its code. */
  async run<T extends Task>(task: T): Promise<ResultOf<T>> {
    const envelope: Envelope = { task, cancel: this.#cancel, progress: this.#progress };
    const reply = (await this.#piscina.run(envelope)) as Reply;
    if ('error' in reply) throw PithError.fromWire(reply.error);
    return reply.ok as ResultOf<T>;
  }

  /** Running tasks stop at their next check with CANCELLED; threads live on. */
  cancel(): void {
    Atomics.store(this.#cancel, 0, 1);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel();
    // Node 20 may abort the process when a thread is ended while it loads its first module: on a busy machine that is seconds after its start
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([this.#started, new Promise((go) => (timer = setTimeout(go, START_MS)))]);
    clearTimeout(timer);
    await this.#piscina.destroy();
  }
}
