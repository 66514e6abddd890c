/** A composed checkpoint's other files: copies of those of what it is made from, some of them changed on the way. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { isWeightFile } from '../formats/config-fields.js';
import { copyFile } from '../formats/delta/side-files.js';
import * as io from '../formats/io.js';
import { readerSideFiles } from '../formats/open-checkpoint.js';

/** A temporary folder, the caller's to remove; undefined when there are no such files. `change` gives config.json's new bytes. */
export async function copySideFiles(from: CheckpointReader, change: (config: Uint8Array) => Uint8Array): Promise<string | undefined> {
  const found = (await readerSideFiles(from)).filter((f) => !isWeightFile(f.name));
  if (found.length === 0) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'pith-side-'));
  for (const f of found) {
    const to = join(folder, f.name);
    io.mkdir(dirname(to));
    const fd = io.openWrite(to, 'w+');
    try {
      if (f.name === 'config.json') io.writeFully(fd, change(io.readFile(f.path)), 0, to);
      else await copyFile(f.path, f.bytes, (position, bytes) => io.writeFully(fd, bytes, position, to));
    } finally {
      io.close(fd);
    }
  }
  return folder;
}
