/** The tokenizer of a checkpoint, from the files beside its tensors. */
import { join } from 'node:path';
import { PithError } from '../core/errors.js';
import type { CheckpointReader } from '../formats/checkpoint.js';
import * as io from '../formats/io.js';
import { readJson } from '../formats/json.js';
import { readerConfigFolder } from '../formats/open-checkpoint.js';
import { Tokenizer } from '../models/tokenizer/tokenizer.js';

/** TOKENIZER_MISSING (66), TOKENIZER_MALFORMED, TOKENIZER_UNSUPPORTED (65). Of a base with a delta they are the delta's, of one with an adapter the base's. */
export async function loadTokenizer(reader: CheckpointReader): Promise<Tokenizer> {
  const folder = await readerConfigFolder(reader);
  if (folder === undefined) throw new PithError('TOKENIZER_MISSING', { file: reader.source });
  return tokenizerOf(folder, reader.source);
}

/** `source`: what errors name. */
export function tokenizerOf(folder: string, source = folder): Tokenizer {
  const tokenizer = json(folder, 'tokenizer.json');
  if (tokenizer === undefined) throw new PithError('TOKENIZER_MISSING', { file: source });
  const template = join(folder, 'chat_template.jinja');
  return new Tokenizer({
    source,
    tokenizer,
    config: json(folder, 'tokenizer_config.json'),
    specialTokensMap: json(folder, 'special_tokens_map.json'),
    generationConfig: json(folder, 'generation_config.json'),
    ...(io.stat(template)?.isFile === true ? { chatTemplate: Buffer.from(io.readFile(template)).toString('utf8') } : {}),
  });
}

function json(folder: string, name: string): unknown {
  const file = join(folder, name);
  if (io.stat(file)?.isFile !== true) return undefined;
  return readJson(file, (message) => new PithError('TOKENIZER_MALFORMED', { file, message }));
}
