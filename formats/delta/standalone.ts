/** Finds a delta that was made without a base: such a file is a checkpoint by itself, alone or as the only model file of a folder. */
import { join } from 'node:path';
import * as io from '../io.js';
import { SafetensorsFile } from '../safetensors/file.js';
import { DELTA_FORMAT } from './schema.js';

const MODEL_FILE = 'model.safetensors';

/** Its path; undefined for everything else, damaged files too: whoever opens those says what is wrong. */
export function standalonePath(path: string): string | undefined {
  const s = io.stat(path);
  const file = s?.isDirectory === true ? join(path, MODEL_FILE) : path;
  if (s === undefined || (file !== path && io.stat(file)?.isFile !== true)) return undefined;
  const metadata = metadataOf(file);
  const named = metadata?.get('base')?.startsWith('{') === true;
  return metadata?.get('pith.format') === DELTA_FORMAT && !named ? file : undefined;
}

function metadataOf(file: string): ReadonlyMap<string, string> | undefined {
  try {
    using f = SafetensorsFile.open(file);
    return f.metadata;
  } catch {
    return undefined;
  }
}
