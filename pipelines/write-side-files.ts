/** The other files of a checkpoint beside new weights. */
import { dirname, join } from 'node:path';
import type { CheckpointReader } from '../formats/checkpoint.js';
import { isWeightFile, withFields, type ConfigField } from '../formats/config-fields.js';
import { copyFile } from '../formats/delta/side-files.js';
import * as io from '../formats/io.js';
import { readerSideFiles } from '../formats/open-checkpoint.js';

/** Copies them, on disk when it returns; config.json says what the tensors now are. Other weights and indexes of the folder stay behind. */
export async function writeSideFiles(from: CheckpointReader, out: string, fields: readonly ConfigField[] = []): Promise<string[]> {
  const names: string[] = [];
  for (const f of await readerSideFiles(from)) {
    if (isWeightFile(f.name)) continue;
    const to = join(out, f.name);
    names.push(f.name);
    io.mkdir(dirname(to));
    if (f.name === 'config.json') {
      io.writeFileDurably(to, withFields(io.readFile(f.path), fields));
      continue;
    }
    const fd = io.openWrite(to, 'wx');
    try {
      await copyFile(f.path, f.bytes, (position, bytes) => io.writeFully(fd, bytes, position, to));
      io.fsync(fd, to);
    } finally {
      io.close(fd);
    }
  }
  return names;
}
