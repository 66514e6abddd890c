/** JSON from outside: a text of bounded length, nested no deeper than a recursion over it survives. */
import { constants } from 'node:buffer';
import type { PithError } from '../core/errors.js';
import * as io from './io.js';

/** As in a safetensors header (serde_json's own limit). */
const MAX_DEPTH = 127;

/** Makes the caller's error of what is wrong with the text. */
export type Refuse = (message: string) => PithError;

export function readText(file: string, refuse: Refuse): string {
  const bytes = io.readFile(file);
  if (bytes.length > constants.MAX_STRING_LENGTH) throw refuse(`a text of ${bytes.length} bytes is too long`);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8');
}

export function parseJson(text: string, refuse: Refuse): unknown {
  if (depthOf(text) > MAX_DEPTH) throw refuse(`nested deeper than ${MAX_DEPTH}`);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw refuse(error instanceof Error ? error.message : 'not JSON');
  }
}

export const readJson = (file: string, refuse: Refuse): unknown => parseJson(readText(file, refuse), refuse);

/** The most brackets that are open at once, those in strings left out. */
function depthOf(text: string): number {
  let [depth, most] = [0, 0];
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === '"') {
      for (i++; i < text.length && text[i] !== '"'; i++) if (text[i] === '\\') i++;
    } else if (c === '[' || c === '{') most = Math.max(most, ++depth);
    else if (c === ']' || c === '}') depth--;
  }
  return most;
}
