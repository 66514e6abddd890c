/** Tells whether a checkpoint's files are still those that a plan saw: name, size and modification time of each. */
import { statSync } from 'node:fs';
import { PithError } from '../core/errors.js';
import type { CheckpointReader } from './checkpoint.js';

export function checkpointStamp(reader: CheckpointReader): string {
  if (reader.stamp !== undefined) return reader.stamp();
  return reader.files
    .map((f) => {
      try {
        const s = statSync(f.path);
        return `${f.name}:${s.size}:${s.mtimeMs}`;
      } catch (error) {
        throw PithError.from(error, f.path);
      }
    })
    .join('|');
}
