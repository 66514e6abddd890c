/** A checkpoint argument -> what a task needs to run it as a model: files, their state, config.json from beside them. */
import { join } from 'node:path';
import { PithError } from '../core/errors.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import * as io from '../formats/io.js';
import { readerConfigFolder } from '../formats/open-checkpoint.js';
import { checkpointStamp } from '../formats/stamp.js';
import type { ModelRef } from '../workers/messages/refs.js';
import { resolveCheckpoint } from '../workers/open.js';

/** NOT_FOUND (66) without a config.json, MODEL_CONFIG (65) when it is no JSON. */
export async function modelRef(argument: string, reader: CheckpointReader): Promise<ModelRef> {
  const folder = await readerConfigFolder(reader);
  // a composed checkpoint's own is in a temporary folder
  const configFile = folder === undefined || reader.sideFolder !== undefined ? `${argument}: config.json` : join(folder, 'config.json');
  return {
    checkpoint: { path: resolveCheckpoint(argument), stamp: checkpointStamp(reader) },
    config: readJson(folder === undefined ? undefined : join(folder, 'config.json'), configFile),
    configFile,
  };
}

function readJson(path: string | undefined, named: string): unknown {
  if (path === undefined || io.stat(path)?.isFile !== true) throw new PithError('NOT_FOUND', { file: named });
  try {
    return JSON.parse(Buffer.from(io.readFile(path)).toString('utf8'));
  } catch (cause) {
    if (cause instanceof PithError) throw cause;
    throw new PithError('MODEL_CONFIG', { file: named, key: '', expected: 'JSON', got: cause instanceof Error ? cause.message : '' }, { cause });
  }
}
