/** A run whose result is one folder, or one file, that appears whole or not at all, and that leaves nothing else behind. */
import { dirname, resolve } from 'node:path';
import { PithError } from '../core/errors.js';
import type { ProgressEvent } from '../core/events.js';
import * as io from '../formats/io.js';
import { Journal, refuseExisting, takeName } from './journal.js';

/** OUTPUT_EXISTS, or NOT_FOUND for a parent folder that is not there: before any work. */
export function checkOutput(out: string, force: boolean): void {
  refuseExisting(out, { force });
  const parent = dirname(resolve(out));
  if (io.stat(parent) === undefined) throw new PithError('NOT_FOUND', { file: parent });
}

/** DISK_FULL when the output's file system has less room than the plan needs. */
export function requireSpace(out: string, bytes: number): void {
  const parent = dirname(resolve(out));
  const free = io.freeBytes(parent);
  if (free < bytes) throw new PithError('DISK_FULL', { file: parent, message: `${Math.ceil(bytes)} bytes are needed, ${free} are free` });
}

/** Runs `work` beside the output, which it fills in `spool`; renames `spool/<result>` to `out`, or removes everything. */
export async function* published<R>(
  out: string,
  force: boolean,
  work: (spool: (name: string) => string) => AsyncGenerator<ProgressEvent, R, void>,
): AsyncGenerator<ProgressEvent, R, void> {
  const journal = Journal.open(out, { command: 'whole' }, { resume: false });
  try {
    const report = yield* work((name) => journal.spool(name));
    journal.publishing();
    takeName(journal.spool(RESULT), out, { force });
    return report;
  } finally {
    journal.discard();
  }
}

/** What `work` leaves in the spool folder becomes the output. */
export const RESULT = 'result';
