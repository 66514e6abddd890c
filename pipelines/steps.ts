/**
 * A long run as steps that follow one another, each on what earlier ones left in the spool. A run that was killed goes on at the step it was in,
 * when everything that is still needed lies there as it was written; otherwise it begins anew.
 */
import type { ProgressEvent } from '../core/events.js';
import * as io from '../formats/io.js';
import type { Written } from '../workers/messages/refs.js';
import { readWritten } from '../workers/written.js';
import type { Journal } from './journal.js';

/** What a step wrote: a whole spool file, or a part of one that is filled step by step. */
export interface SpoolPart extends Written {
  /** Name in the spool. */
  readonly file: string;
  readonly position: number;
}

export interface StepDone {
  readonly parts: readonly SpoolPart[];
  /** Plain data for the report. */
  readonly result?: unknown;
}

export interface Step {
  /** Unique in the run. */
  readonly key: string;
  /** Spool files of earlier steps. */
  readonly reads: readonly string[];
  /** What it counts for in the progress. */
  readonly bytes: number;
  run(): AsyncGenerator<ProgressEvent, StepDone, void>;
  /** Called with what `run` gave, now or in an earlier run. */
  finished?(result: unknown): void;
}

export interface StepsPlan {
  readonly journal: Journal<StepDone>;
  readonly steps: readonly Step[];
  /** Spool files that outlast the steps; the others go when no later step reads them. */
  readonly keep: ReadonlySet<string>;
}

/** Number of leading steps that need not be run again. */
export function stepsDone({ journal, steps, keep }: StepsPlan): number {
  const next = steps.findIndex((s) => !journal.done.has(s.key));
  const count = next < 0 ? steps.length : next;
  const needed = new Set([...keep, ...steps.slice(count).flatMap((s) => s.reads)]);
  const parts = steps.slice(0, count).flatMap((s) => journal.done.get(s.key)!.parts);
  // a later step may have filled the same place again
  const last = new Map(parts.map((p) => [`${p.file}:${p.position}`, p]));
  const whole = [...last.values()].every((p) => !needed.has(p.file) || isThere(journal, p));
  return whole ? count : 0;
}

/** Whether it lies there as it was written. */
export function isThere(journal: Journal<StepDone>, { file, position, bytes, crc32 }: SpoolPart): boolean {
  return readWritten({ file: journal.spool(file), position }, bytes)?.crc32 === crc32;
}

/** Runs the steps from `first` on. */
export async function* runSteps(plan: StepsPlan, first: number): AsyncGenerator<ProgressEvent, void, void> {
  const { journal, steps } = plan;
  for (const [i, step] of steps.entries()) {
    let done = journal.done.get(step.key);
    if (i >= first || done === undefined) {
      done = yield* step.run();
      journal.append(step.key, done);
    }
    step.finished?.(done.result);
    removeRead(plan, i, done);
  }
}

/** Files that were needed for the last time, of the step itself too when nobody reads them. */
function removeRead({ journal, steps, keep }: StepsPlan, index: number, done: StepDone): void {
  const later = new Set([...keep, ...steps.slice(index + 1).flatMap((s) => s.reads)]);
  for (const file of [...steps[index]!.reads, ...done.parts.map((p) => p.file)]) if (!later.has(file)) io.remove(journal.spool(file));
}
