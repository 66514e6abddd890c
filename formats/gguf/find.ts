/** Which GGUF file a checkpoint argument means. */
import { join } from 'node:path';
import { PithError } from '../../core/errors.js';
import { compareUtf8 } from '../safetensors/layout.js';
import * as io from '../io.js';
import { checkpointFolder } from '../open-checkpoint.js';
import { splitName } from './split.js';

/** A file by its ending or its first bytes; the one model of a folder that holds no safetensors. undefined for anything else. */
export function ggufPath(path: string): string | undefined {
  const s = io.stat(path);
  if (s?.isFile === true) return path.endsWith('.gguf') || (!path.endsWith('.safetensors') && hasMagic(path, s.bytes)) ? path : undefined;
  const folder = s?.isDirectory === true ? checkpointFolder(path) : undefined;
  if (folder === undefined || io.stat(folder)?.isDirectory !== true) return undefined;
  const names = io.readdir(folder).map((e) => e.name);
  if (names.some((n) => n.endsWith('.safetensors') || n.endsWith('.safetensors.index.json'))) return undefined;
  const models = new Map<string, string>();
  for (const name of names.filter((n) => n.endsWith('.gguf')).sort(compareUtf8)) {
    const split = splitName(name);
    const key = split === undefined ? name : `${split.prefix}-of-${split.count}`;
    if (!models.has(key)) models.set(key, join(folder, name));
  }
  if (models.size > 1) {
    const all = [...models.values()].map((p) => p.slice(folder.length + 1)).join(', ');
    throw new PithError('NOT_A_CHECKPOINT', { file: path, message: `several GGUF models, name one: ${all}` });
  }
  return [...models.values()][0];
}

function hasMagic(path: string, bytes: number): boolean {
  if (bytes < 4) return false;
  const fd = io.openRead(path);
  try {
    const magic = new Uint8Array(4);
    io.readFully(fd, magic, 0, path);
    return Buffer.from(magic).toString('latin1') === 'GGUF';
  } finally {
    io.close(fd);
  }
}
