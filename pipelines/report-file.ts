/** Where a report goes: asked before the work, written whole after it. */
import { dirname, resolve } from 'node:path';
import { PithError } from '../core/errors.js';
import * as io from '../formats/io.js';

/** OUTPUT_EXISTS unless `force`; NOT_FOUND without its folder. */
export function checkReportFile(file: string, force: boolean): void {
  const full = resolve(file);
  if (!force && io.stat(full) !== undefined) throw new PithError('OUTPUT_EXISTS', { file });
  if (io.stat(dirname(full))?.isDirectory !== true) throw new PithError('NOT_FOUND', { file: dirname(full) });
}

/** A temp file, fsync, rename. */
export function writeReportFile(file: string, page: string, force: boolean): void {
  checkReportFile(file, force);
  io.writeFileDurably(resolve(file), Buffer.from(page, 'utf8'));
}
