/** Follows a pipeline: a bar with ETA on a terminal, NDJSON when a program listens, silence otherwise. */
import type { Pipeline, ProgressEvent } from '../core/events.js';
import { formatBytes, formatMs } from './sizes.js';

export interface RenderOptions {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly stderr?: NodeJS.WriteStream;
}

export async function follow<Report>(pipeline: Pipeline<Report>, options: RenderOptions): Promise<Report> {
  const stderr = options.stderr ?? process.stderr;
  const bar = !options.quiet && !options.json && stderr.isTTY ? new Bar(stderr) : undefined;
  const ndjson = options.json && !options.quiet && !stderr.isTTY;
  try {
    for (;;) {
      const step = await pipeline.next();
      if (step.done === true) return step.value;
      if (ndjson) stderr.write(`${JSON.stringify(step.value)}\n`);
      bar?.show(step.value);
      if (step.value.type === 'warning' && !ndjson) stderr.write(`warning: ${step.value.message}\n`);
    }
  } finally {
    bar?.clear();
  }
}

const WIDTH = 24;

class Bar {
  readonly #started = performance.now();
  #resumed = 0;

  constructor(private readonly out: NodeJS.WriteStream) {}

  show(event: ProgressEvent): void {
    if (event.type === 'job.start') this.#resumed = event.resumedBytes;
    if (event.type !== 'progress') return;
    const { doneBytes, totalBytes, job } = event;
    const share = totalBytes === 0 ? 1 : doneBytes / totalBytes;
    const ms = performance.now() - this.#started;
    const rate = (doneBytes - this.#resumed) / Math.max(1, ms);
    const eta = rate > 0 ? formatMs((totalBytes - doneBytes) / rate) : '?';
    const filled = Math.round(share * WIDTH);
    const bar = '='.repeat(filled) + ' '.repeat(WIDTH - filled);
    this.out.write(`\r\x1b[K${job} [${bar}] ${(share * 100).toFixed(0).padStart(3)} %  ${formatBytes(rate * 1000)}/s  ETA ${eta}`);
  }

  clear(): void {
    this.out.write('\r\x1b[K');
  }
}
