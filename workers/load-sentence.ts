/** How a text encoder's checkpoint makes one vector of a text, from the files beside its tensors. */
import { join } from 'node:path';
import { PithError } from '../core/errors.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import * as io from '../formats/io.js';
import { readJson } from '../formats/json.js';
import { readerConfigFolder } from '../formats/open-checkpoint.js';
import type { ConfigSource } from '../models/config/read.js';
import { parseSentence, type SentenceRecipe } from '../models/sentence.js';

/** Undefined without modules.json. MODEL_CONFIG (65) names the file and the key. */
export async function loadSentence(reader: CheckpointReader, hiddenSize: number): Promise<SentenceRecipe | undefined> {
  const folder = await readerConfigFolder(reader);
  return folder === undefined ? undefined : parseSentence((path) => json(join(folder, path)), hiddenSize);
}

function json(file: string): ConfigSource | undefined {
  if (io.stat(file)?.isFile !== true) return undefined;
  const malformed = (expected: string, got: string): PithError => new PithError('MODEL_CONFIG', { file, key: '', expected, got });
  const document = readJson(file, (message) => malformed('JSON', message));
  if (typeof document !== 'object' || document === null) throw malformed('an object or a list', JSON.stringify(document));
  return { file, at: '', document: document as Record<string, unknown> };
}
